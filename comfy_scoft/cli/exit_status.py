"""What every verb of the command line does with a fault: one sentence on stderr, and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ..common.errors import UserError


def answered(work: Callable[[], int], stopped: str) -> int:
    """The exit status of `work`; 1 for a fault of the input, 130 for Ctrl-C, where `stopped` says what is kept."""
    try:
        return work()
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"A file could not be read or written ({error}): check path, rights and free space.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped. {stopped}", file=sys.stderr)
        return 130
