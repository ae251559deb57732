"""Wilson's interval: against constants from the literature, and by what it means."""

from __future__ import annotations

import pytest

from comfy_scoft.statistics import wilson_interval


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
