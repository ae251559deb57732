"""Every random number of a training run, from the run's seed and the number of the batch alone.

Batches are counted over the whole run: optimizer step s has those from s · accumulation on. So nothing has to be saved
to go on where a run was, and how the images of a step are shared out over forward passes or processes changes no
number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..losses.rollout import RolloutSettings
from .latent_cache import Cache, Sample
from .settings import TrainSettings

Item = TypeVar("Item")


@dataclass(frozen=True)
class TrainingSample:
    """One image of a batch.

    z: (C, h, w) its latent, sampled from the autoencoder's posterior; noise: ε of that shape; t: timestep.
    caption, generic: one of its captions, and one of its generic captions (that caption where it has none).
    has_rollout: whether a rollout is made of it. rollout_rand: in [0, 1), decides the rollout's recorded step where
    that is random. seed: the batch's. loss_rand: in [0, 1), for a loss's own use. noise_seed: of the noise that the
    rollout's solver adds.
    """

    sample: Sample
    z: Tensor
    noise: Tensor
    t: int
    caption: str
    generic: str
    has_rollout: bool
    rollout_rand: float
    seed: int
    loss_rand: float
    noise_seed: int


def batches_of_step(settings: TrainSettings, step: int) -> range:
    """The numbers of the batches of optimizer step `step` (from 0)."""
    return range(step * settings.accumulation, (step + 1) * settings.accumulation)


def samples_of_batch(
    cache: Cache, settings: TrainSettings, rollout: RolloutSettings, timesteps: int, batch: int
) -> list[TrainingSample]:
    """The images of a batch. timesteps: length of the noise schedule."""
    seed, own = seed_of(settings.seed, batch), torch.Generator().manual_seed(seed_of(settings.seed, batch, 1))
    samples: list[TrainingSample] = []
    captions = torch.Generator().manual_seed(seed_of(settings.seed, batch, 3))
    for sample, posterior, noise, t, generic, rollout_rand in _random_numbers(cache, settings, timesteps, batch):
        caption = _one_of(cache.record(sample).captions, captions)
        mean, std = cache.latent(sample)
        z = mean + std * posterior
        loss_rand = float(torch.rand((), generator=own))
        texts = (caption, generic or caption)
        has_rollout, noise_seed = rollout_in_batch(rollout, batch), seed_of(settings.seed, batch, 2, len(samples))
        samples.append(
            TrainingSample(sample, z, noise, t, *texts, has_rollout, rollout_rand, seed, loss_rand, noise_seed)
        )
    return samples


def timesteps_of_batch(cache: Cache, settings: TrainSettings, timesteps: int, batch: int) -> list[int]:
    """The `t` of each image of `samples_of_batch`, without its latent."""
    return [t for _, _, _, t, _, _ in _random_numbers(cache, settings, timesteps, batch)]


def _random_numbers(
    cache: Cache, settings: TrainSettings, timesteps: int, batch: int
) -> Iterator[tuple[Sample, Tensor, Tensor, int, str, float]]:
    """Of each image of a batch: itself, the noise of its latent's posterior, and noise, t, generic and rollout_rand.

    generic: "" where it has none.
    """
    generator = torch.Generator().manual_seed(seed_of(settings.seed, batch))
    for sample in images_of_batch(len(cache.dataset), settings, batch, generator):
        shape, record = cache.latent_shape(sample), cache.record(sample)
        posterior, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        t = int(torch.randint(timesteps, (), generator=generator))
        generic = _one_of(record.generic_captions or ("",), generator)
        rollout_rand = float(torch.rand((), generator=generator))
        if settings.noise_offset:
            noise = noise + settings.noise_offset * torch.randn((shape[0], 1, 1), generator=generator)
        yield sample, posterior, noise, t, generic, rollout_rand


def _one_of(texts: Sequence[str], generator: torch.Generator) -> str:
    return texts[int(torch.randint(len(texts), (), generator=generator))]


def rollout_in_batch(rollout: RolloutSettings, batch: int) -> bool:
    """Whether rollouts are made of a batch's images, if a loss uses them."""
    return batch % rollout.every == 0


def images_of_batch(
    count: int, settings: TrainSettings, batch: int, generator: torch.Generator | None = None
) -> list[Sample]:
    """The images of a batch, of `count`: each epoch is a permutation from the seed and the epoch's number.

    generator: decides which are flipped; None flips none of them.
    """
    images = []
    for number in range(batch * settings.batch_size, (batch + 1) * settings.batch_size):
        epoch, position = divmod(number, count)
        flipped = generator is not None and settings.flip and bool(torch.rand((), generator=generator) < 0.5)
        images.append((int(_order(settings.seed, epoch, count)[position]), flipped))
    return images


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def grouped(items: Sequence[Item], most: int, shape: Callable[[Item], Sequence[int]]) -> list[list[Item]]:
    """The items in groups of one shape and at most `most` (0: no limit), in their order: each is one forward pass."""
    shapes: dict[tuple[int, ...], list[Item]] = {}
    for item in items:
        shapes.setdefault(tuple(shape(item)), []).append(item)
    return [
        group[i : i + (most or len(group))]
        for group in shapes.values()
        for i in range(0, len(group), most or len(group))
    ]


def passes_of(samples: Sequence[TrainingSample], most: int) -> list[list[TrainingSample]]:
    """The samples of each forward and backward pass: of one shape, at most `most` (0: no limit)."""
    return grouped(samples, most, lambda sample: sample.z.shape)


def seed_of(seed: int, *numbers: int) -> int:
    """A 63-bit seed of its own for each tuple of numbers."""
    return int(np.random.SeedSequence((seed, *numbers)).generate_state(1, np.uint64)[0] >> 1)
