"""Images on their way through a feature network, in batches, so that a measurement can be watched and stopped.

Images of a dataset are cropped and scaled to the size of the generated ones, as training crops them: a difference of
size alone would else be measured as a difference of content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..common.errors import UserError
from ..data.crop import aligned
from ..data.records import Dataset
from ..features import FeatureNetwork
from .image_set import ImageSet, require_match, require_numbers

BATCH = 16
Observer = Callable[[int, int], None]
"""`observe(done, total)` counts images, and may raise to stop."""


@dataclass(frozen=True)
class Pictures:
    """N images of one size, opened when they are needed.

    size: height and width; at: indices -> (B, 3, H, W) in [-1, 1]; name: what tables and messages call them.
    """

    count: int
    size: tuple[int, int]
    at: Callable[[range], Tensor]
    name: str


@dataclass
class Work:
    """Counts the images that a measurement has seen, over all its parts."""

    total: int
    observe: Observer = lambda done, total: None
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        self.observe(self.done, self.total)


def of_images(images: Tensor, name: str) -> Pictures:
    """Images of a batch (N, H, W, 3) in [0, 1]."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(f"Images have the shape (N, H, W, 3), but {name!r} has {tuple(images.shape)}.")
    require_numbers(images, name)
    height, width = images.shape[1:3]

    def at(some: range) -> Tensor:
        return rearrange(images[some.start : some.stop], "b h w c -> b c h w").float() * 2.0 - 1.0

    return Pictures(len(images), (height, width), at, name)


def of_records(dataset: Dataset, size: tuple[int, int]) -> Pictures:
    """Images of a dataset, cropped and scaled to `size` (height, width)."""

    def at(some: range) -> Tensor:
        return torch.stack([aligned(dataset.records[i], size, flip=False)[0] for i in some])

    splits = list(dict.fromkeys(record.split for record in dataset.records))
    return Pictures(len(dataset), size, at, f"{dataset.name}, {' and '.join(splits)}" if splits else dataset.name)


def features(network: FeatureNetwork, images: Pictures, work: Work | None = None, batch: int = BATCH) -> Tensor:
    """The network's features (N, C, …) of all images, fp32, on the CPU."""
    return _through(network.extract, network, images, work, batch)


def embeddings(network: FeatureNetwork, images: Pictures, work: Work | None = None, batch: int = BATCH) -> Tensor:
    """One vector an image (N, D), fp32, on the CPU. Raises UserError for a network that gives none."""
    return _through(network.embedding, network, images, work, batch)


def device_of(network: FeatureNetwork) -> torch.device:
    return next((p.device for p in network.module.parameters()), torch.device("cpu"))


@torch.no_grad()
def _through(
    function: Callable[[Tensor], Tensor], network: FeatureNetwork, images: Pictures, work: Work | None, batch: int
) -> Tensor:
    device = device_of(network)
    found = []
    for start in range(0, images.count, batch):
        some = range(start, min(start + batch, images.count))
        found.append(function(images.at(some).to(device)).cpu())
        if work is not None:
            work.add(len(some))
    return torch.cat(found)


def checked_sets(images: ImageSet, compared_with: ImageSet | None) -> list[ImageSet]:
    """The sets that are measured, the one to compare with first. Raises UserError, one sentence, for fewer than two
    images, sets of other prompts, seeds or sizes, and two sets of one name."""
    if len(images.images) < 2:
        count = "no image" if not len(images.images) else "one image"
        raise UserError(
            f"The set {images.label!r} has {count}, but a figure with an interval needs at least two: raise "
            "images_per_prompt or add prompts."
        )
    if compared_with is None:
        return [images]
    require_match([compared_with, images])
    if compared_with.label == images.label:
        raise UserError(
            f"Both sets are labelled {images.label!r}, so their figures could not be told apart; rename one."
        )
    require_one_size(images.images.shape[1:3], compared_with.images.shape[1:3], compared_with.label)
    return [compared_with, images]


def require_one_size(own: Sequence[int], other: Sequence[int], name: str) -> None:
    """Raises UserError unless two sizes (height, width) are the same."""
    if tuple(own) != tuple(other):
        raise UserError(
            f"The images are {own[1]} × {own[0]} pixels and those of {name!r} {other[1]} × {other[0]}, so their "
            "sharpness would be measured instead of what they show; draw both at one size."
        )
