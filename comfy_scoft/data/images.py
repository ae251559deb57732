"""Image files: the one place where they are opened, decoded, written and hashed."""

from __future__ import annotations

import hashlib
import io
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

from ..common.errors import DiskError, UserError
from ..common.files import write_atomically

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".avif")
"""File names that count as images. The decoder is chosen by content, from `_FORMATS` only."""

MAX_PIXELS = 50_000_000
"""Largest width × height that is decoded: about 150 MB as RGB, more than any phone's photo."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF")
_READABLE = "png, jpg, webp, bmp, gif or avif"
_ORIENTATION = 0x0112
_PILLOW = threading.RLock()


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Decompression-bomb warnings and truncated files raise, whatever other extensions have configured."""
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
    """The image with its header read and its size checked. Any error, also in the body, becomes a UserError."""
    if not path.is_file():
        raise UserError(f"The image {path.name} is not in {path.parent.name}: put it there or remove its record.")
    Image.init()
    try:
        with _strict_pillow(), Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
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
    except Exception as error:  # Pillow's decoders raise nearly every exception type on damaged files
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not a decoder's
            raise DiskError(f"The image {path.name} cannot be read", error) from error
        raise UserError(
            f"The image {path.name} is truncated or damaged and cannot be read: replace it with a complete copy."
        ) from error


def check_image(path: Path, max_pixels: int = MAX_PIXELS, *, decode: bool = True) -> None:
    """Raise the UserError that `open_image` would raise.

    decode: False reads only the header and checksums, which misses truncation in formats without checksums (JPEG).
    """
    with _opened(path, max_pixels) as image:
        if decode:
            # Decoding a JPEG at an eighth of its size still reads all its data, at a fraction of the cost.
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
        else:
            image.verify()


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as 8-bit RGB, EXIF orientation applied, transparency on white, first frame of an animation.

    Raises UserError for a file that is missing, not an image, truncated, or over `max_pixels` (read from the header,
    before anything is decoded).
    """
    with _opened(path, max_pixels) as image:
        image.load()
        return _as_rgb(_upright(image))


def image_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) after EXIF orientation, from the header. Raises UserError as `open_image` does."""
    with _opened(path, max_pixels) as image:
        rotated = image.getexif().get(_ORIENTATION, 1) >= 5
        return (image.height, image.width) if rotated else image.size


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF does not affect the pixels
        return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion clips instead of scaling
        values = np.asarray(image).astype(np.float64) / 257.0
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image as (3, H, W) float32 in [-1, 1]."""
    return rearrange(torch.from_numpy(np.array(image)), "h w c -> c h w").float().div(127.5).sub(1.0)


def to_bytes(values: Tensor) -> Tensor:
    """Values in [0, 1] (clamped), any shape, as uint8 on the CPU."""
    return values.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)


def read_pixels(path: Path) -> Tensor:
    """An image file as (3, H, W) float32 in [-1, 1]. Raises UserError as `open_image` does."""
    return to_pixels(open_image(path))


def write_png(values: Tensor, path: Path) -> None:
    """Write values as `png` gives them, so that the file appears whole or not at all."""
    write_atomically(path, png(values))


def png(values: Tensor, *, optimize: bool = False) -> bytes:
    """Values in [0, 1], (H, W) or (H, W, 3), as the bytes of an 8-bit PNG. optimize: smaller and slower."""
    assert values.ndim == 2 or (values.ndim == 3 and values.shape[-1] == 3)
    data = io.BytesIO()
    Image.fromarray(to_bytes(values).numpy()).save(data, format="PNG", optimize=optimize)
    return data.getvalue()


def save_by_content(image: Tensor, folder: Path) -> Path:
    """Write an image, (H, W) or (H, W, 3) in [0, 1], as a PNG named by its pixel hash, unless that file exists."""
    path = folder / f"{pixel_hash(image)[:32]}.png"
    if not path.is_file():
        write_png(image, path)
    return path


def pixel_hash(image: Tensor) -> str:
    """SHA-256 of an image's shape and its pixels as 8-bit values; values are in [0, 1]."""
    pixels = to_bytes(image)
    return hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.contiguous().numpy().tobytes()).hexdigest()
