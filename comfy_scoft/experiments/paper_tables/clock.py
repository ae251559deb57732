"""How long it takes: counts of work from the plan, seconds from this very machine, and what both come to.

Nothing here knows a time beforehand. A kind of work that was done already counts with its own mean seconds; another one
with the UNet passes that it needs and the seconds of one pass, measured before the run; one that needs no UNet and was
not done yet counts nothing, and the estimate says "at least".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ...common.files import write_atomically
from ...models.stable_diffusion import LATENT_FACTOR, BaseModel

FORWARD, TRAINING = "UNet pass", "UNet pass with gradient"
EVERY = 30.0
"""Seconds between two lines about the time left."""


@dataclass(frozen=True)
class Work:
    """A kind of work. count: how many of it. passes, trained: images through the UNet for all of them together,
    without and with a gradient."""

    kind: str
    count: int
    passes: float = 0.0
    trained: float = 0.0


class Clock:
    """Seconds of each kind of work, kept in a file, and how much of the plan is left."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self.seconds: dict[str, tuple[float, float]] = {}
        """Kind -> (how many were timed, their seconds)."""
        self.left: dict[str, float] = {}
        self._plan: dict[str, Work] = {}
        self._spoke = time.monotonic()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.seconds = {str(kind): (float(n), float(s)) for kind, (n, s) in found.items() if float(n) > 0}
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # a first run; a damaged file costs an estimate and nothing else

    def plan(self, works: Sequence[Work]) -> None:
        self._plan = {work.kind: work for work in works}
        self.left = {work.kind: float(work.count) for work in works}

    def found(self, kind: str, count: float) -> None:
        """So many were there already."""
        self.left[kind] = max(0.0, self.left.get(kind, 0.0) - count)

    def did(self, kind: str, count: float, seconds: float) -> None:
        """So many were done now, in so many seconds."""
        self.found(kind, count)
        n, total = self.seconds.get(kind, (0.0, 0.0))
        self.seconds[kind] = (n + count, total + seconds)
        if time.monotonic() - self._spoke > EVERY:
            self.tell()

    @contextmanager
    def timed(self, kind: str, count: float) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.did(kind, count, time.monotonic() - begun)

    def tell(self) -> None:
        """Say what is left, and keep the seconds."""
        self._spoke = time.monotonic()
        self.keep()
        self._say(f"  {self.estimate()} left")

    def keep(self) -> None:
        write_atomically(self._path, (json.dumps(self.seconds, indent=1) + "\n").encode())

    def each(self, work: Work) -> float | None:
        """Seconds of one; None where nothing was measured that tells."""
        if work.kind in self.seconds:
            n, total = self.seconds[work.kind]
            return total / n
        needed = ((FORWARD, work.passes), (TRAINING, work.trained))
        if work.count == 0 or not any(passes for _, passes in needed):
            return None
        if any(passes and kind not in self.seconds for kind, passes in needed):
            return None
        return sum(p * self.seconds[k][1] / self.seconds[k][0] for k, p in needed if p) / work.count

    def estimate(self) -> str:
        """ "about 3.2 h", or "at least 3.2 h" where something has not been measured."""
        total, whole = 0.0, True
        for kind, count in self.left.items():
            each = self.each(self._plan[kind]) if kind in self._plan else None
            total += count * (each or 0.0)
            whole = whole and (each is not None or not count)
        return f"{'about' if whole else 'at least'} {spoken(total)}"


def spoken(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def calibrate(clock: Clock, base: BaseModel, side: int, batch: int) -> None:
    """Time the UNet on this machine: a pass without a gradient, and one forward and backward. Twice each, the second
    counts. base: on its device, without a LoRA; a backward pass down to its input costs what one to a LoRA does."""
    shape = (4, side // LATENT_FACTOR, side // LATENT_FACTOR)

    def once(count: int, *, gradient: bool) -> float:
        z = torch.randn((count, *shape), generator=torch.Generator().manual_seed(0)).to(base.device)
        t = torch.full((count,), 500, device=base.device)
        begun = time.monotonic()
        with torch.set_grad_enabled(gradient):
            answer = base.predict(z.requires_grad_(gradient), t, [""] * count)
            if gradient:
                answer.float().sum().backward()
        float(answer.detach().flatten()[0])  # waits for a GPU
        return time.monotonic() - begun

    for kind, count, gradient in ((FORWARD, 2 * batch, False), (TRAINING, 1, True)):
        if kind not in clock.seconds:
            once(count, gradient=gradient)
            clock.did(kind, count, once(count, gradient=gradient))
    clock.keep()
