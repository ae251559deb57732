"""Images for the survey page: one size, one encoder and no metadata, so that only their content differs."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from ..common.errors import UserError
from ..metrics.image_set import ImageSet

SMALL = 320
"""Images with a shorter longest side are enlarged by an integer factor, so that a phone does not blur them."""


def common_size(sets: Sequence[ImageSet], longest: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of the smallest set, to which all images are resized first, and then of the page's images.

    longest: maximum of the longer side in pixels. Raises UserError for sets of different aspect ratios, which would
    reveal the generator.
    """
    sizes = [(int(images.images.shape[2]), int(images.images.shape[1])) for images in sets]
    for images, (width, height) in zip(sets[1:], sizes[1:], strict=True):
        if abs(width * sizes[0][1] - height * sizes[0][0]) > max(width, height, *sizes[0]):
            raise UserError(
                f"The images of {sets[0].label!r} are {sizes[0][0]} x {sizes[0][1]} and those of {images.label!r} "
                f"{width} x {height} pixels: generate all sets with the same proportions, or their shape reveals the "
                "generator."
            )
    least = min(sizes, key=max)
    scale = min(1.0, longest / max(least))
    if max(least) < SMALL:
        scale = float(max(1, min(longest, 2 * SMALL) // max(least)))
    return least, (max(1, round(least[0] * scale)), max(1, round(least[1] * scale)))


def encoded(values: Tensor, least: tuple[int, int], size: tuple[int, int], quality: int) -> bytes:
    """An image (H, W, C) in [0, 1] as JPEG (4:4:4) without metadata; sizes are those of `common_size`."""
    array = values[..., :3].detach().cpu().float().numpy()
    pixels = np.nan_to_num(np.clip(array, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    image = Image.fromarray(pixels).convert("RGB")
    image = image.resize(least, Image.Resampling.LANCZOS) if image.size != least else image
    if size != least:
        larger = size[0] > least[0]
        image = image.resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=0, optimize=True)
    return file.getvalue()


def fingerprint(images: Sequence[Tensor]) -> bytes:
    """SHA-256 of images before encoding, which cannot be computed from the page."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(repr(tuple(image.shape)).encode())
        digest.update(image.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.digest()
