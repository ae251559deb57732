"""Intervals: against constants from the literature, by what they mean, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from comfy_scoft.statistics import bootstrap_mean, paired_difference_interval, wilson_interval


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


def test_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = bootstrap_mean(rng.normal(3.0, 1.0, 400).tolist())
    assert found.low < 3.0 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / 20, rel=0.1)


def test_bootstrap_repeats_with_its_seed() -> None:
    values = [0.0, 1.0, 4.0, 9.0, 2.5]
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)
    assert bootstrap_mean([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")]])
def test_bootstrap_refuses_too_little(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least two finite values"):
        bootstrap_mean(values)


def test_pairing_takes_out_what_the_pairs_share() -> None:
    before = np.random.default_rng(1).normal(0, 10, 60)
    found = paired_difference_interval((before + 1.0).tolist(), before.tolist())
    assert found.value == pytest.approx(1.0) and found.high - found.low < 1e-9
    with pytest.raises(ValueError, match="same prompts and seeds"):
        paired_difference_interval([1.0, 2.0], [1.0])
