"""What a person sees on the Train LoRA node while it runs: progress with the time left, the losses, and an image."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from torch import Tensor

from ..losses import named
from ..training.run import Callbacks, Run
from ..training.run_folder import read_metrics
from ..training.validation import HELD_OUT, reading
from .live_chart import DONE, STOPPED, Live
from .runtime import Progress, check_interrupt

LOG = logging.getLogger(__name__)


@dataclass
class Follower:
    """Keeps the progress bar going by UNet calls, its line of text by optimizer steps, and its image by previews.

    live: the chart on the page, which gets the steps from before a resume too.
    """

    run: Run
    bar: Progress
    live: Live
    text: str = ""
    image: Image.Image | None = None
    started: float = field(default_factory=time.monotonic)
    first_step: int | None = None
    held_out: str = ""

    def callbacks(self) -> Callbacks:
        self.started = time.monotonic()
        return Callbacks(self.check_interrupt, self.on_step, self.on_message, self.on_preview, self.on_plan)

    def on_plan(self, calls: int) -> None:
        self.bar.total = calls
        LOG.info("%s: %d UNet calls planned", self.run.folder.name, calls)

    def check_interrupt(self) -> None:
        check_interrupt()
        self.bar.update(min(self.run.base.calls, self.bar.total - 1), self.text, self.image)
        self.live.beat()

    def on_step(self, step: int, row: dict[str, float]) -> None:
        for each in [row] if self.live.begun else read_metrics(self.run.folder):  # this row is in the file already
            self.live.add(each)
        if HELD_OUT in row:  # a measurement between two steps
            self.held_out = f", held-out {row[HELD_OUT]:.4f}"
            return
        if self.first_step is None:
            self.first_step = step - 1
        steps = self.run.settings.steps
        left = (time.monotonic() - self.started) * (steps - step) / (step - self.first_step)
        terms = ", ".join(f"{name} {row[name]:.4f}" for name in ("loss", *dict(named(self.run.losses))) if name in row)
        self.text = f"{self.run.folder.name}: step {step} of {steps}, {duration(left)} left, {terms}{self.held_out}"

    def on_message(self, text: str) -> None:
        """A sentence that should be read: on the node at once, and in the log, where it stays."""
        if text:
            LOG.info("%s: %s", self.run.folder.name, text)
            self.bar.say(text)

    def on_preview(self, step: int, image: Tensor) -> None:
        pixels = image.mul(255.0).round().byte().permute(1, 2, 0).numpy()
        self.image = Image.fromarray(np.ascontiguousarray(pixels))

    def end(self, steps: int, rows: list[dict[str, float]]) -> None:
        self.bar.update(
            self.bar.total, f"{self.run.folder.name}: {steps} steps done. {reading(rows)}".strip(), self.image
        )
        for row in () if self.live.begun else rows:  # a run that was finished already
            self.live.add(row)
        self.live.send(DONE)

    @contextmanager
    def told_of_a_stop(self) -> Iterator[None]:
        """What ends the run early, the user or a fault, is seen on the chart; the checkpoint has what was learned."""
        try:
            yield
        except BaseException:
            self.live.send(STOPPED)
            raise


def duration(seconds: float) -> str:
    """A time that people read: "40 s", "12 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
