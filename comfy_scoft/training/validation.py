"""How well held-out images are predicted, with the same noise and timesteps every time: a smooth curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..common.errors import UserError
from ..losses.context import per_sample_mse
from ..models.stable_diffusion import BaseModel
from . import memory
from .batches import seed_of
from .latent_cache import Cache, Sample
from .settings import TrainSettings

HELD_OUT, TRAINED = "validation", "training_pictures"
"""Keys of the two curves in a run's metrics."""
TIMES = 4
"""Timesteps an image, at the middle of equal parts of the schedule."""
MOST = 64
"""Images of a set that are measured, evenly spaced over it."""
OVERFIT = 1.02
"""Held-out loss over its lowest value, from which on overfitting is named."""


def measure(
    trained: Cache, held_out: Cache, seed: int, check_interrupt: Callable[[], None] = lambda: None, batch: int = TIMES
) -> dict[str, float]:
    """Mean of `losses` over the held-out images and over as many trained-on ones, without a graph.

    batch: predictions in one UNet call, fewer by itself where memory runs out. check_interrupt: called before each.
    """
    count = min(len(held_out.dataset), MOST)
    means = {}
    try:
        for key, cache in ((HELD_OUT, held_out), (TRAINED, trained)):
            samples = spread(cache.samples(flip=False), count)
            means[key] = float(losses(cache.base, cache, samples, seed, check_interrupt, batch).double().mean())
        return means
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out(error):
            raise
        if batch == 1:
            raise UserError(
                "Memory ran out while held-out images were measured, so training stopped and what was learned is "
                "kept; close other programs, or set validate_every to 0, and go on with resume."
            ) from error
    memory.free()
    return measure(trained, held_out, seed, check_interrupt, 1)


def is_due(settings: TrainSettings, step: int) -> bool:
    """Whether held-out images are measured after so many optimizer steps."""
    every = settings.validate_every
    return every > 0 and (step % every == 0 or step == settings.steps)


def planned_calls(trained: int, held_out: int) -> int:
    """The UNet calls of one measurement, of so many images: one for each that is measured."""
    count = min(held_out, MOST)
    return count + min(count, trained)


@torch.no_grad()
def losses(
    base: BaseModel,
    cache: Cache,
    samples: Sequence[Sample],
    seed: int,
    check_interrupt: Callable[[], None] = lambda: None,
    batch: int = TIMES,
    times: int = TIMES,
) -> Tensor:
    """‖target − ε_θ(z_t, t, c)‖² (Eq. 1, unweighted) of each sample at `times` timesteps: (samples, times) fp32.

    base: whose predictions are measured, on the cache's latents. A sample's noise comes from the seed and its record's
    number alone, and the timesteps are the middles of equal parts of the schedule, so that two networks are measured
    alike. batch: predictions in one UNet call; check_interrupt: called before each.
    """
    values = []
    length = len(base.schedule)
    steps = torch.tensor([(2 * k + 1) * length // (2 * times) for k in range(times)])
    for sample in samples:
        generator = torch.Generator().manual_seed(seed_of(seed, 0x5C0F7, sample[0]))
        z = cache.latent(sample)[0].expand(times, -1, -1, -1)
        noise = torch.randn(z.shape, generator=generator)
        z_t, target = base.schedule.add_noise(z, noise, steps), base.schedule.target(z, noise, steps)
        for some in torch.arange(times).split(batch):
            check_interrupt()
            captions = [cache.record(sample).caption] * len(some)
            prediction = base.predict(z_t[some].to(base.device), steps[some].to(base.device), captions)
            values.append(per_sample_mse(prediction, target[some].to(base.device)).cpu())
    return torch.cat(values).view(len(samples), times)


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` of the samples (or all, where there are fewer), evenly spaced."""
    count = min(count, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def reading(rows: Sequence[Mapping[str, float]]) -> str:
    """One sentence on overfitting from a run's rows; "" where nothing was held out."""
    measured = [(int(row["step"]), row[HELD_OUT], row[TRAINED]) for row in rows if HELD_OUT in row and TRAINED in row]
    if len(measured) < 2:
        return ""
    (_, first, before), (step, last, trained), best = measured[0], measured[-1], min(measured, key=lambda row: row[1])
    gap = f"the gap to trained-on images went from {first - before:+.4f} to {last - trained:+.4f}"
    if last > OVERFIT * best[1] and best[0] < step:
        rise = 100.0 * (last / best[1] - 1.0)
        return (
            f"Overfitting: the loss on held-out images was lowest at step {best[0]} ({best[1]:.4f}) and is "
            f"{rise:.0f} % above that now, and {gap}; take the LoRA of an earlier step, or train for fewer."
        )
    return f"No overfitting seen: the loss on held-out images went from {first:.4f} to {last:.4f}, and {gap}."
