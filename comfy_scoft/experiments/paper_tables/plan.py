"""What a run would do, counted from its settings without a model, and how long that takes on this very machine.

No time is known beforehand. A kind of work that was done already counts with its own mean seconds; another one with the
UNet passes that it needs and the seconds of one pass, measured before the run; one that needs no UNet and was not done
yet counts nothing, and the estimate says "at least".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ...common.files import regular, write_atomically
from ...models.stable_diffusion import LATENT_FACTOR, BaseModel
from ...training.step_plan import expected_counts
from ..engine.training import build_losses
from .arms import BASE, Arm, ImageSpec, Scale
from .data import GENERIC, Culture, Generic, image_specs

TIMESTEPS = 1000
"""Of Stable Diffusion's noise schedule."""
CAPTION, DEPTH, NEGATIVE, DISTANCE = "captioned image", "depth map", "negative", "image in the filter"
IMAGE, LOOK = "generated image", "image in a feature network"
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
            found = json.loads(regular(path).read_bytes())
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


def step(arm: Arm) -> str:
    """The kind of work that an optimizer step of an arm is."""
    return f"optimizer step of {arm.name}"


def training(arm: Arm, scale: Scale) -> Work:
    """One training of an arm."""
    losses = build_losses(arm.specs, lambda role: None)  # a feature network makes no UNet call
    counts = expected_counts(losses, scale.train, scale.rollout, TIMESTEPS)
    return Work(step(arm), scale.train.steps, counts.frozen, counts.trained)


def preparing(cultures: Sequence[Culture], arms: Sequence[Arm], scale: Scale) -> list[Work]:
    """Generic captions, depth maps and negatives where the datasets have none, and the filter's looks."""
    captions = depths = negatives = looks = 0
    for culture in cultures:
        records = culture.train.records
        lacks_generic, lacks_negatives = culture.lacks(arms)
        if lacks_generic:
            captions += sum(not record.generic_captions for record in records)
        if lacks_negatives:
            depths += sum(record.depth is None for record in records)
            negatives += len(records) * scale.negatives.per_image
            looks += len(records) * (1 + scale.negatives.per_image)
    passes = negatives * scale.negatives.steps * (2 if scale.negatives.cfg > 1.0 else 1)
    works = [Work(CAPTION, captions), Work(DEPTH, depths), Work(NEGATIVE, negatives, passes), Work(DISTANCE, looks)]
    return [work for work in works if work.count]


def works(
    cultures: Sequence[Culture], arms: Sequence[Arm], generic: Generic | None, scale: Scale, seed: int,
    tables: Sequence[int],
) -> list[Work]:  # fmt: skip
    """All work of a run by its kind."""
    found = preparing(cultures, arms, scale)
    for arm in arms:
        if arm.losses:
            one, n = training(arm, scale), len(cultures)
            found.append(Work(one.kind, n * one.count, n * one.passes, n * one.trained))
    sets: dict[tuple[str, ...], ImageSpec] = {}
    for culture in cultures:
        for arm in arms:
            for spec in image_specs(arm, culture, generic, scale, seed, tables):
                shared = arm is BASE and spec.name == GENERIC  # generated once for all cultures
                sets["" if shared else culture.name, arm.key, spec.name] = spec
    images = sum(len(spec.prompts) for spec in sets.values())
    found.append(Work(IMAGE, images, float(2 * images * scale.sampling_steps)))
    looks = sum(len(spec.prompts) * len(spec.networks) for spec in sets.values())
    if {1, 4} & set(tables):
        looks += sum(len(culture.test) for culture in cultures) + (len(generic.images) if generic else 0)
    if 2 in tables:
        looks += 3 * len(cultures) * scale.pairs
    return [*found, Work(LOOK, looks)]


def described(works: Sequence[Work], trainings: int, clock: Clock) -> list[str]:
    """The plan as lines of text, with hours where something on this machine was measured."""
    lines = [f"{trainings} trainings", f"{'work':<34}{'count':>10}{'UNet passes':>14}{'with gradient':>15}{'time':>12}"]
    for work in works:
        each = clock.each(work)
        took = spoken(each * work.count) if each is not None else "unmeasured"
        lines.append(f"{work.kind:<34}{work.count:>10}{work.passes:>14.0f}{work.trained:>15.0f}{took:>12}")
    lines.append(f"{'all':<34}{'':>10}{sum(w.passes for w in works):>14.0f}{sum(w.trained for w in works):>15.0f}")
    return lines
