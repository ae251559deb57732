"""Intervals for the figures in tables: 95 % unless said otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A figure and the ends of its interval, in the order of a Score: `Score(name, group, *interval, n)`."""

    value: float
    low: float
    high: float


def wilson_interval(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Share k / n of n trials with Wilson's interval, which stays in [0, 1] and is no point at 0 or n.

    Raises ValueError unless 0 <= k <= n and n >= 1.
    """
    from scipy.stats import binomtest

    if not 0 <= k <= n or n < 1:
        raise ValueError(f"A share needs 0 <= k <= n and n >= 1, and was given k = {k}, n = {n}.")
    found = binomtest(int(k), int(n)).proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(k / n, float(found.low), float(found.high))


def paired_share_change(before: Sequence[bool], after: Sequence[bool]) -> Interval:
    """Share after - share before of pairs (same prompt, same seed), with the 95 % interval of Newcombe's method 10.

    It joins the two shares' Wilson intervals through their correlation, so that it stays in [-1, 1] and, unlike a
    bootstrap, is no point when every pair agrees. Source: R. G. Newcombe, Statistics in Medicine 17 (1998) 2635-2650.
    Raises ValueError if the lengths differ or are 0.
    """
    if len(after) != len(before):
        raise ValueError(
            f"Paired figures need one partner each, and there are {len(after)} and {len(before)}; "
            "compare sets made with the same prompts and seeds."
        )
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
