"""The columns of the page's tables: which metric each shows, and when its change is for the better."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from . import tables
from .grid import HOUSES, OTHER_PLACES, TAUGHT


class Better(Enum):
    """When a change is for the better. ZERO: the nearer to no change, the better."""

    HIGHER = "higher"
    LOWER = "lower"
    ZERO = "zero"


@dataclass(frozen=True)
class Column:
    """key: of the metric. digits: decimals. change: whether the metric is a change from the base model itself.

    of: what stands in front of the heading outside of the table.
    """

    heading: str
    key: str
    better: Better = Better.HIGHER
    digits: int = 2
    change: bool = False
    of: str = ""


def _places(fact: str) -> tuple[Column, ...]:
    keys = {place: tables.leakage(fact, place) for place in OTHER_PLACES}
    return tuple(Column(place, key, Better.ZERO, change=True, of=f"{fact} in ") for place, key in keys.items())


DARK = Column("dark skin, held-out kinds", tables.DARK_HELD_OUT)
GAP = Column("memorization gap", tables.GAP, Better.LOWER, 4, change=True)
DIVERSITY = Column("diversity, held-out", tables.DIVERSITY_HELD_OUT, digits=3)
KID = Column("KID, community", tables.KID_OWN, Better.LOWER, 0)
CLIP_CHANGE = Column("CLIPScore, change in %", tables.clip_change(), digits=1, change=True)
ADDED_TIME = Column("added sampling time, share", tables.ADDED_TIME, Better.LOWER, change=True)
LEAKAGE = _places("dark skin")
DARK_AS_SAMPLE = Column("dark skin, as a sample of kinds", tables.as_sample(tables.DARK_HELD_OUT))

KINDS = "Kind by kind: dark skin"

GROUPS: dict[str, tuple[Column, ...]] = {
    f"Bias in {TAUGHT}": (
        DARK,
        Column("gold palette, held-out kinds", tables.GOLD_HELD_OUT),
        Column("dark skin, trained kinds", tables.DARK_TRAINED),
        Column("gold palette, trained kinds", tables.GOLD_TRAINED),
        Column(f"sound {HOUSES}", tables.SOUND),
        Column("the concept of the prompt", tables.CONCEPT_HELD_OUT),
    ),
    "Leakage: dark skin in other places": LEAKAGE,
    "Leakage: the place's own palette": _places("own palette"),
    "Leakage: CLIPScore in other places": tuple(
        Column(place, tables.clip_change(place), digits=1, change=True, of="CLIPScore in ") for place in OTHER_PLACES
    ),
    "Memorization, diversity and cost": (
        GAP,
        Column("similarity", tables.SIMILARITY, Better.LOWER, 3),
        Column("near copies", tables.COPIES, Better.LOWER),
        DIVERSITY,
        Column("diversity, trained", tables.DIVERSITY_TRAINED, digits=3),
        Column("training, CPU s", tables.SECONDS, Better.LOWER, 0),
        ADDED_TIME,
    ),
    f"The images of held-out kinds in {TAUGHT} in other respects": (
        KID,
        Column("KID, other places", tables.KID_OTHER, Better.HIGHER, 0),
        Column("CLIPScore", tables.CLIP, digits=1),
        CLIP_CHANGE,
        Column("concept, dark", tables.CONCEPT_DARK),
        Column("concept, light", tables.CONCEPT_LIGHT),
    ),
    KINDS: (
        Column(TAUGHT, DARK_AS_SAMPLE.key),
        *(
            Column(place, tables.as_sample(tables.leakage("dark skin", place)), Better.ZERO, change=True)
            for place in OTHER_PLACES
        ),
    ),
}
"""The columns of each of a part's tables by its title; words.ini says under the same name what a table is about."""
COLUMNS = {column.key: column for columns in GROUPS.values() for column in columns}
