"""Crops of training images: aspect-ratio buckets, and one crop shared by an image and its negatives."""

from __future__ import annotations

import math

from PIL import Image, ImageOps
from torch import Tensor

from .images import open_image, to_pixels
from .records import CultureRecord


def bucket(width: int, height: int, resolution: int) -> tuple[int, int]:
    """(height, width) of the bucket nearest in aspect ratio: at most resolution² pixels and at most 2 : 1.

    Sides are multiples of 64 pixels (8 below 256), so that every level of the UNet divides them.
    """
    unit = 64 if resolution >= 256 else 8
    sizes = []
    for w in range(unit, 2 * resolution + 1, unit):
        h = resolution * resolution // w // unit * unit
        if h and 0.5 <= w / h <= 2.0:
            sizes.append((h, w))
    aspect = math.log(width / height)
    return min(sizes, key=lambda size: (abs(math.log(size[1] / size[0]) - aspect), -size[0] * size[1]))


def aligned(record: CultureRecord, size: int | tuple[int, int], *, flip: bool) -> tuple[Tensor, Tensor]:
    """The record's image and its negatives under the same crop, resize and horizontal flip.

    size: side of a square, or (height, width), in pixels.
    Returns (3, H, W) and (N, 3, H, W), float32 in [-1, 1]; N is 0 for a record without negatives. A negative of
    another size than the image is scaled to cover the target as well, so that equal layouts stay aligned.
    Raises UserError as `open_image` does.
    """
    height, width = (size, size) if isinstance(size, int) else size
    assert height > 0 and width > 0
    pixels = _fitted(open_image(record.image), height, width, flip=flip)
    negatives = pixels.new_zeros(len(record.negatives), 3, height, width)
    for k, path in enumerate(record.negatives):
        negatives[k] = _fitted(open_image(path), height, width, flip=flip)
    return pixels, negatives


def _fitted(image: Image.Image, height: int, width: int, *, flip: bool) -> Tensor:
    """Center crop to width : height, antialiased bicubic resize, flip; (3, height, width) float32 in [-1, 1]."""
    scale = min(image.width / width, image.height / height)
    crop_width, crop_height = width * scale, height * scale
    left, top = (image.width - crop_width) / 2, (image.height - crop_height) / 2
    box = (left, top, min(left + crop_width, image.width), min(top + crop_height, image.height))
    image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return to_pixels(ImageOps.mirror(image) if flip else image)
