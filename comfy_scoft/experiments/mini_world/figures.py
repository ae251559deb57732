"""Figures with intervals from what several trainings drew, which hold both chances: of images and of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...metrics.intervals import Interval, bootstrap_mean, paired_share_change, wilson_interval

INTERVAL = (
    "Intervals are 95 %. Shares, their changes, CLIPScore and the memorization gap have two, and what both span is "
    "shown: Student's t over the trainings (seeds), which sees that trainings differ, and one over all images "
    "(Wilson's; Newcombe's for paired changes; a bootstrap for the others), which sees that images do. With one "
    "seed there is only the second (marked ¹), and no difference counts as shown. All other figures have the first "
    "alone. The kinds of people are the same few in every training, so what an interval says holds for these; where "
    "it says “as a sample of kinds” it is Student's t over the kinds and would hold for others like them. Of twenty "
    "intervals one misses by chance, and there are hundreds here: a single one that just leaves out 0 is no "
    "discovery."
)


Limits = tuple[float, float]
NONE: Limits = (-math.inf, math.inf)


@dataclass(frozen=True)
class Figure:
    """A figure, its 95 % interval (NaN where there is none), images (or records) and trainings that it rests on."""

    value: float
    low: float
    high: float
    n: int
    seeds: int

    @property
    def known(self) -> bool:
        """Whether it has an interval."""
        return not math.isnan(self.low)

    def holds(self, value: float = 0.0) -> bool:
        """Whether the interval holds a value; one without an interval rules nothing out."""
        return not self.known or self.low <= value <= self.high

    def within(self, bound: float) -> bool:
        """Whether the whole interval lies within ±bound."""
        return self.known and -bound <= self.low and self.high <= bound


def t_interval(values: Sequence[float]) -> Interval:
    """Mean of the trainings' figures with Student's t interval; no interval (NaN) for fewer than two."""
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean, math.nan, math.nan)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    reach = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, mean - reach, mean + reach)


def share(facts: Sequence[Sequence[bool]]) -> Figure:
    """Share of images for which something holds. facts: one list for each training, none of them empty."""
    pooled = [fact for own in facts for fact in own]
    over = t_interval([sum(own) / len(own) for own in facts])
    return _joined(wilson_interval(sum(pooled), len(pooled)), over, (0.0, 1.0), len(pooled), len(facts))


def change(before: Sequence[Sequence[bool]], after: Sequence[Sequence[bool]]) -> Figure:
    """Share after less share before, of images of the same prompts and noise; one list for each training."""
    pooled = [[fact for own in side for fact in own] for side in (before, after)]
    over = t_interval([sum(b) / len(b) - sum(a) / len(a) for a, b in zip(before, after, strict=True)])
    return _joined(paired_share_change(*pooled), over, (-1.0, 1.0), len(pooled[0]), len(before))


def mean(values: Sequence[float], limits: Limits = NONE) -> Figure:
    """Mean of one figure a training, of which nothing is known image by image. limits: what the figure can be."""
    return Figure(*t_interval(values).cut(*limits), len(values), len(values))


def mean_of_images(values: Sequence[Sequence[float]], limits: Limits = NONE) -> Figure:
    """Mean of one figure an image. values: one list for each training, each of its own images."""
    pooled = [value for own in values for value in own]
    over = t_interval([math.fsum(own) / len(own) for own in values])
    return _joined(bootstrap_mean(pooled), over, limits, len(pooled), len(values))


def mean_of_records(values: Sequence[Sequence[float]]) -> Figure:
    """Mean of one figure a record and training. values: one list for each training, over the same records.

    The second interval is a bootstrap over the records, each with its mean over the trainings.
    """
    records = [math.fsum(own) / len(own) for own in zip(*values, strict=True)]
    over = t_interval([math.fsum(own) / len(own) for own in values])
    return _joined(bootstrap_mean(records), over, NONE, len(records), len(values))


def over_kinds(values: Mapping[str, float], seeds: int, limits: Limits) -> Figure:
    """Mean of one figure a kind, as if the kinds were a sample of all kinds: Student's t over them; n counts kinds."""
    return Figure(*t_interval(list(values.values())).cut(*limits), len(values), seeds)


def _joined(pooled: Interval, over_seeds: Interval, limits: Limits, n: int, seeds: int) -> Figure:
    """The pooled value, with what both intervals span."""
    ends = [interval for interval in (pooled, over_seeds) if not math.isnan(interval.low)]
    joined = Interval(pooled.value, min(own.low for own in ends), max(own.high for own in ends))
    return Figure(*joined.cut(*limits), n, seeds)
