"""Color profiles: the colors of an image file as sRGB, which models are trained on."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from ..common.files import regular

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
"""Pillow's mode -> the ICC color space of a profile that fits it."""

_SRGB_WITHIN = 1
"""A profile that changes no color by more than this (of 255) is sRGB under one of its many names."""


def base_mode(mode: str) -> str:
    """The one of RGB, L, CMYK and LAB that an image of this mode becomes before its colors are converted."""
    return mode if mode in ("CMYK", "LAB") else "L" if mode[0] in "1LIF" else "RGB"


Chromaticities = tuple[float, ...]
"""x and y of white, red, green and blue."""

_SRGB: Chromaticities = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB: Chromaticities = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_ALIKE = 0.02
"""Chromaticities closer than this to sRGB's are taken for sRGB's, and a gamma closer to 2.2 than 5 %, as in libpng."""

_SRGB_CURVE = (3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""ICC's function type 3: Y = (aX + b)^g from d, else cX."""
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_UNSPECIFIED = 2
_SRGB_LIKE_TRANSFERS = (1, _UNSPECIFIED, 6, 13, 14, 15)
"""Transfer characteristics (ITU-T H.273) of ordinary screens. Others are HDR's."""
_UNUSABLE = b"of HDR or damaged"


class UnusableProfile(Exception):
    """The profile is damaged, or made for images of another color space or for HDR."""


def check_profile(image: Image.Image) -> None:
    """Raise UnusableProfile for an image, loaded or not, whose profile `to_rgb` ignores."""
    if profile := profile_of(image):
        _transform(profile, base_mode(image.mode))


def profile_of(image: Image.Image) -> bytes | None:
    """The ICC profile of an image file, None for sRGB and where the file does not say.

    Where none is embedded, it is made from what else states the colors: EXIF's "R03" of cameras set to Adobe RGB (DCF
    2.0), cHRM and gAMA of a PNG without sRGB, and nclx of a HEIC.
    """
    info = image.info
    if profile := info.get("icc_profile") or (image.format == "JPEG2000" and _jp2_profile(image)):
        return profile
    gray = base_mode(image.mode) == "L"
    if "exif" in info and _says_adobe_rgb(image):
        return _display_profile(_ADOBE_RGB, (0, 563 / 256), gray=gray)
    if image.format == "PNG" and "srgb" not in info:
        gamma, primaries = 1 / (info.get("gamma") or 1 / 2.2), info.get("chromaticity") or _SRGB
        curve = _SRGB_CURVE if abs(gamma / 2.2 - 1) < 0.05 else (0, gamma)
        return _display_profile(primaries, curve, gray=gray)
    if nclx := info.get("nclx_profile"):
        if nclx["transfer_characteristics"] not in _SRGB_LIKE_TRANSFERS:
            return _UNUSABLE
        if nclx["color_primaries"] == _UNSPECIFIED:
            return None
        colors = ("white", "red", "green", "blue")
        primaries = tuple(nclx[f"color_primary_{color}_{axis}"] for color in colors for axis in "xy")
        return _display_profile(primaries, _SRGB_CURVE, gray=gray)
    return None


def _says_adobe_rgb(image: Image.Image) -> bool:
    try:
        return image.getexif().get_ifd(ExifTags.IFD.Interop).get(1) == "R03"
    except Exception:  # damaged EXIF says nothing
        return False


def _jp2_profile(image: Image.Image) -> bytes | None:
    """The profile in the header of a JPEG 2000 file, which Pillow does not read: a box "colr" of method 2 or 3."""
    with regular(Path(image.filename)).open("rb") as file:  # type: ignore[attr-defined]
        head = file.read(1 << 22).partition(b"jp2c")[0]
    start = max(head.find(b"colr\2"), head.find(b"colr\3"))
    return head[start + 7 : start - 4 + int.from_bytes(head[start - 4 : start], "big")] if start > 3 else None


def _display_profile(primaries: Chromaticities, curve: tuple[float, ...], *, gray: bool = False) -> bytes | None:
    """The ICC profile (version 4) of a display with these primaries; None for one like sRGB.

    curve: number of ICC's parametric function, and its parameters.
    """
    like_srgb = gray or max(abs(a - b) for a, b in zip(primaries, _SRGB, strict=True)) < _ALIKE
    if curve is _SRGB_CURVE and like_srgb:
        return None
    try:
        trc = struct.pack(">4s4xH2x", b"para", curve[0]) + _fixed(curve[1:])
        if gray:
            return _icc(b"GRAY", {b"kTRC": trc})
        names = (b"rXYZ", b"gXYZ", b"bXYZ")
        columns = {n: b"XYZ " + bytes(4) + _fixed(xyz) for n, xyz in zip(names, _columns(primaries), strict=True)}
    except (ArithmeticError, ValueError, struct.error):  # numbers that are no colors; LinAlgError is a ValueError
        return _UNUSABLE
    return _icc(b"RGB ", columns | {b"rTRC": trc, b"gTRC": trc, b"bTRC": trc})


def _columns(primaries: Chromaticities) -> np.ndarray:
    """(3, 3): XYZ of red, of green and of blue, adapted to D50 by Bradford's matrix, as ICC profiles hold them."""
    points = zip(primaries[::2], primaries[1::2], strict=True)
    white, *colors = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in points)
    matrix = np.stack(colors, 1)
    gains = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    matrix = matrix * np.linalg.solve(matrix, white)
    return (np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ matrix).T


def _fixed(values: Iterable[float]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _icc(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"wtpt": b"XYZ " + bytes(4) + _fixed(_D50), **tags}
    start, table, data = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value
    head = struct.pack(">I4xI4s4s4s12x4s28x", start + len(data), 0x04000000, b"mntr", space, b"XYZ ", b"acsp")
    return (head + _fixed(_D50)).ljust(128, b"\0") + table + data


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
