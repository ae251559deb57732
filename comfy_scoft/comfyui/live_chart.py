"""What the chart on the Train LoRA node is told: a few points of each curve, the whole run every time.

A page that was reloaded, or opened on another machine, therefore has the history with the next event, and nobody need
keep what was sent. `web/training.js` draws it; without a page nothing is lost, for metrics.jsonl has every figure.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..training.validation import HELD_OUT
from .runtime import tell

EVENT = "scoft.training"
OUTPUT = "scoft_training"
"""Key of the same in the node's own output, which ComfyUI keeps in its history."""
POINTS = 96
"""Even, so that all of them can be joined in pairs."""
PAUSE, REPEAT = 0.5, 5.0
"""Seconds between two events that have something new, and between two that have not."""
RUNNING, DONE, STOPPED = "running", "done", "stopped"


@dataclass
class Curve:
    """A curve of any length in at most `POINTS` points: means over stretches of equal length, the last one open.

    When there are too many, neighbours are joined, and stretches are twice as long from then on.
    """

    stretch: int = 1
    points: list[tuple[float, float]] = field(default_factory=list)
    open: list[tuple[float, float]] = field(default_factory=list)

    def add(self, step: float, value: float) -> None:
        """A value that is no finite number is left out: JSON, and a line, have no place for it."""
        if not math.isfinite(value):
            return
        self.open.append((step, value))
        if len(self.open) == self.stretch:
            self.points.append(_mean(self.open))
            self.open = []
        if len(self.points) == POINTS:
            self.points = [_mean(self.points[i : i + 2]) for i in range(0, POINTS, 2)]
            self.stretch *= 2

    def series(self) -> tuple[list[float], list[float]]:
        """Steps and values, to five digits."""
        points = self.points + ([_mean(self.open)] if self.open else [])
        return [_short(step) for step, _ in points], [_short(value) for _, value in points]


@dataclass
class Curves:
    """The curves of a run's terms and of its held-out loss. names: the terms, in the order in which they are drawn."""

    names: Iterable[str]
    found: dict[str, Curve] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.found = {name: Curve() for name in (*self.names, HELD_OUT)}

    def add(self, row: Mapping[str, float]) -> None:
        """row: one line of metrics.jsonl; a key may be missing from it."""
        for name, curve in self.found.items():
            if name in row:
                curve.add(row["step"], row[name])

    def series(self) -> list[dict[str, Any]]:
        """[{"name", "steps", "values"}] of those that have a point."""
        series = {name: curve.series() for name, curve in self.found.items()}
        return [{"name": name, "steps": steps, "values": values} for name, (steps, values) in series.items() if steps]


@dataclass
class Live:
    """Tells every open page how a run goes. node, workflow: whose chart it is; without a workflow nobody has one."""

    run: str
    steps: int
    curves: Curves
    node: str | None = None
    workflow: str | None = None
    step: int = 0
    begun: bool = False
    _sent: float = float("-inf")
    _new: bool = False

    def add(self, row: Mapping[str, float]) -> None:
        self.step = max(self.step, int(row["step"]))
        self.curves.add(row)
        self.begun = self._new = True

    def beat(self) -> None:
        """To be called often; sends at most every PAUSE seconds, and every REPEAT seconds where nothing is new."""
        if self.begun and time.monotonic() - self._sent >= (PAUSE if self._new else REPEAT):
            self.send(RUNNING)

    def send(self, state: str) -> None:
        """Send now."""
        self._sent, self._new = time.monotonic(), False
        if self.node is not None and self.workflow is not None:
            tell(EVENT, {"node": self.node, "workflow": self.workflow, **self.image(state)})

    def image(self, state: str) -> dict[str, Any]:
        """What is drawn: under 20 kB, however long the run is."""
        return {"run": self.run, "state": state, "step": self.step, "steps": self.steps, "curves": self.curves.series()}


def of_rows(run: str, names: Iterable[str], rows: Iterable[Mapping[str, float]], steps: int) -> dict[str, Any]:
    """The image of a finished run from the rows of its metrics.jsonl."""
    live = Live(run, steps, Curves(names))
    for row in rows:
        live.add(row)
    return live.image(DONE)


def workflow_id(extra_pnginfo: Any) -> str | None:
    """The identity that the page gave its workflow; None where the graph came from elsewhere, as over the HTTP API."""
    workflow = extra_pnginfo.get("workflow") if isinstance(extra_pnginfo, Mapping) else None
    found = workflow.get("id") if isinstance(workflow, Mapping) else None
    return str(found) if found else None


def _mean(points: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(step for step, _ in points) / len(points), sum(value for _, value in points) / len(points)


def _short(value: float) -> float:
    """Five significant digits; whole numbers stay whole."""
    return round(value) if float(value).is_integer() else float(f"{value:.5g}")
