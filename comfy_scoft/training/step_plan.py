"""Which UNet calls a run makes, counted from its losses and settings before it starts.

The progress bar, the memory estimate, the plan of the paper's tables and the log read this and count nothing
themselves. A call is one forward pass through the UNet, of whatever batch: `BaseModel.calls` counts those that were
made, and tests/test_step_plan.py holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..losses import Calls, Loss
from ..losses.rollout import GradientStep, RolloutSettings, timesteps
from . import preview, validation
from .batches import batches_of_step, grouped, images_of_batch, rollout_in_batch, timesteps_of_batch
from .run import Run
from .settings import TrainSettings

SAMPLE = 40
"""Steps from which the calls of the others are estimated."""


@dataclass(frozen=True)
class Counts:
    """UNet work. calls: forward passes of a batch, of any size. frozen, trained: images in them without and with a
    graph for the backward pass."""

    calls: float = 0
    frozen: float = 0
    trained: float = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.calls + other.calls, self.frozen + other.frozen, self.trained + other.trained)

    def __mul__(self, times: float) -> Counts:
        return Counts(self.calls * times, self.frozen * times, self.trained * times)


def uses_rollout(losses: Iterable[Loss]) -> bool:
    return any(loss.uses_rollout for loss in losses)


def pass_counts(
    losses: Sequence[Loss], rollout: RolloutSettings, images: int, rollouts: Sequence[float] = ()
) -> Counts:
    """The UNet work of one forward and backward pass (`objective.weighted_loss`).

    images: how many are in the pass. rollouts: the number of timesteps of each rollout that is made in it.
    """
    rollouts = rollouts if uses_rollout(losses) else ()
    plain = [loss.calls for loss in losses if not loss.uses_rollout]
    on_image = [loss.calls for loss in losses if loss.uses_rollout]
    own, first = _calls(plain, images, prediction=bool(rollouts) and rollout.gradient_step is GradientStep.FIRST)
    if not rollouts:
        return own + (Counts(1, images * first) if first else Counts())
    count = len(rollouts)
    there, more = _calls(on_image, count, prediction=False, frozen={"caption", "empty"})
    batched = Counts(1, images * first + count * more)  # all frozen predictions at (z_t, t)
    steps = Counts(max(rollouts) - 1, 2 * sum(length - 1 for length in rollouts))  # caption and empty prompt
    recorded = Counts(1, 0, count) if rollout.gradient_step is not GradientStep.FIRST else Counts()
    return own + there + batched + steps + recorded


def _calls(calls: Sequence[Calls], images: int, *, prediction: bool, frozen: Iterable[str] = ()) -> tuple[Counts, int]:
    """The calls that losses make one by one, and the number of frozen predictions, which are made together."""
    with_graph = int(prediction or any(c.prediction for c in calls)) + sum(c.own for c in calls)
    base = int(any(c.base_generic for c in calls)) + sum(c.own_base for c in calls)
    names = {name for c in calls for name in c.frozen} | set(frozen)
    return Counts(with_graph + base, base * images, with_graph * images), len(names)


def graphs(losses: Sequence[Loss], rollout: RolloutSettings) -> tuple[float, float]:
    """How many graphs of the UNet a pass holds at once: for each of its images, and more for each with a rollout."""
    one, two = (pass_counts(losses, rollout, images, (1,)).trained for images in (1, 2))
    return two - one, 2 * one - two


def rollouts_of_step(settings: TrainSettings, rollout: RolloutSettings) -> int:
    """The most rollouts that an optimizer step has, if a loss uses them."""
    return settings.batch_size * -(-settings.accumulation // rollout.every)


def expected_counts(losses: Sequence[Loss], settings: TrainSettings, rollout: RolloutSettings, length: int) -> Counts:
    """The images through the UNet in a whole run, on average over the random timesteps; no model is needed.

    length: of the noise schedule. `calls` counts one pass for each batch.
    """
    batches = settings.steps * settings.accumulation
    rolling = -(-batches // rollout.every) if uses_rollout(losses) else 0
    mean = sum(len(timesteps(t, rollout.steps, rollout.grid)) for t in range(length)) / length
    plain = pass_counts(losses, rollout, settings.batch_size)
    return (
        plain * (batches - rolling)
        + pass_counts(losses, rollout, settings.batch_size, [mean] * settings.batch_size) * rolling
    )


def expected_calls(run: Run, first: int = 0) -> int:
    """About as many UNet calls as `planned_calls` will count, at once: from SAMPLE steps, and all looks."""
    left = range(first, run.settings.steps)
    some = [step_counts(run, run.settings.micro_batch, step).calls for step in left[:SAMPLE]]
    return round(sum(some) / max(1, len(some)) * len(left)) + _looks(run, first)


def step_counts(run: Run, micro_batch: int, step: int) -> Counts:
    """The UNet work of this process in optimizer step `step` (from 0). micro_batch: images in one pass; 0: all."""
    cache, settings, images = run.caches()[0], run.settings, []
    for batch in batches_of_step(settings, step):
        samples = images_of_batch(len(run.dataset), settings, batch)
        lengths = [0] * len(samples)
        if uses_rollout(run.losses) and rollout_in_batch(run.rollout, batch):
            times = timesteps_of_batch(cache, settings, len(run.base.schedule), batch)
            lengths = [len(timesteps(t, run.rollout.steps, run.rollout.grid)) for t in times]
        images += [(cache.latent_shape(sample), length) for sample, length in zip(samples, lengths, strict=True)]
    counts = Counts()
    for some in grouped(run.distributed.share(images), micro_batch, lambda image: image[0]):
        counts += pass_counts(run.losses, run.rollout, len(some), [length for _, length in some if length])
    return counts


def look_calls(run: Run, step: int) -> int:
    """The UNet calls of this process between two optimizer steps, after `step` of them: validation and preview."""
    if not run.distributed.main:
        return 0
    calls = 0
    if validation.is_due(run.settings, step) and run.validation is not None:
        calls += validation.planned_calls(len(run.dataset), len(run.validation))
    return calls + (preview.planned_calls(run.base) if preview.is_due(run.settings, step) else 0)


def planned_calls(run: Run, micro_batch: int, first: int = 0) -> int:
    """The UNet calls that this process makes from optimizer step `first` (from 0) to the end of the run, exactly.

    Only where memory runs out will there be others: then plan again with the new micro_batch.
    """
    steps = run.settings.steps
    training = sum(int(step_counts(run, micro_batch, step).calls) for step in range(first, steps))
    return training + _looks(run, first)


def _looks(run: Run, first: int) -> int:
    return sum(look_calls(run, step) for step in range(first, max(first, run.settings.steps) + 1))
