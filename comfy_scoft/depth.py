"""Depth maps: the structure that a negative shares with its picture.

To add an estimator: write a loader `() -> DepthEstimator` and put it in DEPTH.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .dataset import open_image
from .mini import depth_net
from .records import Dataset

Observer = Callable[[int, int, Path], None]
"""Called after each record with how many are done, how many there are, and the newest file. May raise, to stop."""


@dataclass(frozen=True)
class DepthEstimator:
    """A frozen network that tells near from far.

    name: what a person chose. identity: changes whenever its answers do (a hash of its weights).
    estimate: pictures (B, 3, H, W) in [-1, 1] -> depth (B, 1, H, W) in [0, 1], near is bright.
    """

    name: str
    identity: str
    estimate: Callable[[Tensor], Tensor]


def load_relief() -> DepthEstimator:
    """The mini world's estimator: the relief of a figure before its background, seen at 64 px.

    Raises ValueError when its weights are missing from the pack.
    """
    net, side = depth_net.load(), (depth_net.SIZE, depth_net.SIZE)

    def estimate(pictures: Tensor) -> Tensor:
        small = pictures.float()
        if pictures.shape[-2:] != side:
            small = F.interpolate(small, side, mode="bicubic", antialias=True).clamp(-1, 1)
        with torch.no_grad():
            depth = net(small)
        if pictures.shape[-2:] != side:
            depth = F.interpolate(depth, pictures.shape[-2:], mode="bilinear")
        return depth

    return DepthEstimator("relief (mini)", file_hash(depth_net.WEIGHTS / depth_net.FILE), estimate)


DEPTH: dict[str, Callable[[], DepthEstimator]] = {"relief (mini)": load_relief}


def load_depth(name: str) -> DepthEstimator:
    """The estimator of that name."""
    if name not in DEPTH:
        raise ValueError(f"There is no depth estimator named {name!r}; choose one of {', '.join(DEPTH)}.")
    return DEPTH[name]()


def attach_depth(dataset: Dataset, estimator: DepthEstimator, folder: Path, observe: Observer | None = None) -> Dataset:
    """The dataset with a depth map at every record, in place of any that was there.

    Maps are 8-bit grey PNGs of the picture's own size in `folder`, named by the content of the picture and the
    estimator: one that is there is not made again. Raises ValueError for an empty dataset or an unreadable picture.
    """
    if not dataset.records:
        raise ValueError("The dataset has no records: load or make some before estimating their depth.")
    records = []
    for record in dataset.records:
        name = hashlib.sha256(f"{estimator.identity}:{file_hash(record.image)}".encode()).hexdigest()[:32]
        path = folder / f"{name}.png"
        if not path.is_file():
            depth = estimator.estimate(read_pixels(record.image).unsqueeze(0))
            write_png(depth[0, 0], path)
        records.append(dataclasses.replace(record, depth=path))
        if observe is not None:
            observe(len(records), len(dataset), path)
    return dataset.replace(records)


def read_pixels(path: Path) -> Tensor:
    """A picture file as (3, H, W) float32 in [-1, 1]. Raises ValueError as `open_image` does."""
    return rearrange(torch.from_numpy(np.array(open_image(path))), "h w c -> c h w").float().div(127.5).sub(1.0)


def write_png(values: Tensor, path: Path) -> None:
    """Values in [0, 1], (H, W) or (H, W, 3), as an 8-bit PNG that appears whole or not at all."""
    assert values.ndim == 2 or (values.ndim == 3 and values.shape[-1] == 3)
    pixels = values.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        Image.fromarray(pixels).save(part, format="PNG")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits. Raises ValueError when the file is gone."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:  # in blocks: checkpoints of several GB are hashed too
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ValueError(f"The file {path.name} cannot be read: put it back, or give the right to read it.") from error
    return digest.hexdigest()
