"""Figures with intervals from what several trainings drew, which hold both chances: of pictures and of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..statistics import Interval, bootstrap_mean, paired_share_change, wilson_interval

INTERVAL = (
    "Intervals are 95 %. Of two it is the wider: Student's t over the trainings (seeds), which sees that trainings "
    "differ, and one over all pictures (Wilson's; Newcombe's for paired changes; a bootstrap for losses), which sees "
    "that pictures do. With one seed there is only the second."
)


@dataclass(frozen=True)
class Figure:
    """A figure, its 95 % interval (NaN where there is none), pictures (or records) and trainings that it rests on."""

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
    """Share of pictures for which something holds. facts: one list for each training, all of one length."""
    pooled = [fact for own in facts for fact in own]
    over = t_interval([sum(own) / len(own) for own in facts])
    return _wider(over, wilson_interval(sum(pooled), len(pooled)), 0.0, len(pooled), len(facts))


def change(before: Sequence[Sequence[bool]], after: Sequence[Sequence[bool]]) -> Figure:
    """Share after less share before, of pictures of the same prompts and noise; one list for each training."""
    pooled = [[fact for own in side for fact in own] for side in (before, after)]
    over = t_interval([sum(b) / len(b) - sum(a) / len(a) for a, b in zip(before, after, strict=True)])
    return _wider(over, paired_share_change(*pooled), -1.0, len(pooled[0]), len(before))


def mean(values: Sequence[float], n: int = 0) -> Figure:
    """Mean of one figure a training, of which nothing is known picture by picture; n: pictures of all trainings."""
    return Figure(*t_interval(values), n or len(values), len(values))


def mean_of_records(values: Sequence[Sequence[float]]) -> Figure:
    """Mean of one figure a record and training. values: one list for each training, over the same records.

    The second interval is a bootstrap over the records, each with its mean over the trainings.
    """
    records = [math.fsum(own) / len(own) for own in zip(*values, strict=True)]
    over = t_interval([math.fsum(own) / len(own) for own in values])
    return _wider(over, bootstrap_mean(records), -math.inf, len(records), len(values))


def _wider(over_seeds: Interval, pooled: Interval, least: float, n: int, seeds: int) -> Figure:
    """The wider of the two, cut to what the figure can be: [least, 1], or no limits."""
    chosen = pooled
    if not math.isnan(over_seeds.low) and over_seeds.high - over_seeds.low > pooled.high - pooled.low:
        chosen = over_seeds
    most = math.inf if math.isinf(least) else 1.0
    return Figure(over_seeds.value, max(chosen.low, least), min(chosen.high, most), n, seeds)
