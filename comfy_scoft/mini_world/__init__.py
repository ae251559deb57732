from __future__ import annotations

from pathlib import Path

COMMUNITY = Path(__file__).parent / "community"
"""The shipped dataset of nuvia, with images as its people would show themselves."""
