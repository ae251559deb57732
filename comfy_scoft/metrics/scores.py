"""Metrics with their intervals: what every measurement returns."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from ..common.text import cell
from .intervals import Interval, bootstrap_mean, paired_difference_interval

CHANGE = "change"
"""The group of paired changes; by place, "change · <place>"."""


@dataclass(frozen=True)
class Score:
    """One value with its 95 % interval [low, high].

    name: the metric; group: the images it was measured on; n: their number (or that of pairs); note: a caution that is
    shown with the value.
    """

    name: str
    group: str
    value: float
    low: float
    high: float
    n: int
    note: str = ""


@dataclass(frozen=True)
class Scores:
    """Scores in the order they were measured, and (name, value) settings of the measurement."""

    rows: tuple[Score, ...]
    settings: tuple[tuple[str, str], ...] = ()

    def methods(self) -> dict[str, str]:
        """How each metric was measured, by its name: the settings that are named after a metric."""
        names = {row.name for row in self.rows}
        return {name: method for name, method in self.settings if name in names}

    def csv(self) -> str:
        """Comma-separated text with a header line; text cells are quoted, and none is a formula."""
        lines, methods = ["name,group,value,low,high,n,note,method"], self.methods()
        for r in self.rows:
            cells = [_quoted(r.name), _quoted(r.group), f"{r.value:.6g}", f"{r.low:.6g}", f"{r.high:.6g}", str(r.n)]
            lines.append(",".join([*cells, _quoted(r.note), _quoted(methods.get(r.name, ""))]))
        return "\n".join(lines) + "\n"


def scored(name: str, labels: Sequence[str], intervals: Sequence[Interval], n: int, note: str = "") -> list[Score]:
    """A score of each set (labels) and, where there is one interval more, of the change between the two."""
    return [Score(name, group, *own, n, note) for group, own in zip([*labels, CHANGE], intervals, strict=False)]


def mean_scores(
    name: str,
    labels: Sequence[str],
    values: Sequence[Sequence[float]],
    groups: Sequence[Hashable] | None = None,
    low: float = -math.inf,
    high: float = math.inf,
    note: str = "",
) -> list[Score]:
    """The mean of each set's values, and of two sets (the first the baseline) the paired change.

    labels, values: one for each set; groups: of the values (such as prompts), for the bootstrap; low, high: the range
    of the values, to which intervals are clipped.
    """
    intervals = [bootstrap_mean(own, groups=groups).cut(low, high) for own in values]
    if len(values) == 2:
        intervals.append(paired_difference_interval(values[1], values[0], groups=groups))
    return scored(name, labels, intervals, len(values[-1]), note)


def add(earlier: Scores | None, new: Scores) -> Scores:
    """Append new scores to earlier ones, without those that the earlier ones already contain.

    The first "change" keeps that name. The change of another model is named after it: "change, LoRA".
    """
    if earlier is None:
        return new
    known = {(row.name, row.group) for row in earlier.rows}
    models = {_model(group) for _, group in known}
    new_models = [model for row in new.rows if (model := _model(row.group)) not in models]
    rows = [
        replace(row, group=row.group.replace(CHANGE, f"{CHANGE}, {new_models[0]}", 1))
        if new_models and _model(row.group) == CHANGE and (row.name, row.group) in known
        else row
        for row in new.rows
    ]
    added = tuple(row for row in rows if (row.name, row.group) not in known)
    settings = tuple(setting for setting in new.settings if setting not in earlier.settings)
    return Scores(earlier.rows + added, earlier.settings + settings)


def _model(group: str) -> str:
    """The model of a group: "LoRA" of "LoRA · nuvia" and of "LoRA"."""
    return group.partition(" · ")[0]


def _quoted(text: str) -> str:
    return '"' + cell(text).replace('"', '""') + '"'
