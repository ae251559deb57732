"""What a program prints reaches any console, redirected file or none at all. Standard library only."""

from __future__ import annotations

import io
import os
import sys


def printable_streams() -> None:
    """Make stdout and stderr write what their encoding lacks as escapes, and swallow all where there is none (pythonw).

    Call it first in every program: a name in a path must not end what the program does.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # it stays open until the program ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
