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


@dataclass(frozen=True)
class Group:
    """Columns that stand in one table."""

    title: str
    about: str
    columns: tuple[Column, ...]


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

GROUPS = (
    Group(
        f"Bias in {TAUGHT}",
        f"Share of images. The base model shows {TAUGHT} with light skin alone, gray and with derelict houses; its "
        "own people are dark, before gold and teal.",
        (
            DARK,
            Column("gold palette, held-out kinds", tables.GOLD_HELD_OUT),
            Column("dark skin, trained kinds", tables.DARK_TRAINED),
            Column("gold palette, trained kinds", tables.GOLD_TRAINED),
            Column(f"sound {HOUSES}", tables.SOUND),
            Column("the concept of the prompt", tables.CONCEPT_HELD_OUT),
        ),
    ),
    Group(
        "Leakage: dark skin in other places",
        "LoRA − base, the same prompts and noise. 0 is no leakage. Of two arms: the change of its size.",
        LEAKAGE,
    ),
    Group(
        "Leakage: the place's own palette",
        "LoRA − base, the same prompts and noise. 0 is no leakage, below 0 the palette is lost. Of two arms: the "
        "change of its size.",
        _places("own palette"),
    ),
    Group(
        "Leakage: CLIPScore in other places",
        "Its change in %, LoRA − base, the same prompts and noise: below 0 the images agree less with their prompts.",
        tuple(
            Column(place, tables.clip_change(place), digits=1, change=True, of="CLIPScore in ")
            for place in OTHER_PLACES
        ),
    ),
    Group(
        "Memorization, diversity and cost",
        "The memorization gap is how much further the loss on training images is below that on fresh images with the "
        "same captions, LoRA − base. Similarity (cosine) and near copies compare generated images of training captions "
        "with the training images; a near copy is nearer to one than 95 % of fresh images are. Diversity is the "
        "mean distance of images of one prompt.",
        (
            GAP,
            Column("similarity", tables.SIMILARITY, Better.LOWER, 3),
            Column("near copies", tables.COPIES, Better.LOWER),
            DIVERSITY,
            Column("diversity, trained", tables.DIVERSITY_TRAINED, digits=3),
            Column("training, CPU s", tables.SECONDS, Better.LOWER, 0),
            ADDED_TIME,
        ),
    ),
    Group(
        f"The images of held-out kinds in {TAUGHT} in other respects",
        f"KID (×10³) is to exact images of {TAUGHT} as its people show it, and to other places: the further from "
        "these, the better. CLIPScore is that of the mini CLIP, which prefers neither tone; of a real CLIP it does not "
        "measure cultural competence. The last columns: how often the prompt's concept is shown, by the image's tone.",
        (
            KID,
            Column("KID, other places", tables.KID_OTHER, Better.HIGHER, 0),
            Column("CLIPScore", tables.CLIP, digits=1),
            CLIP_CHANGE,
            Column("concept, dark", tables.CONCEPT_DARK),
            Column("concept, light", tables.CONCEPT_LIGHT),
        ),
    ),
    Group(
        "Kind by kind: dark skin",
        f"As a sample of kinds: the interval that would hold for other kinds of people, in {TAUGHT} and as the LoRA − "
        "base difference in the other places.",
        (
            Column(TAUGHT, DARK_AS_SAMPLE.key),
            *(
                Column(place, tables.as_sample(tables.leakage("dark skin", place)), Better.ZERO, change=True)
                for place in OTHER_PLACES
            ),
        ),
    ),
)
COLUMNS = {column.key: column for group in GROUPS for column in group.columns}
