"""The intervals of the pack: one function for each kind of data, 95 % unless said otherwise.

Share of independent trials: `wilson_interval`; its paired change: `paired_share_change` (Newcombe). Mean over trainings
or over kinds: `t_interval`. Mean of values that may be alike within groups, and differences of means: `bootstrap_mean`
and its neighbors, whose ends, like those of every other bootstrap, come from `bootstrap_ends`.
Independent figures of which only the intervals are known: `independent_mean`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..common.errors import UserError

RESAMPLES = 10_000
_AT_ONCE = 4_000_000
"""Numbers that resampling holds at a time."""


class Interval(NamedTuple):
    """A value and its interval's ends (NaN without), in the order of a Score: `Score(name, group, *interval, n)`."""

    value: float
    low: float
    high: float

    def cut(self, least: float, most: float = math.inf) -> Interval:
        """The same with its ends cut to the values that are possible; without an interval (NaN) it stays as it is."""
        return self._replace(low=max(self.low, least), high=min(self.high, most)) if self.low == self.low else self

    def spanning(self, *others: Interval) -> Interval:
        """The same value, from the lowest end of all of these to the highest; those without ends are left out."""
        known = [one for one in (self, *others) if not math.isnan(one.low)]
        return self._replace(low=min(one.low for one in known), high=max(one.high for one in known)) if known else self


def wilson_ends(share: np.ndarray | float, n: int, confidence: float = 0.95) -> np.ndarray:
    """Ends (2, …) of Wilson's interval of shares of n trials: inside [0, 1], and no point at 0 or 1.

    A share need not be a whole count over n. Source: E. B. Wilson, JASA 22 (1927) 209-212.
    """
    from scipy.special import ndtri

    z = ndtri(0.5 + 0.5 * confidence)
    p = np.asarray(share, dtype=np.float64)
    size = 2 * (n + z**2)
    center = (2 * n * p + z**2) / size
    half = z / size * np.sqrt(4 * n * p * (1 - p) + z**2)
    return np.stack([np.where(p == 0.0, 0.0, center - half), np.where(p == 1.0, 1.0, center + half)])


def wilson_interval(k: int, n: int) -> Interval:
    """Share k / n of n trials with Wilson's interval. Raises UserError unless 0 <= k <= n and n >= 1."""
    if not 0 <= k <= n or n < 1:
        raise UserError(f"A share needs 0 <= k <= n and n >= 1, and was given k = {k}, n = {n}.")
    low, high = wilson_ends(k / n, n)
    return Interval(k / n, float(low), float(high))


def t_interval(values: Sequence[float]) -> Interval:
    """Mean of independent values, such as one for each training, with Student's t interval; no ends for one value."""
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean, math.nan, math.nan)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def independent_mean(known: Sequence[Interval]) -> Interval:
    """Mean of independent figures from their intervals (MOVER: A. Donner and G. Y. Zou, Stat. Methods Med. Res. 21
    (2012) 347-359); no ends where one of them has none."""
    n = len(known)
    value = math.fsum(one.value for one in known) / n
    below = math.sqrt(math.fsum((one.value - one.low) ** 2 for one in known)) / n
    above = math.sqrt(math.fsum((one.high - one.value) ** 2 for one in known)) / n
    return Interval(value, value - below, value + above)


def paired_share_change(before: Sequence[bool], after: Sequence[bool]) -> Interval:
    """Share after - share before of pairs (same prompt, same seed), with the 95 % interval of Newcombe's method 10.

    It joins the two shares' Wilson intervals through their correlation, so that it stays in [-1, 1] and, unlike a
    bootstrap, is no point when every pair agrees. Source: R. G. Newcombe, Statistics in Medicine 17 (1998) 2635-2650.
    Raises UserError if the lengths differ or are 0.
    """
    _require_pairs(after, before)
    n = len(before)
    first, second = wilson_interval(sum(before), n), wilson_interval(sum(after), n)
    both = sum(b and a for b, a in zip(before, after, strict=True))
    ones, twos = sum(before), sum(after)
    cross = both * (n - ones - twos + both) - (ones - both) * (twos - both)
    scale = float(ones * (n - ones) * twos * (n - twos)) ** 0.5
    phi = (max(cross - n / 2, 0.0) if cross > 0 else float(cross)) / scale if scale else 0.0

    def joined(x: float, y: float) -> float:
        return max(0.0, x * x - 2.0 * phi * x * y + y * y) ** 0.5

    change = second.value - first.value
    low = change - joined(second.value - second.low, first.high - first.value)
    high = change + joined(second.high - second.value, first.value - first.low)
    return Interval(change, low, high)


def grouped_share(facts: Sequence[bool], groups: Sequence[Hashable]) -> Interval:
    """Share of facts that hold, whose groups (such as prompts) may be alike: Wilson's interval and the bootstrap over
    groups, the lower of the lower ends and the higher of the higher ones, cut to [0, 1]."""
    own = wilson_interval(sum(facts), len(facts))
    return own.spanning(bootstrap_mean([float(fact) for fact in facts], groups=groups)).cut(0.0, 1.0)


def grouped_share_change(before: Sequence[bool], after: Sequence[bool], groups: Sequence[Hashable]) -> Interval:
    """The same of share after - share before, of pairs: Newcombe's interval and the bootstrap over groups."""
    own = paired_share_change(before, after)
    other = paired_difference_interval([*map(float, after)], [*map(float, before)], groups=groups)
    return own.spanning(other).cut(-1.0, 1.0)


def bootstrap_mean(
    values: Sequence[float], seed: int = 0, groups: Sequence[Hashable] | None = None, resamples: int = RESAMPLES
) -> Interval:
    """Mean of values with its bootstrap interval (`bootstrap_ends`), from a generator seeded by `seed`.

    groups: what each value belongs to, such as its prompt. Whole groups are then resampled, for values of one group are
    alike, and counting them as independent would make the interval too narrow; with a single group, its values are.
    The order of the values does not matter. Raises UserError for fewer than two values or one that is not finite.
    """
    sample = _sample(values)
    if groups is not None and len(groups) != len(sample):
        raise UserError(f"There are {len(sample)} values and {len(groups)} groups; each value needs its group.")
    sums, counts = sample, np.ones(len(sample))
    if groups is not None and len(set(groups)) > 1:
        known = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        number = np.array([known[group] for group in groups])
        sums, counts = np.bincount(number, sample), np.bincount(number).astype(np.float64)
    means = _resampled_means(sums, counts, seed, resamples)
    return _interval(float(sample.mean()), means, len(sums))


def difference_interval(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Mean of first - mean of second, two samples of their own, with its bootstrap interval (`bootstrap_ends`).

    The order of the values does not matter. Raises UserError as `bootstrap_mean` does.
    """
    one, two = _sample(first), _sample(second)
    means = [_resampled_means(v, np.ones(len(v)), seed, RESAMPLES) for seed, v in enumerate((one, two))]
    return _interval(float(one.mean() - two.mean()), means[0] - means[1], min(len(one), len(two)))


def paired_difference_interval(
    after: Sequence[float], before: Sequence[float], groups: Sequence[Hashable] | None = None
) -> Interval:
    """Mean of after - before with its bootstrap interval, for figures that belong together (same prompts, same seeds).

    Resampling the pairs keeps what they share out of the interval. Raises UserError if the lengths differ.
    """
    _require_pairs(after, before)
    return bootstrap_mean(np.subtract(after, before).tolist(), groups=groups)


def _require_pairs(after: Sequence[float], before: Sequence[float]) -> None:
    if len(after) != len(before):
        raise UserError(
            f"Paired figures need one partner each, and there are {len(after)} and {len(before)}; "
            "compare sets made with the same prompts and seeds."
        )


def resample_counts(n: int, seed: int | np.random.Generator, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """How often each of n things is in each of `resamples` bootstrap samples: parts (r, n), float64."""
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // n)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        yield rng.multinomial(n, np.full(n, 1.0 / n), size=count).astype(np.float64)


def bootstrap_ends(
    value: np.ndarray | float, samples: np.ndarray, n: int, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """The ends (…) of a statistic's interval from its values in bootstrap samples (resamples, …) of n things.

    They are the quantiles, moved outwards from `value` by the factor `reach(n)`.
    """
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(samples, (tail, 1.0 - tail), axis=0)
    factor = reach(n, confidence)
    return value - factor * (value - low), value + factor * (high - value)


def reach(n: int, confidence: float = 0.95) -> float:
    """The factor by which the ends of a bootstrap interval of n things are moved outwards.

    Resampling n values spreads less than n new ones would, by sqrt((n - 1) / n), and its normal tails ignore how badly
    few values tell their own spread, which Student's t does not; of 3 values the plain interval holds the mean in 74 of
    100 cases instead of 95. The factor is 9.2 for n = 2, 1.22 for 10 and 1.02 for 100. Source: T. Hesterberg,
    The American Statistician 69 (2015) 371-386, who takes further quantiles instead, of which few values have none.
    """
    from scipy.stats import norm, t

    tail = (1.0 + confidence) / 2.0
    return float(t.ppf(tail, n - 1) / norm.ppf(tail)) * (n / (n - 1)) ** 0.5


def _interval(value: float, samples: np.ndarray, n: int) -> Interval:
    low, high = bootstrap_ends(value, samples, n)
    return Interval(value, float(low), float(high))


def _sample(values: Sequence[float]) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise UserError("A bootstrap interval needs at least two finite values; leave out missing ones first.")
    return sample


def _resampled_means(sums: np.ndarray, counts: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means of bootstrap samples of groups with these sums and counts: (resamples,)."""
    order = np.lexsort((counts, sums))  # so that the order they came in does not matter
    sums, counts = sums[order], counts[order]
    return np.concatenate([(w @ sums) / (w @ counts) for w in resample_counts(len(sums), seed, resamples)])
