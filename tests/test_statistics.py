"""Intervals: against constants from the literature, other implementations, and by what they mean."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from comfy_scoft.metrics.intervals import (
    bootstrap_mean,
    difference_interval,
    grouped_share,
    grouped_share_change,
    paired_difference_interval,
    paired_share_change,
    reach,
    wilson_interval,
)


def test_wilson_equals_its_formula() -> None:
    value, low, high = wilson_interval(81, 263)  # Newcombe (1998), table I: 0.2553 to 0.3662
    assert value == pytest.approx(81 / 263)
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_wilson_is_no_point_at_the_ends() -> None:
    assert wilson_interval(0, 20)[:2] == (0.0, 0.0) and wilson_interval(0, 20).high == pytest.approx(0.1611, abs=5e-5)
    assert wilson_interval(20, 20).low == pytest.approx(1 - 0.1611, abs=5e-5)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 4), (5, 4)])
def test_impossible_shares_are_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="0 <= k <= n"):
        wilson_interval(k, n)


def test_a_bootstrap_interval_agrees_with_scipys_and_with_the_normal_one() -> None:
    values = np.random.default_rng(1).gamma(2.0, 1.0, 80)
    found = bootstrap_mean(values.tolist())
    other = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=2
    ).confidence_interval
    moved = [found.value + reach(80) * (end - found.value) for end in other]
    assert found.value == pytest.approx(values.mean()) and found[1:] == pytest.approx(tuple(moved), abs=0.02)
    wide = 1.9905 * values.std(ddof=1) / 80**0.5  # Student's t of 79 degrees of freedom
    assert found[1:] == pytest.approx((values.mean() - wide, values.mean() + wide), abs=0.04)
    assert bootstrap_mean(values.tolist()) == found, "seeded"
    assert bootstrap_mean(values[::-1].tolist()) == pytest.approx(found, abs=1e-12), "in any order"


def test_the_reach_of_few_values_by_hand() -> None:
    """Student's t of n - 1 degrees of freedom over the normal 1.96, times sqrt(n / (n - 1))."""
    assert reach(2) == pytest.approx(12.7062 / 1.95996 * 2**0.5, abs=1e-3)
    assert reach(10) == pytest.approx(2.26216 / 1.95996 * (10 / 9) ** 0.5, abs=1e-4)
    assert reach(100_000) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 6, 12])
def test_an_interval_of_few_groups_holds_the_mean_as_often_as_it_says(count: int) -> None:
    """Of 400 samples whose mean is 0: the plain percentile interval held it in 50 (2 groups) to 91 % (12)."""
    rng = np.random.default_rng(count)
    held = 0
    for k in range(400):
        centers = rng.normal(size=count)
        values = np.repeat(centers, 3) + 0.1 * rng.normal(size=3 * count)
        found = bootstrap_mean(values.tolist(), k, np.repeat(np.arange(count), 3).tolist(), resamples=1000)
        held += found.low <= 0.0 <= found.high
    assert 0.91 <= held / 400 <= 0.985


def test_a_share_of_groups_that_are_alike_has_the_wider_ends() -> None:
    """One of ten prompts has all the copies: counting images says .07 to .15, and prompts say that it may be none."""
    facts, prompts = [True] * 20 + [False] * 180, [f"prompt {i // 20}" for i in range(200)]
    alone, found = wilson_interval(20, 200), grouped_share(facts, prompts)
    assert found.value == 0.1 and found.low == 0.0 and found.high > 0.3 > 0.2 > alone.high
    none = grouped_share([False] * 200, prompts)
    assert none == wilson_interval(0, 200), "where all are alike, Wilson's is no point"
    change = grouped_share_change([False] * 200, facts, prompts)
    assert change.value == 0.1 and change.low <= 0.0 and change.high > paired_share_change([False] * 200, facts).high
    assert grouped_share_change(facts, facts, prompts) == paired_share_change(facts, facts)


def test_values_that_are_alike_within_groups_get_a_wider_interval() -> None:
    rng = np.random.default_rng(3)
    centers = np.repeat(rng.normal(size=10), 20)
    values, groups = (centers + 0.1 * rng.normal(size=200)).tolist(), np.repeat(np.arange(10), 20).tolist()
    alone, grouped = bootstrap_mean(values), bootstrap_mean(values, groups=groups)
    assert grouped.value == alone.value and grouped.high - grouped.low > 3 * (alone.high - alone.low)
    mixed = rng.permutation(200)
    again = bootstrap_mean([values[i] for i in mixed], groups=[f"prompt {groups[i]}" for i in mixed])
    assert again == pytest.approx(grouped, abs=1e-9), "by what belongs together, not by name or order"
    assert bootstrap_mean(values, groups=["one"] * 200) == alone, "of a single group, its values are drawn"


def test_a_paired_difference_leaves_out_what_the_pairs_share() -> None:
    rng = np.random.default_rng(4)
    before = rng.normal(size=50) * 10.0
    after = before + 1.0 + 0.1 * rng.normal(size=50)
    paired = paired_difference_interval(after.tolist(), before.tolist())
    apart = difference_interval(after.tolist(), before.tolist())
    assert paired.value == pytest.approx(apart.value) and 0.9 < paired.low < paired.high < 1.1
    assert apart.high - apart.low > 5.0


def test_the_difference_of_two_samples_has_the_spread_of_both() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=60), 0.5 + 2.0 * rng.normal(size=90)
    found = difference_interval(first.tolist(), second.tolist())
    wide = 1.96 * (first.var() / 60 + second.var() / 90) ** 0.5
    assert found == pytest.approx((first.mean() - second.mean(), found.value - wide, found.value + wide), abs=0.05)


def test_bootstraps_of_too_little_are_refused_in_one_sentence() -> None:
    for values in ([], [1.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="needs at least two finite values"):
            bootstrap_mean(values)
    with pytest.raises(ValueError, match="one partner each"):
        paired_difference_interval([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="3 values and 2 groups"):
        bootstrap_mean([1.0, 2.0, 3.0], groups=["a", "b"])
