"""Nodes whose results are files of their own, which somebody may delete while ComfyUI keeps the results.

A dataset knows how its files are made: `widgets.Node` makes those that are gone again when a node reads it, and ComfyUI
runs no other node for that. A node that saves something runs again: its fingerprint counts how often it was gone.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ..data.records import Dataset


def remade(make: Callable[[], Dataset]) -> Dataset:
    """The dataset that `make` gives, which makes its files again with it. make: leaves files that are there alone."""
    dataset = make()
    return dataclasses.replace(dataset, makers=(*dataset.makers, make))


class LastSaved:
    """The files that a saving node wrote last under each name that was typed."""

    def __init__(self) -> None:
        self._paths: dict[str, tuple[Path, ...]] = {}
        self._gone: Counter[str] = Counter()

    def saved(self, name: str, *paths: Path) -> None:
        self._paths[name] = paths

    def times_gone(self, name: str | None) -> int:
        """How often one of them was missing, for the node's fingerprint. None: the name comes by a link."""
        if name is not None and not all(path.exists() for path in self._paths.get(name, ())):
            del self._paths[name]
            self._gone[name] += 1
        return self._gone[name or ""]
