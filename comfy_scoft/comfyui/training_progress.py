"""What the Train LoRA node shows while it runs: progress with the time left, the losses, and preview images."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from ..common.progress import duration
from ..data.images import to_bytes
from ..losses import named
from ..training.checkpoint import newest_step
from ..training.run import Callbacks, Run
from ..training.run_folder import LATEST, read_metrics, stopped_at
from ..training.step_plan import expected_calls
from ..training.validation import HELD_OUT, reading
from .live_chart import DONE, STOPPED, LiveChart
from .runtime import Progress, check_interrupt

LOG = logging.getLogger(__name__)


@dataclass
class TrainingProgress:
    """Updates the progress bar with UNet calls, its line of text with optimizer steps, and its image with previews.

    chart: the live chart on the page. It gets the steps from before a resume too. resume: what resume is set to to go
    on with a run that is stopped. prepared: captions and images encoded before training; each counts like a call.
    """

    run: Run
    bar: Progress
    chart: LiveChart
    resume: str = LATEST
    text: str = ""
    image: Image.Image | None = None
    started: float = field(default_factory=time.monotonic)
    first_step: int | None = None
    held_out: str = ""
    prepared: int = 0

    def callbacks(self) -> Callbacks:
        self.started = time.monotonic()
        return Callbacks(self.check_interrupt, self.on_step, self.on_message, self.on_preview, self.on_plan)

    def on_prepare(self, done: int, total: int, text: str) -> None:
        """So many captions and images of all are encoded. The calls of the training are those to be expected."""
        if not self.prepared:
            first = max(0, newest_step(self.run.folder)) if self.run.resume else 0
            self.prepared = total
            self.bar.total = total + expected_calls(self.run, first)
        self.bar.update(done, text)

    def on_plan(self, calls: int) -> None:
        self.bar.total = self.prepared + calls
        LOG.info("%s: %d UNet calls planned", self.run.folder.name, calls)

    def check_interrupt(self) -> None:
        check_interrupt()
        self.bar.update(min(self.prepared + self.run.base.calls, self.bar.total - 1), self.text, self.image)
        self.chart.beat()

    def on_step(self, step: int, row: dict[str, float]) -> None:
        for each in [row] if self.chart.begun else read_metrics(self.run.folder):  # the file has this row already
            self.chart.add(each)
        if HELD_OUT in row:  # a validation between two steps
            self.held_out = f", validation {row[HELD_OUT]:.4f}"
            return
        if self.first_step is None:
            self.first_step = step - 1
        steps = self.run.settings.steps
        left = (time.monotonic() - self.started) * (steps - step) / (step - self.first_step)
        terms = ", ".join(f"{name} {row[name]:.4f}" for name in ("loss", *dict(named(self.run.losses))) if name in row)
        self.text = f"{self.run.folder.name}: step {step} of {steps}, {duration(left)} left, {terms}{self.held_out}"

    def on_message(self, text: str) -> None:
        """Show a sentence on the node, and log it."""
        if text:
            LOG.info("%s: %s", self.run.folder.name, text)
            self.bar.say(text)

    def on_preview(self, step: int, image: Tensor) -> None:
        self.image = Image.fromarray(to_bytes(image.permute(1, 2, 0)).numpy())

    def end(self, steps: int, rows: list[dict[str, float]]) -> None:
        run = self.run
        sentences = (f"{run.folder.name}: {steps} steps done.", reading(rows), run.size_note, run.long_captions())
        text = " ".join(filter(None, sentences))
        self.bar.update(self.bar.total, text, self.image)
        for row in () if self.chart.begun else rows:  # of a run that had finished before
            self.chart.add(row)
        self.chart.send(DONE)

    @contextmanager
    def stop_is_shown(self) -> Iterator[None]:
        """If an interrupt or an error ends the run, show it on chart and node, with the step that is saved."""
        try:
            yield
        except BaseException:
            self.chart.saved, self.chart.resume = max(0, newest_step(self.run.folder)), self.resume
            self.chart.send(STOPPED)
            self.on_message(stopped_at(self.run.folder, f"Set resume to {self.resume} to go on."))
            raise
