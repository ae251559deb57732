"""The data of the live chart on the Train LoRA node: a few points of each curve, the whole run in every event.

A page that was reloaded, or opened on another machine, therefore has the history with the next event. `web/training.js`
draws it. Without a page nothing is lost: metrics.jsonl has all metrics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any

from ..training.validation import HELD_OUT
from .runtime import running_prompt, send_event

EVENT = "scoft.training"
OUTPUT = "scoft_training"
"""Key of the same data in the node's own output, which ComfyUI keeps in its history."""
POINTS = 96
"""Maximum number of points of a curve. Even, so that they can be averaged in pairs."""
PAUSE, REPEAT = 0.5, 5.0
"""Seconds between two events with new data, and between two without."""
RUNNING, DONE, STOPPED = "running", "done", "stopped"


@dataclass
class Curve:
    """A curve of any length in at most `POINTS` points: means over stretches of equal length, the last one incomplete.

    When there are too many points, neighbors are averaged, and stretches are twice as long from then on.
    """

    stretch: int = 1
    points: list[tuple[float, float]] = field(default_factory=list)
    open: list[tuple[float, float]] = field(default_factory=list)

    def add(self, step: float, value: float) -> None:
        """Add a value. NaN and infinity are left out: JSON has no such numbers."""
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
        """Steps and values, with five digits."""
        points = self.points + ([_mean(self.open)] if self.open else [])
        return [_short(step) for step, _ in points], [_short(value) for _, value in points]


@dataclass
class LiveChart:
    """Sends the chart of a run to every open page.

    names: the losses, in the order of the chart. node, workflow: that show it; without a workflow nothing is sent.
    saved, resume: of a run that was stopped, the step that is saved, and what resume is set to to go on.
    """

    run: str
    steps: int
    names: InitVar[Iterable[str]]
    node: str | None = None
    workflow: str | None = None
    step: int = 0
    begun: bool = False
    saved: int = 0
    resume: str = ""
    _sent: float = float("-inf")
    _new: bool = False

    def __post_init__(self, names: Iterable[str]) -> None:
        self.curves = {name: Curve() for name in (*names, HELD_OUT)}

    def add(self, row: Mapping[str, float]) -> None:
        """Add one line of metrics.jsonl; keys may be missing."""
        self.step = max(self.step, int(row["step"]))
        for name in self.curves.keys() & row.keys():
            self.curves[name].add(row["step"], row[name])
        self.begun = self._new = True

    def beat(self) -> None:
        """Call it often: it sends at most every PAUSE seconds, and every REPEAT seconds without new data."""
        if self.begun and time.monotonic() - self._sent >= (PAUSE if self._new else REPEAT):
            self.send(RUNNING)

    def send(self, state: str) -> None:
        """Send now."""
        self._sent, self._new = time.monotonic(), False
        if self.node is not None and self.workflow is not None:
            place = {"node": self.node, "workflow": self.workflow, "prompt": running_prompt()}
            send_event(EVENT, {**place, **self.data(state)})

    def data(self, state: str) -> dict[str, Any]:
        """The chart's data as JSON: under 20 kB for a run of any length."""
        series = {name: curve.series() for name, curve in self.curves.items()}
        curves = [{"name": name, "steps": steps, "values": values} for name, (steps, values) in series.items() if steps]
        stop = {"saved": self.saved, "resume": self.resume} if state == STOPPED else {}
        return {"run": self.run, "state": state, "step": self.step, "steps": self.steps, "curves": curves, **stop}


def of_rows(run: str, names: Iterable[str], rows: Iterable[Mapping[str, float]], steps: int) -> dict[str, Any]:
    """The chart's data of a finished run, from the rows of its metrics.jsonl."""
    chart = LiveChart(run, steps, names)
    for row in rows:
        chart.add(row)
    return chart.data(DONE)


def workflow_id(extra_pnginfo: Any) -> str | None:
    """The id that the page gave its workflow; None for a graph from elsewhere, as over the HTTP API."""
    workflow = extra_pnginfo.get("workflow") if isinstance(extra_pnginfo, Mapping) else None
    own_id = workflow.get("id") if isinstance(workflow, Mapping) else None
    return str(own_id) if own_id else None


def _mean(points: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(step for step, _ in points) / len(points), sum(value for _, value in points) / len(points)


def _short(value: float) -> float:
    """Five significant digits; whole numbers stay whole."""
    return round(value) if float(value).is_integer() else float(f"{value:.5g}")
