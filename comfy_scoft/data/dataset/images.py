"""Images of strangers, opened with care, and the aligned tensors made of them."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from ...common.errors import UserError
from ..records import CultureRecord

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".avif")
"""What counts as an image. Only these decoders are ever tried, whatever a file's name says."""

MAX_PIXELS = 50_000_000
"""Largest image, width times height, that is decoded: about 150 MB as RGB, and above any phone's photo."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF")
_READABLE = "png, jpg, webp, bmp, gif or avif"
_ORIENTATION = 0x0112
_PILLOW = threading.RLock()


@contextmanager
def _careful_pillow() -> Iterator[None]:
    """Bomb warnings are errors, and a truncated file is one too even if another extension switched that off."""
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """The image with its header read and its size checked. Every fault, in the body too, is one clear sentence."""
    if not path.is_file():
        raise UserError(f"The image {path.name} is not in {path.parent.name}: put it there or remove its record.")
    Image.init()
    try:
        with _careful_pillow(), Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
        raise UserError(
            f"The image {path.name} has more than the allowed {limit / 1e6:g} million pixels: save it smaller."
        ) from error
    except UnidentifiedImageError as error:
        raise UserError(f"The file {path.name} is not an image: it was expected to be {_READABLE}.") from error
    except PermissionError as error:
        raise UserError(f"The image {path.name} may not be read: give this user the right to read it.") from error
    except Exception as error:  # on damaged files Pillow's decoders raise nearly every kind of exception
        raise UserError(
            f"The image {path.name} is truncated or damaged and cannot be read: replace it with a whole copy."
        ) from error


def check_image(path: Path, max_pixels: int = MAX_PIXELS, decode: bool = True) -> None:
    """Raise the same one-sentence UserError as `open_image` would.

    `decode=False` reads the header and the checksums only (all that a JPEG has no checksum for stays unseen).
    """
    with _opened(path, max_pixels) as image:
        if decode:
            # A JPEG decoded at an eighth still reads all its data, so a cut one is found at a fraction of the cost.
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
        else:
            image.verify()


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as 8-bit RGB, turned upright by its EXIF tag; transparency on white; first frame of a film.

    Raises UserError with one sentence that names the file: missing, not an image, truncated, or more pixels
    than `max_pixels` (read from the header, before anything is decoded).
    """
    with _opened(path, max_pixels) as image:
        image.load()
        return _as_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF says nothing about the pixels, which are fine
        return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion clips instead of scaling
        values = np.asarray(image).astype(np.float64) / 257.0
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _fitted(image: Image.Image, height: int, width: int, flip: bool) -> Tensor:
    """Center crop to width : height, antialiased bicubic resize, flip; (3, height, width) float32 in [-1, 1]."""
    scale = min(image.width / width, image.height / height)
    crop_width, crop_height = width * scale, height * scale
    left, top = (image.width - crop_width) / 2, (image.height - crop_height) / 2
    box = (left, top, min(left + crop_width, image.width), min(top + crop_height, image.height))
    image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    if flip:
        image = ImageOps.mirror(image)
    return rearrange(torch.from_numpy(np.array(image)), "h w c -> c h w").float().div(127.5).sub(1.0)


def image_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of an upright image, from its header. Raises UserError as `open_image` does."""
    with _opened(path, max_pixels) as image:
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
        return (image.height, image.width) if turned else image.size


def bucket(width: int, height: int, resolution: int) -> tuple[int, int]:
    """Height and width of the bucket of an image: nearest in aspect, at most resolution² pixels, at most 2 : 1.

    Sides are multiples of 64 pixels (8 below 256), so that every level of the UNet divides them.
    """
    unit = 64 if resolution >= 256 else 8
    sizes = []
    for wide in range(unit, 2 * resolution + 1, unit):
        high = resolution * resolution // wide // unit * unit
        if high and 0.5 <= wide / high <= 2.0:
            sizes.append((high, wide))
    wanted = math.log(width / height)
    return min(sizes, key=lambda size: (abs(math.log(size[1] / size[0]) - wanted), -size[0] * size[1]))


def aligned(record: CultureRecord, size: int | tuple[int, int], flip: bool) -> tuple[Tensor, Tensor]:
    """The record's image and its negatives under one and the same crop, resize and flip.

    size: side of a square, or (height, width), in pixels.
    Returns (3, H, W) and (N, 3, H, W), float32 in [-1, 1]; N is 0 for a record without negatives. A negative of
    another size than the image is scaled to cover the target as well, so equal layouts stay in register.
    Raises UserError as `open_image` does.
    """
    height, width = (size, size) if isinstance(size, int) else size
    assert height > 0 and width > 0
    pixels = _fitted(open_image(record.image), height, width, flip)
    negatives = pixels.new_zeros(len(record.negatives), 3, height, width)
    for k, path in enumerate(record.negatives):
        negatives[k] = _fitted(open_image(path), height, width, flip)
    return pixels, negatives
