"""Figures with their intervals: what every measurement returns."""

from __future__ import annotations

from dataclasses import dataclass, replace

CHANGE = "change"
"""The group of paired changes; by place, "change · <place>"."""


@dataclass(frozen=True)
class Score:
    """One figure. name: what was measured; group: on which images; value and its 95 % interval [low, high]; n: how
    many images (or pairs) it rests on. note: a caution that belongs beside the figure wherever it is shown.
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
    """Figures in the order they were measured, and the settings they were measured with (plain JSON values)."""

    rows: tuple[Score, ...]
    settings: tuple[tuple[str, str], ...] = ()

    def merged(self, other: Scores) -> Scores:
        return Scores(
            self.rows + other.rows, self.settings + tuple(s for s in other.settings if s not in self.settings)
        )

    def methods(self) -> dict[str, str]:
        """How figures were measured, by their name: those of the settings that are of one figure."""
        names = {row.name for row in self.rows}
        return {name: said for name, said in self.settings if name in names}

    def csv(self) -> str:
        """Comma-separated text with a header line; text cells are quoted."""
        lines, methods = ["name,group,value,low,high,n,note,method"], self.methods()
        for r in self.rows:
            cells = [_quoted(r.name), _quoted(r.group), f"{r.value:.6g}", f"{r.low:.6g}", f"{r.high:.6g}", str(r.n)]
            lines.append(",".join([*cells, _quoted(r.note), _quoted(methods.get(r.name, ""))]))
        return "\n".join(lines) + "\n"


def add(chain: Scores | None, found: Scores) -> Scores:
    """A chain of scores and new ones after it; figures that the chain has already are not repeated.

    The chain's first "change" keeps that name. One of another model, which has the same, is called after its model:
    "change, LoRA".
    """
    if chain is None:
        return found
    known = {(row.name, row.group) for row in chain.rows}
    models = {_model(group) for _, group in known}
    fresh = [model for row in found.rows if (model := _model(row.group)) not in models]
    rows = [
        replace(row, group=row.group.replace(CHANGE, f"{CHANGE}, {fresh[0]}", 1))
        if fresh and _model(row.group) == CHANGE and (row.name, row.group) in known
        else row
        for row in found.rows
    ]
    return chain.merged(Scores(tuple(r for r in rows if (r.name, r.group) not in known), found.settings))


def _model(group: str) -> str:
    """ "LoRA" of the group "LoRA · nuvia", which is by place, and of "LoRA"."""
    return group.partition(" · ")[0]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
