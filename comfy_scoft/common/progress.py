"""What a long piece of work is followed with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Observer = Callable[[int, int, Path], None]
"""Called after each record with how many are done, how many there are, and the newest file. May raise, to stop."""


def duration(seconds: float) -> str:
    """A duration for people: "40 s", "12 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
