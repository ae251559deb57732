"""A metric over several trainings: its value, its 95 % interval and the value of each training.

Where images or records are many, the interval spans two: Student's t over the trainings (seeds), which sees that
trainings differ, and one over the images, which sees that images do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...metrics.intervals import Interval, bootstrap_mean, paired_share_change, t_interval, wilson_interval

Limits = tuple[float, float]
NONE: Limits = (-math.inf, math.inf)


@dataclass(frozen=True)
class Estimate:
    """low, high: NaN without an interval. n: images or records. seeds: trainings.

    values: the value of each training by its seed, or of each kind where kinds are the sample; empty: not stored.
    """

    value: float
    low: float
    high: float
    n: int | None
    seeds: int
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether it has an interval."""
        return not math.isnan(self.low)

    @property
    def interval(self) -> Interval:
        return Interval(self.value, self.low, self.high)

    def as_json(self) -> dict[str, Any]:
        """JSON has no NaN: null where there is no interval."""
        ends = {name: None if math.isnan(end) else end for name, end in (("low", self.low), ("high", self.high))}
        plain = {"value": self.value, **ends, "n": self.n, "seeds": self.seeds}
        return {**plain, "values": dict(self.values)} if self.values else plain

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Estimate:
        low, high = (math.nan if content[end] is None else content[end] for end in ("low", "high"))
        return Estimate(content["value"], low, high, content["n"], content["seeds"], content.get("values", {}))


def share(facts: Mapping[int, Sequence[bool]]) -> Estimate:
    """Share of images for which something holds. facts: by seed, none of them empty."""
    pooled = [fact for own in facts.values() for fact in own]
    each = {seed: sum(own) / len(own) for seed, own in facts.items()}
    return _joined(wilson_interval(sum(pooled), len(pooled)), each, (0.0, 1.0), len(pooled))


def share_change(before: Mapping[int, Sequence[bool]], after: Mapping[int, Sequence[bool]]) -> Estimate:
    """Share after less share before, of images of the same prompts and noise; by seed."""
    pooled = [[fact for seed in before for fact in side[seed]] for side in (before, after)]
    each = {seed: sum(after[seed]) / len(after[seed]) - sum(own) / len(own) for seed, own in before.items()}
    return _joined(paired_share_change(*pooled), each, (-1.0, 1.0), len(pooled[0]))


def mean(values: Mapping[Any, float], limits: Limits = NONE) -> Estimate:
    """Mean of one value a training, Student's t over them. limits: the values that are possible."""
    each = {str(name): value for name, value in values.items()}
    return Estimate(*t_interval(list(each.values())).cut(*limits), len(each), len(each), each)


def independent_change(before: Estimate, after: Estimate, limits: Limits = NONE) -> Estimate:
    """The change between figures of trainings that are no pairs, from their intervals: MOVER, as `independent_mean`."""
    low, high = (
        math.hypot(own, other)
        for own, other in (
            (after.value - after.low, before.high - before.value),
            (after.high - after.value, before.value - before.low),
        )
    )
    value = after.value - before.value
    return Estimate(*Interval(value, value - low, value + high).cut(*limits), after.n, min(before.seeds, after.seeds))


def mean_of_kinds(values: Mapping[str, float], seeds: int, limits: Limits) -> Estimate:
    """Mean of one value a kind, as if the kinds were a sample of all kinds; n counts kinds."""
    return replace(mean(values, limits), seeds=seeds)


def mean_of_images(values: Mapping[int, Sequence[float]], limits: Limits = NONE) -> Estimate:
    """Mean of one value an image; by seed, each of its own images."""
    pooled = [value for own in values.values() for value in own]
    return _joined(bootstrap_mean(pooled), _means(values), limits, len(pooled))


def mean_of_records(values: Mapping[int, Sequence[float]]) -> Estimate:
    """Mean of one value a record and training; by seed, over the same records.

    The second interval is a bootstrap over the records, each with its mean over the trainings.
    """
    records = [math.fsum(own) / len(own) for own in zip(*values.values(), strict=True)]
    return _joined(bootstrap_mean(records), _means(values), NONE, len(records))


def shown(found: Interval, digits: int = 2, *, signed: bool = False) -> str:
    """ "0.61 [0.52, 0.70]", or "0.61" without an interval."""
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    value, low, high = (form.format(number) for number in found)
    return value if math.isnan(found.low) else f"{value} [{low}, {high}]"


def _means(values: Mapping[int, Sequence[float]]) -> dict[int, float]:
    return {seed: math.fsum(own) / len(own) for seed, own in values.items()}


def _joined(pooled: Interval, each: Mapping[int, float], limits: Limits, n: int) -> Estimate:
    """The pooled value, with what its interval and that over the trainings span."""
    joined = pooled.spanning(t_interval(list(each.values()))).cut(*limits)
    return Estimate(*joined, n, len(each), {str(seed): value for seed, value in each.items()})
