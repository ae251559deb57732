"""The decorator that makes one test of many values fails for each value that its check refuses, and for no value."""

from __future__ import annotations

import pytest
from every import every


@every("number", range(1, 6))
def test_each_value_is_tried_and_fixtures_are_passed_on(number: int, request: pytest.FixtureRequest) -> None:
    assert 1 <= number < 6 and request.node.name == "test_each_value_is_tried_and_fixtures_are_passed_on"


def test_a_failure_names_every_value_that_fails() -> None:
    @every("number", [1, -2, 0, 4])
    def check(number: int) -> None:
        assert number > 0, "it is not positive"
        with pytest.raises(ZeroDivisionError):
            _ = 1 / (number - 1)

    with pytest.raises(AssertionError) as error:
        check()
    text = str(error.value)
    assert "3 of 4 fail" in text and "-2: AssertionError: it is not positive" in text and "\n4: Failed: " in text


def test_a_check_without_values_fails() -> None:
    with pytest.raises(AssertionError, match="there is no number to check"):
        every("number", [])(lambda number: None)()
