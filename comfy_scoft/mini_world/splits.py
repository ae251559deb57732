"""Kinds of people in the community set, and held-out kinds.

Metrics on HELD_OUT_KINDS measure whether training on a few kinds of people generalizes to others. The two lists are
alternate kinds in the order of the sheet of art, so that both have women and men, old and young, jobs and fantasy.
"""

from __future__ import annotations

TRAINED_KINDS: tuple[str, ...] = (
    "farmer", "student", "singer", "mechanic", "pilot", "doctor", "clerk", "woman", "grandmother", "officer", "elf",
    "queen",
)  # fmt: skip
"""In the community set."""

HELD_OUT_KINDS: tuple[str, ...] = (
    "cook", "artist", "teacher", "scientist", "judge", "firefighter", "baby", "bearded man", "grandfather", "builder",
    "hero", "curly woman",
)  # fmt: skip
"""Only in evaluation prompts."""
