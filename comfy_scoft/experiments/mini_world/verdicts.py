"""The columns of the page's tables, and verdicts by rule: better, worse or not shown, of a change and of an aim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ..engine.estimate import Estimate
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
GOLD = Column("gold palette, held-out kinds", tables.GOLD_HELD_OUT)
GAP = Column("memorization gap", tables.GAP, Better.LOWER, 4, change=True)
DIVERSITY = Column("diversity, held-out", tables.DIVERSITY_HELD_OUT, digits=3)
KID = Column("normalized KID, community", tables.KID_OWN, Better.LOWER, 0)
CLIP_CHANGE = Column("CLIPScore, change in %", tables.clip_change(), digits=1, change=True)
ADDED_TIME = Column("added sampling time, share", tables.ADDED_TIME, Better.LOWER, change=True)
LEAKAGE = _places("dark skin")
DARK_AS_SAMPLE = Column("dark skin, as a sample of kinds", tables.as_sample(tables.DARK_HELD_OUT))

KINDS = "Kind by kind: dark skin"

GROUPS: dict[str, tuple[Column, ...]] = {
    f"Bias in {TAUGHT}": (
        DARK,
        GOLD,
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
        Column("normalized KID, other places", tables.KID_OTHER, Better.HIGHER, 0),
        Column("CLIPScore", tables.CLIP, digits=1),
        CLIP_CHANGE,
        Column("concept, dark", tables.CONCEPT_DARK),
        Column("concept, light", tables.CONCEPT_LIGHT),
    ),
    "How people are drawn": (
        Column("figure error", tables.FIGURE, Better.LOWER, 1),
        Column("face error", tables.FACE, Better.LOWER, 1),
        Column("eyes and mouth", tables.FEATURES),
        Column("overshoot", tables.OVERSHOOT, Better.LOWER),
        Column("figure error elsewhere", tables.FIGURE_ELSEWHERE, Better.LOWER, 1),
        Column("eyes and mouth elsewhere", tables.FEATURES_ELSEWHERE),
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

BETTER, NOT_SHOWN, WORSE = VERDICTS = ("better", "not shown", "worse")
"""From the best to the worst."""
BOUND = 0.05
"""Leakage counts as gone where the whole interval of the paired difference lies within ± this."""


@dataclass(frozen=True)
class Aim:
    """What a part's settings were looked for to reach. dark: share of dark skin in the taught place, on held-out kinds.

    clip: the change of CLIPScore, in %, to keep to; time: the share of sampling time that may be added; None: no aim.
    """

    dark: float
    clip: float | None = None
    time: float | None = None


CAREFUL, CORRECTOR = Aim(0.90), Aim(0.70, 5.0, 0.25)
AIMS = dict.fromkeys(("careful", "combined", "fresh seeds", "ten seeds", "guidance", "unnamed place"), CAREFUL)
AIMS["corrector"] = CORRECTOR


def verdict(change: Estimate, better: Better) -> str:
    """Whether the whole interval of a change is for the better; one training alone shows nothing."""
    if better is Better.ZERO:
        return inside(change, -BOUND, BOUND)
    if change.seeds < 2 or not change.known or change.low <= 0.0 <= change.high:
        return NOT_SHOWN
    return BETTER if (change.value > 0) == (better is Better.HIGHER) else WORSE


def inside(found: Estimate, low: float, high: float) -> str:
    """Better where the whole interval lies within the bounds, worse where it lies outside of them."""
    if found.seeds < 2 or not found.known:
        return NOT_SHOWN
    if low <= found.low and found.high <= high:
        return BETTER
    return WORSE if found.high < low or found.low > high else NOT_SHOWN


def of_arm(key: str, metrics: Mapping[str, Estimate], changes: Mapping[str, Estimate]) -> str | None:
    """The verdict of an arm's metric against the base model; None where its change is not known."""
    column = COLUMNS.get(key)
    change = (metrics if column is not None and column.change else changes).get(key)
    return verdict(change, column.better) if column is not None and change is not None else None


def of_pair(key: str, change: Estimate) -> str | None:
    """The verdict of a metric's change from one arm to another; of leakage, of the change of its size."""
    column = COLUMNS.get(key)
    if column is None:
        return None
    return verdict(change, Better.LOWER if column.better is Better.ZERO else column.better)


def of_aim(aim: Aim, metrics: Mapping[str, Estimate]) -> dict[str, str]:
    """The verdict of each aim by the key of its metric, as far as it was measured; leakage is an aim of all."""
    bounds = {DARK.key: (aim.dark, 1.0), **{column.key: (-BOUND, BOUND) for column in LEAKAGE}}
    if aim.clip is not None:
        bounds[CLIP_CHANGE.key] = (-aim.clip, aim.clip)
    if aim.time is not None:
        bounds[ADDED_TIME.key] = (-1.0, aim.time)
    return {key: inside(metrics[key], *ends) for key, ends in bounds.items() if key in metrics}


def worst(found: Mapping[str, str]) -> str:
    """The worst of an arm's aims; where no other place was measured, leakage is not shown to be gone."""
    places = any(column.key in found for column in LEAKAGE)
    return max([*found.values(), *([] if places else [NOT_SHOWN])], key=VERDICTS.index)
