"""How far a command is: one line that is written over on a terminal, a new line now and then in a file."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from ..common.progress import Observer, duration

FORM = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
EVERY = 30.0
"""Seconds between two lines where stderr is no terminal."""


class ProgressLine:
    """`text  42%|████      | 03:10<04:20, more` on a terminal, cut to its width; elsewhere `text, 4 min left, more`.

    total: of the units that `update` counts. shown: whether this process shows anything.
    """

    def __init__(self, total: int = 0, *, shown: bool = True) -> None:
        self.total, self.terminal = total, shown and sys.stderr.isatty()
        self.lines = shown and not self.terminal
        self.bar: tqdm | None = None  # made with the first update: what a library prints before it starts a line
        self.started = self.last = time.monotonic()
        self.ended = -1  # what was done at the newest line: the last one is written once

    def update(self, done: int, text: str, more: str = "") -> None:
        """So many units of `total` are done. text, more: what is shown before and behind the time that is left."""
        now = time.monotonic()
        if self.terminal:
            if self.bar is None:
                self.bar = tqdm(total=self.total, bar_format=FORM, dynamic_ncols=True)
            self.bar.total = self.total
            self.bar.set_description_str(f"{text} ", refresh=False)
            self.bar.set_postfix_str(more, refresh=False)
            self.bar.update(done - self.bar.n)
        elif self.lines and (now - self.last >= EVERY or self.ended < self.total <= done):
            self.last, self.ended = now, done
            left = duration((now - self.started) * (self.total - done) / max(1, done))
            self.say(", ".join(part for part in (text, f"{left} left" if done < self.total else "", more) if part))

    def watch(self, what: str) -> Observer:
        """An observer of records that shows `what: 3 of 40 images`."""
        return lambda done, total, _: self.update(done, f"{what}: {done} of {total} images")

    def say(self, line: str) -> None:
        """A line of its own, above the bar where there is one."""
        if self.terminal:
            tqdm.write(line, file=sys.stderr)
        elif self.lines:
            try:
                print(line, file=sys.stderr, flush=True)
            except BrokenPipeError:  # nobody reads it any more, as after `2>&1 | head`; the work goes on
                self.lines = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
