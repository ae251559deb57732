"""How every command ends: its exit status, one sentence for a person's mistake, a traceback for a fault of the code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ..common.errors import ADVICE, UserError, advice


def answered(work: Callable[[], int], stopped: str) -> int:
    """The exit status of `work`: 1 for a person's mistake or a disk error, 130 for Ctrl-C, 141
    where nobody reads what it prints any more.

    stopped: the sentence after Ctrl-C that says what is kept, where the KeyboardInterrupt itself does not say it. Any
    other exception passes through: Python prints its traceback and exits with status 1.
    """
    try:
        status = work()
        sys.stdout.flush()  # here, and not when Python ends
        return status
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read what is printed has ended, as `head` does: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python writes the rest at its end
        return 128 + 13
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        print(f"A file could not be read or written ({error}): {advice(error)}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"\n{stop}" if stop.args else f"\nStopped. {stopped}", file=sys.stderr)
        return 130
