"""One test that tries many values and lists those that fail, where a test per value would repeat one small rule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def every(name: str, values: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a check that takes `name`: the test calls it with each value, and its failure names each that fails.

    Other parameters are fixtures as usual. They are shared by all values: use `pytest.mark.parametrize` where a check
    writes files or changes what it is given.
    """
    values = list(values)

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        def test(**fixtures: Any) -> None:
            assert values, f"there is no {name} to check"
            failures = []
            for value in values:
                try:
                    check(**{name: value}, **fixtures)
                except (Exception, pytest.fail.Exception) as error:
                    failures.append(f"{value!r}: {type(error).__name__}: {error}")
            assert not failures, "\n".join([f"{len(failures)} of {len(values)} fail", *failures])

        parameters = [p for p in inspect.signature(check).parameters.values() if p.name != name]
        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        test.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  (pytest reads fixtures here)
        return test

    return decorate
