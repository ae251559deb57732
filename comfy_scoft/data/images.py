"""Single image files: read, written, and named by their content."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ..common.files import write_atomically
from .dataset import open_image


def read_pixels(path: Path) -> Tensor:
    """An image file as (3, H, W) float32 in [-1, 1]. Raises UserError as `open_image` does."""
    return rearrange(torch.from_numpy(np.array(open_image(path))), "h w c -> c h w").float().div(127.5).sub(1.0)


def write_png(values: Tensor, path: Path) -> None:
    """Write values as `png` gives them, so that the file appears whole or not at all."""
    write_atomically(path, png(values))


def png(values: Tensor, *, optimize: bool = False) -> bytes:
    """Values in [0, 1], (H, W) or (H, W, 3), as the bytes of an 8-bit PNG. optimize: smaller and slower."""
    assert values.ndim == 2 or (values.ndim == 3 and values.shape[-1] == 3)
    data = io.BytesIO()
    Image.fromarray(_bytes(values).numpy()).save(data, format="PNG", optimize=optimize)
    return data.getvalue()


def save_by_content(image: Tensor, folder: Path) -> Path:
    """Write an image, (H, W) or (H, W, 3) in [0, 1], as a PNG named by its pixels; one that is there is left alone."""
    path = folder / f"{pixel_hash(image)[:32]}.png"
    if not path.is_file():
        write_png(image, path)
    return path


def pixel_hash(image: Tensor) -> str:
    """SHA-256 of an image's size and its pixels as 8-bit values; values are in [0, 1]."""
    pixels = _bytes(image)
    return hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.contiguous().numpy().tobytes()).hexdigest()


def _bytes(values: Tensor) -> Tensor:
    return values.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
