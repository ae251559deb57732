"""Verdicts by rule: better, worse or not shown, of a change, of an aim, and of all of an arm's metrics together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..engine.estimate import Estimate
from .columns import ADDED_TIME, CLIP_CHANGE, COLUMNS, DARK, LEAKAGE, Better

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
AIMS = {
    "careful": CAREFUL,
    "combined": CAREFUL,
    "fresh seeds": CAREFUL,
    "ten seeds": CAREFUL,
    "unnamed place": CAREFUL,
    "corrector": CORRECTOR,
}


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
