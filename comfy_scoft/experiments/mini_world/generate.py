"""Draws the cells of a model, once for every part that asks for them, as the demo's workflow draws: DDIM, 20 steps."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...common.files import write_atomically
from ...common.fingerprints import short_hash
from ...corrector.corrector import Correction
from ...corrector.ddim import ddim_sample
from ...models.stable_diffusion import BaseModel
from .cells import Asked, Cell
from .training import World

REVISION = 2
"""To be raised by whoever changes what is drawn."""

STEPS, GUIDANCE, BATCH = 20, 3.0, 18
SHAPE = (4, 8, 8)


@dataclass(frozen=True)
class Drawn:
    """A cell's images, uint8 (N, 64, 64, 3), in the order of `Cell.asked`, and the CPU seconds that they took."""

    images: np.ndarray
    cpu_seconds: float

    def tensor(self) -> Tensor:
        """(N, H, W, 3) in [0, 1]."""
        return torch.from_numpy(self.images.astype(np.float32) / 255.0)


@torch.no_grad()
def sample(base: BaseModel, asked: Sequence[Asked], correction: Correction | None = None) -> np.ndarray:
    """uint8 (N, H, W, 3): each image from its own noise, the same in any company but for rounding.

    DDIM on evenly spaced timesteps, which is ComfyUI's sampler "ddim" with the scheduler "normal".
    """
    prompts, seeds = [one.prompt for one in asked], [one.seed for one in asked]
    return shown(base.decode(latents(base, prompts, seeds, correction)))


def latents(
    base: BaseModel, prompts: Sequence[str], seeds: Sequence[int], correction: Correction | None = None
) -> Tensor:
    """(N, 4, 8, 8) latents of images, each from its seed's noise, with a correction or without."""
    noise = torch.stack([torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return ddim_sample(base, noise, prompts, correction, GUIDANCE, STEPS)


def shown(pixels: Tensor) -> np.ndarray:
    """Decoded images (N, 3, H, W) as they are saved: uint8 (N, H, W, 3)."""
    scaled = pixels.clamp(-1, 1).add(1.0).mul(127.5).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def cell_file(world: World, model: str, cell: Cell, seed: int) -> Path:
    """Where the images of a cell lie. model: the key of its training, of the step and of a correction."""
    facts = [REVISION, world.facts, cell.described(), seed, STEPS, GUIDANCE]
    return world.out / "drawn" / model / f"{short_hash(facts)}.npz"


def drawn(
    world: World,
    model: str,
    base: Callable[[], BaseModel],
    cell: Cell,
    seed: int,
    correction: Correction | None = None,
) -> Drawn:
    """The cell's images: those that are there, or new ones, drawn with `base()`."""
    path = cell_file(world, model, cell, seed)
    with world.lock(f"{model}-{path.stem}"):
        if not path.is_file():
            asked, network = cell.asked(seed, world.dataset), base()
            begun = time.process_time()
            parts = [sample(network, asked[i : i + BATCH], correction) for i in range(0, len(asked), BATCH)]
            buffer = io.BytesIO()
            np.savez_compressed(buffer, images=np.concatenate(parts), cpu_seconds=time.process_time() - begun)
            write_atomically(path, buffer.getvalue())
    with np.load(path) as found:
        return Drawn(found["pictures"], float(found["cpu_seconds"]))
