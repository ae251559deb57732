"""Generates the images of a model, once for every part that needs them, as the demo's workflow does: DDIM, 20 steps."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...common.fingerprints import short_hash
from ...corrector.corrector import Correction
from ...corrector.ddim import ddim_sample
from ...models.stable_diffusion import BaseModel
from .grid import GUIDANCE, Cell, ImageRequest
from .training import World

REVISION = 2
"""Raise it when you change what is generated."""

STEPS, BATCH = 20, 18
SHAPE = (4, 8, 8)


@dataclass(frozen=True)
class CellImages:
    """A cell's images, uint8 (N, 64, 64, 3), in the order of `Cell.requests`, and the CPU seconds that they took."""

    images: np.ndarray
    cpu_seconds: float

    def tensor(self) -> Tensor:
        """(N, H, W, 3) in [0, 1]."""
        return torch.from_numpy(self.images.astype(np.float32) / 255.0)


@torch.no_grad()
def sample(
    base: BaseModel,
    requests: Sequence[ImageRequest],
    correction: Correction | None = None,
    guidance: float = GUIDANCE,
) -> np.ndarray:
    """uint8 (N, H, W, 3): each image from its own noise, the same in any company but for rounding.

    DDIM on evenly spaced timesteps, which is ComfyUI's sampler "ddim" with the scheduler "normal".
    """
    prompts, seeds = [one.prompt for one in requests], [one.seed for one in requests]
    pixels = base.decode(latents(base, prompts, seeds, correction, guidance))
    scaled = pixels.clamp(-1, 1).add(1.0).mul(127.5).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def latents(
    base: BaseModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    correction: Correction | None = None,
    guidance: float = GUIDANCE,
) -> Tensor:
    """(N, 4, 8, 8) latents of images, each from its seed's noise, with a correction or without."""
    noise = torch.stack([torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return ddim_sample(base, noise, prompts, correction, guidance, STEPS)


def cell_file(world: World, model: str, cell: Cell, seed: int, guidance: float = GUIDANCE) -> Path:
    """Where the images of a cell lie. model: the key of its training, of the step and of a correction."""
    facts = [REVISION, world.facts, asdict(cell), seed, STEPS, guidance]
    return world.out / "drawn" / model / f"{short_hash(facts)}.npz"


def generated(
    world: World,
    model: str,
    base: Callable[[], BaseModel],
    cell: Cell,
    seed: int,
    correction: Correction | None = None,
    guidance: float = GUIDANCE,
) -> CellImages:
    """The cell's images: those that are there, or new ones, generated with `base()`."""

    def make() -> bytes:
        requests, network = cell.requests(seed, world.dataset), base()
        begun = time.process_time()
        parts = [requests[i : i + BATCH] for i in range(0, len(requests), BATCH)]
        batches = [sample(network, part, correction, guidance) for part in parts]
        buffer = io.BytesIO()
        np.savez_compressed(buffer, pictures=np.concatenate(batches), cpu_seconds=time.process_time() - begun)
        return buffer.getvalue()

    return read(world.once(cell_file(world, model, cell, seed, guidance), make))


def read(path: Path) -> CellImages:
    with np.load(path) as file:
        return CellImages(file["pictures"], float(file["cpu_seconds"]))
