"""Every random number of a training run, drawn from the run's seed and the number of the micro-step alone.

So nothing has to be saved to go on where a run was, and how the images of a step are shared out over forward passes
or processes changes no draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..losses.rollout import RolloutSettings
from .latent_cache import Cache, Sample
from .settings import TrainSettings


@dataclass(frozen=True)
class Draw:
    """One image of a micro-step.

    z: (C, h, w) its latent, drawn from the autoencoder's posterior; noise: ε of that shape; t: timestep.
    generic: one of its generic captions (its own caption where it has none).
    rolls: whether a rollout is made of it; choice: in [0, 1), which step of it is recorded where that is random.
    seed: its micro-step's. free: in [0, 1), for a loss's own use.
    """

    sample: Sample
    z: Tensor
    noise: Tensor
    t: int
    generic: str
    rolls: bool
    choice: float
    seed: int
    free: float


def samples_of_pass(
    cache: Cache, settings: TrainSettings, rollout: RolloutSettings, timesteps: int, micro: int
) -> list[Draw]:
    """The images of micro-step `micro`, counted over the whole run. timesteps: length of the noise schedule."""
    seed = seed_of(settings.seed, micro)
    generator, free = (torch.Generator().manual_seed(s) for s in (seed, seed_of(settings.seed, micro, 1)))
    draws = []
    for sample in samples_of(len(cache.dataset), settings, micro, generator):
        mean, std = cache.latent(sample)
        z = mean + std * torch.randn(mean.shape, generator=generator)
        noise = torch.randn(mean.shape, generator=generator)
        t = int(torch.randint(timesteps, (), generator=generator))
        record = cache.record(sample)
        captions = record.generic_captions or (record.caption,)
        generic = captions[int(torch.randint(len(captions), (), generator=generator))]
        choice = float(torch.rand((), generator=generator))
        if settings.noise_offset:
            noise = noise + settings.noise_offset * torch.randn((len(mean), 1, 1), generator=generator)
        draws.append(
            Draw(
                sample,
                z,
                noise,
                t,
                generic,
                micro % rollout.every == 0,
                choice,
                seed,
                float(torch.rand((), generator=free)),
            )
        )
    return draws


def samples_of(count: int, settings: TrainSettings, micro: int, generator: torch.Generator) -> list[Sample]:
    """The images of a micro-step: epochs are permutations drawn from the seed and the epoch's number."""
    found = []
    for position in range(micro * settings.batch_size, (micro + 1) * settings.batch_size):
        epoch, place = divmod(position, count)
        order = np.random.default_rng((settings.seed, epoch)).permutation(count)
        flipped = settings.flip and bool(torch.rand((), generator=generator) < 0.5)
        found.append((int(order[place]), flipped))
    return found


def together(draws: Sequence[Draw], most: int) -> list[list[Draw]]:
    """The draws in groups of one shape and at most `most` (0: no limit) images, in their order."""
    shapes: dict[torch.Size, list[Draw]] = {}
    for draw in draws:
        shapes.setdefault(draw.z.shape, []).append(draw)
    return [
        group[i : i + (most or len(group))]
        for group in shapes.values()
        for i in range(0, len(group), most or len(group))
    ]


def seed_of(seed: int, *numbers: int) -> int:
    """A 63-bit seed of its own for each tuple of numbers."""
    return int(np.random.SeedSequence((seed, *numbers)).generate_state(1, np.uint64)[0] >> 1)
