"""Image files: the one place where they are opened, decoded, written and hashed."""

from __future__ import annotations

import hashlib
import io
import re
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

from ..common.errors import DiskError, ImageError
from ..common.files import regular, write_atomically
from .color import UnusableProfile, base_mode, check_profile, profile_of, to_rgb
from .formats import HEAD, decoders, format_of, reads_heif, why_no_image

MAX_PIXELS = 50_000_000
"""Largest width × height that is decoded: about 150 MB as RGB, more than most phones' photos."""

_ORIENTATION, _SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC = 0x0112, 0x00FE, 0x0100, 0x0101, 0x0106
_PILLOW = threading.RLock()

_DAMAGED = "The image {file} is truncated or damaged and cannot be read: replace it with a complete copy."
_UNSURE = (
    "The file {file} begins as {form}, but is truncated or damaged or is not an image that can be read: replace it "
    "with a complete copy, or save it as PNG with an image program."
)
_UNSUPPORTED = "The image {file} is a kind of {form} that is not read: save it as PNG with an image program."
_PREVIEW = "The image {file} is a camera's raw photo, of which only a small preview is read: export it as JPEG or TIFF."
_GET_HEIF = "run `python install.py pillow-heif` in this pack's folder with ComfyUI's Python and restart, or save"
_HEIC = (
    f"The image {{file}} is a HEIC photo, which needs the package pillow-heif: {_GET_HEIF} it as JPEG.",
    f"{{count}} images are HEIC photos, which need the package pillow-heif: {_GET_HEIF} them as JPEG ({{files}}).",
)
_POINTER = (
    "The file {file} is not an image but a Git LFS pointer: download the real file with git lfs pull.",
    "{count} files are not images but Git LFS pointers: download the real files with git lfs pull ({files}).",
)


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
    """The image with its header read and its size checked. Any error, also in the body, becomes an ImageError."""
    if not path.is_file():
        sentence = f"The image {{file}} is not in {path.parent.name}: put it there or remove its record."
        raise ImageError(sentence, path.name)
    try:
        with _strict_pillow(), Image.open(path, formats=decoders(path.suffix.lower())) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            if image.format == "TIFF" and image.tag_v2.get(_SUBFILE, 0) & 1:  # type: ignore[attr-defined]
                raise ImageError(_PREVIEW, path.name)
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
        sentence = f"The image {{file}} has more than the allowed {limit / 1e6:g} million pixels: save it smaller."
        raise ImageError(sentence, path.name) from error
    except PermissionError as error:
        raise ImageError("The image {file} may not be read: give this user the right to read it.", path.name) from error
    except Exception as error:  # Pillow's decoders raise nearly every exception type on damaged files
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not a decoder's
            raise DiskError(f"The image {path.name} cannot be read", error) from error
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ImageError:
    """What a file is that a decoder gave up, or that none took for its own."""
    with regular(path).open("rb") as file:
        head = file.read(HEAD)
    form = format_of(head) if b"\0" in head else None  # two letters of a text are enough for some decoders
    if not isinstance(error, UnidentifiedImageError):
        unsupported = isinstance(error, NotImplementedError) or re.search("support|not available", str(error))
        return ImageError(_UNSUPPORTED.replace("{form}", form or "image") if unsupported else _DAMAGED, path.name)
    if form == "HEIF" and not reads_heif():
        return ImageError(_HEIC[0], path.name, _HEIC[1])
    if form is not None:
        return ImageError(_UNSURE.replace("{form}", form), path.name)
    why = why_no_image(head)
    if "Git LFS" in why:
        return ImageError(_POINTER[0], path.name, _POINTER[1])
    return ImageError(f"The file {{file}} is not an image {why}.", path.name)


def check_image(path: Path, max_pixels: int = MAX_PIXELS, *, decode: bool = True) -> bool:
    """Raise the error that `open_image` would raise. Returns whether the color profile is ignored.

    decode: False reads only the header and checksums, which misses truncation in formats without checksums (JPEG).
    """
    try:
        return _check(path, max_pixels, decode=decode, reduced=True)
    except ImageError:
        if not decode:
            raise
        return _check(path, max_pixels, decode=True, reduced=False)


def _check(path: Path, max_pixels: int, *, decode: bool, reduced: bool) -> bool:
    """reduced: decode a JPEG at an eighth of its size, which reads all its data at a fraction of the cost.

    A lossless JPEG cannot be decoded so.
    """
    with _opened(path, max_pixels) as image:
        ignored = False
        try:
            check_profile(image)
        except UnusableProfile:
            ignored = True
        if not decode:
            image.verify()
            return ignored
        if reduced and image.format in ("JPEG", "MPO"):
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
        return ignored


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as 8-bit sRGB: EXIF orientation and color profile applied, transparency on white, the first frame.

    A profile that is damaged or for another color space is ignored (`check_image` says of which files). Raises
    ImageError for a file that is missing, not an image, truncated, or over `max_pixels` (read from the header, before
    anything is decoded).
    """
    with _opened(path, max_pixels) as image:
        profile = profile_of(image)
        image.load()
        upright = _upright(image)
        if image.mode == "I;16" and image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
            upright = Image.fromarray(65535 - np.asarray(upright))  # white is 0, which Pillow heeds for 8 bits only
        return _as_rgb(upright, profile)


def image_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) after EXIF orientation, from the header. Raises ImageError as `open_image` does."""
    with _opened(path, max_pixels) as image:
        try:
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        except Exception:  # damaged EXIF does not affect the pixels
            turned = False
        width, height = image.size
        if image.format == "TIFF":  # of which newer Pillows turn the size themselves
            width, height = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]  # type: ignore[attr-defined]
        return (height, width) if turned else (width, height)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF does not affect the pixels
        return image


def _as_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    alpha = None
    if image.mode[0] in "IF":  # Pillow's own conversion clips instead of scaling
        image, alpha = _scaled(image)
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("LA" if base_mode(image.mode) == "L" else "RGBA")
        alpha = image.getchannel("A")
    image = to_rgb(image.convert(base_mode(image.mode)), profile)
    if alpha is not None:
        image.putalpha(alpha)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def _scaled(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Gray of more than 8 bits as 8-bit gray, and its alpha, if one value of it is transparent.

    Whole numbers are of 16 bits. The range of floats is 1, 8 bits or 16 bits: the least of which none is the double,
    since filters bring some above it.
    """
    values, most, clear = np.nan_to_num(np.asarray(image).astype(np.float64)), 65535, image.info.get("transparency")
    if image.mode == "F":
        most = next((limit for limit in (1, 255) if values.max() < 2 * limit), most)
    gray = Image.fromarray((values * 255 / most).round().clip(0, 255).astype(np.uint8))
    return gray, None if clear is None else Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))


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
