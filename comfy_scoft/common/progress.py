"""What a long piece of work is followed with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Observer = Callable[[int, int, Path], None]
"""Called after each record with how many are done, how many there are, and the newest file. May raise, to stop."""
