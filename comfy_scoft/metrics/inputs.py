"""Images on their way through a feature network, in batches, with progress.

Images of a dataset are cropped and resized to the size of the generated ones, as in training, so that a difference in
size is not measured as a difference in content.
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
from .image_set import ImageSet, require_different_labels, require_match, require_numbers

BATCH = 16
OnImages = Callable[[int, int], None]
"""Called with (images done, total); may raise to stop."""


@dataclass(frozen=True)
class ImageSource:
    """N images of one size, read when they are needed.

    size: (height, width); at: indices -> (B, 3, H, W) in [-1, 1]; name: for tables and messages.
    """

    count: int
    size: tuple[int, int]
    at: Callable[[range], Tensor]
    name: str


@dataclass
class ImageCounter:
    """Counts the images that a measurement has processed, over all its parts."""

    total: int
    observe: OnImages = lambda done, total: None
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        self.observe(self.done, self.total)


def of_images(images: Tensor, name: str) -> ImageSource:
    """Images of a batch (N, H, W, 3) in [0, 1]."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(f"Images have the shape (N, H, W, 3), but {name!r} has {tuple(images.shape)}.")
    require_numbers(images, name)
    height, width = images.shape[1:3]

    def at(indices: range) -> Tensor:
        return rearrange(images[indices.start : indices.stop], "b h w c -> b c h w").float() * 2.0 - 1.0

    return ImageSource(len(images), (height, width), at, name)


def of_records(dataset: Dataset, size: tuple[int, int]) -> ImageSource:
    """Images of a dataset, cropped and resized to `size` (height, width)."""

    def at(indices: range) -> Tensor:
        return torch.stack([aligned(dataset.records[i], size, flip=False)[0] for i in indices])

    splits = list(dict.fromkeys(record.split for record in dataset.records))
    return ImageSource(len(dataset), size, at, f"{dataset.name}, {' and '.join(splits)}" if splits else dataset.name)


def features(
    network: FeatureNetwork, images: ImageSource, counter: ImageCounter | None = None, batch: int = BATCH
) -> Tensor:
    """The network's features (N, C, …) of all images, float32, on the CPU."""
    return _batched(network.extract, network, images, counter, batch)


def embeddings(
    network: FeatureNetwork, images: ImageSource, counter: ImageCounter | None = None, batch: int = BATCH
) -> Tensor:
    """One vector for each image (N, D), float32, on the CPU. Raises UserError for a network without embeddings."""
    return _batched(network.embedding, network, images, counter, batch)


def set_embeddings(
    network: FeatureNetwork, sets: Sequence[ImageSet], counter: ImageCounter, batch: int
) -> list[Tensor]:
    """`embeddings` of each set."""
    return [embeddings(network, of_images(s.images, s.label), counter, batch) for s in sets]


@torch.no_grad()
def _batched(
    function: Callable[[Tensor], Tensor],
    network: FeatureNetwork,
    images: ImageSource,
    counter: ImageCounter | None,
    batch: int,
) -> Tensor:
    parts = []
    for start in range(0, images.count, batch):
        indices = range(start, min(start + batch, images.count))
        parts.append(function(images.at(indices).to(network.device)).cpu())
        if counter is not None:
            counter.add(len(indices))
    return torch.cat(parts)


def checked_sets(images: ImageSet, compared_with: ImageSet | None) -> list[ImageSet]:
    """The sets to measure, the baseline first.

    Raises UserError for fewer than two images, and for sets of different prompts, seeds or sizes, or of the same label.
    """
    if len(images.images) < 2:
        count = "no image" if not len(images.images) else "one image"
        raise UserError(
            f"The set {images.label!r} has {count}, but a metric with an interval needs at least two: raise "
            "images_per_prompt or add prompts."
        )
    if compared_with is None:
        return [images]
    require_match([compared_with, images])
    require_different_labels([compared_with.label, images.label])
    require_one_size(images.images.shape[1:3], compared_with.images.shape[1:3], compared_with.label)
    return [compared_with, images]


def require_one_size(size: Sequence[int], other: Sequence[int], name: str) -> None:
    """Raise UserError unless two sizes (height, width) are the same. name: of the other images."""
    if tuple(size) != tuple(other):
        raise UserError(
            f"The images are {size[1]} × {size[0]} pixels and those of {name!r} {other[1]} × {other[0]}, so their "
            "sharpness would be measured instead of their content; generate both at one size."
        )
