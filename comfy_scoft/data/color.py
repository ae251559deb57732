"""Color profiles: the colors of an image file as sRGB, which models are trained on."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
"""Pillow's mode -> the ICC color space of a profile that fits it."""

_SRGB_WITHIN = 1
"""A profile that changes no color by more than this (of 255) is sRGB under one of its many names."""


def base_mode(mode: str) -> str:
    """The one of RGB, L, CMYK and LAB that an image of this mode becomes before its colors are converted."""
    return mode if mode in ("CMYK", "LAB") else "L" if mode[0] in "1LIF" else "RGB"


class UnusableProfile(Exception):
    """The profile is damaged, or made for images of another color space."""


def check_profile(image: Image.Image) -> None:
    """Raise UnusableProfile for an image, loaded or not, whose profile `to_rgb` ignores."""
    if profile := image.info.get("icc_profile"):
        _transform(profile, base_mode(image.mode))


def to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image of mode RGB, L, CMYK or LAB as 8-bit sRGB: relative colorimetric with black point compensation.

    Without a profile, with an unusable one and with sRGB's own, RGB and L keep their values.
    """
    transform = _transform(None, "LAB") if image.mode == "LAB" else None
    if profile:
        try:
            transform = _transform(profile, image.mode)
        except UnusableProfile:
            pass
    if transform is None:
        return image.convert("RGB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # not in place
    return converted


@lru_cache(maxsize=16)
def _transform(profile: bytes | None, mode: str) -> Any:
    """The transform of a mode's pixels to sRGB, None where it changes nothing. profile: None for standard Lab."""
    try:
        source: Any = ImageCms.createProfile("LAB")
        if profile is not None:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if source.profile.xcolor_space.strip() != _SPACES[mode]:
                raise UnusableProfile
        intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)
        if mode in ("RGB", "L"):
            before = _samples(mode)
            after = ImageCms.applyTransform(before, transform)
            if np.abs(np.asarray(after, np.int16) - np.asarray(before.convert("RGB"), np.int16)).max() <= _SRGB_WITHIN:
                return None
        return transform
    except Exception as error:  # littlecms and Pillow raise several types for a damaged profile
        raise UnusableProfile from error


def _samples(mode: str) -> Image.Image:
    """Every gray, or 17³ colors."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(17, 289, 3))
