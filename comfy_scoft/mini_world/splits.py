"""Which kinds of people the community shows, and which it never does.

The community set holds only TRAINED_KINDS. Every other kind is held out: a figure on HELD_OUT_KINDS says whether what
was learned of a few people carries over to people whom no picture of the community shows. Both halves hold women, men,
old and young, work and fancy: they are every other kind in the order of the sheet of art.
"""

from __future__ import annotations

TRAINED_KINDS: tuple[str, ...] = (
    "farmer",
    "student",
    "singer",
    "mechanic",
    "pilot",
    "doctor",
    "clerk",
    "woman",
    "grandmother",
    "officer",
    "elf",
    "queen",
)
"""Kinds of people in the community set."""

HELD_OUT_KINDS: tuple[str, ...] = (
    "cook",
    "artist",
    "teacher",
    "scientist",
    "judge",
    "firefighter",
    "baby",
    "bearded man",
    "grandfather",
    "builder",
    "hero",
    "curly woman",
)
"""Kinds of people that only the evaluation asks for."""
