"""How every command ends: its exit status, one sentence for a person's mistake, a traceback for a fault of the code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from ..common.errors import UserError

DISK = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "choose a folder that you can write to",
    errno.EACCES: "get the permission for it, or choose another folder",
    errno.EPERM: "get the permission for it, or choose another folder",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "check the path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "check the disk",
}
"""Errors of files and disks that a person can fix, with what to do. Any other OSError is not one sentence."""


def answered(work: Callable[[], int], stopped: str) -> int:
    """The exit status of `work`: 1 for a person's mistake or a disk error, 130 for Ctrl-C.

    stopped: the sentence after Ctrl-C that says what is kept, where the KeyboardInterrupt itself does not say it. Any
    other exception passes through: Python prints its traceback and exits with status 1.
    """
    try:
        return work()
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in DISK:
            raise
        print(f"A file could not be read or written ({error}): {DISK[error.errno]}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"\n{stop}" if stop.args else f"\nStopped. {stopped}", file=sys.stderr)
        return 130
