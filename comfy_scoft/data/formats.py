"""The image formats that are read, and what a file is that is not one of them."""

from __future__ import annotations

import re
import struct

from PIL import Image

FORMATS = {
    "PNG": ".png .apng",
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "WEBP": ".webp",
    "HEIF": ".heic .heif .hif .heics .heifs",
    "AVIF": ".avif .avifs",
    "TIFF": ".tif .tiff",
    "GIF": ".gif",
    "BMP": ".bmp",
    "DIB": ".dib",
    "JPEG2000": ".jp2 .j2k .j2c .jpc .jpf .jpx",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "TGA": ".tga .icb .vda .vst",
    "PSD": ".psd",
    "QOI": ".qoi",
    "ICO": ".ico",
    "CUR": ".cur",
    "ICNS": ".icns",
    "DDS": ".dds",
    "PCX": ".pcx",
    "DCX": ".dcx",
    "PCD": ".pcd",
    "SGI": ".sgi .rgb .rgba .bw",
    "SUN": ".ras",
    "XBM": ".xbm",
    "XPM": ".xpm",
    "IM": ".im",
    "MSP": ".msp",
    "PIXAR": ".pxr",
    "FLI": ".fli .flc",
    "BLP": ".blp",
    "FTEX": ".ftc .ftu",
    "GBR": ".gbr",
}
"""Pillow's name of a format -> the endings of its files, the usual one first.

These are the formats that Pillow decodes by itself from the file's own bytes, and HEIF by pillow-heif. Left out are
those that run another program (EPS: Ghostscript) or the system's renderer (WMF, EMF), that open another format inside
(IPTC, FPX, MIC), that Pillow only recognizes (BUFR, GRIB, HDF5, MPEG), and measurements whose numbers are no colors
(FITS, McIDAS, SPIDER). MPO, several JPEGs in one file, is opened as JPEG.
"""

EXTENSIONS = frozenset(" ".join(FORMATS.values()).split())
"""Endings, in lower case, of the file names that count as images. The decoder is chosen by content."""

READABLE = "a PNG, JPEG, WebP, HEIC, AVIF, TIFF, GIF, BMP or another image that Pillow reads"

NOT_READ = frozenset(
    ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .raf .orf .rw2 .pef .srw .x3f .3fr .iiq .erf .kdc .mrw .gpr "
    ".jxl .jxr .wdp .hdr .exr .bpg .flif .xcf .kra .ora .afphoto .psb .ai .eps .ps .pdf .svg .svgz .wmf .emf .cdr "
    ".djvu .fits .fit .webm .mp4 .mov .avi .mkv .m4v .3gp".split()
)
"""Endings of raw photos, drawings, documents and films: what people take for images and nothing here reads."""

HEAD = 64
"""How many bytes of a file's beginning tell its format."""


def decoders(ending: str) -> list[str]:
    """Pillow's names of the decoders to try on a file of this ending, in lower case.

    Those without a signature would take other files for theirs: they are tried on files of their own ending only.
    """
    _register()
    known = [name for name in FORMATS if name in Image.OPEN]
    return [name for name in known if Image.OPEN[name][1] is not None or ending in FORMATS[name].split()]


def reads_heif() -> bool:
    """Whether pillow-heif is there."""
    return "HEIF" in decoders(".heic")


def _register() -> None:
    Image.init()
    if "HEIF" not in Image.OPEN:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            return
        register_heif_opener()


def format_of(head: bytes) -> str | None:
    """The key of FORMATS that a file's first bytes announce, None for anything else. A quick check, not validation."""
    if head[4:8] == b"ftyp":
        brands = [head[i : i + 4] for i in (8, *range(16, min(len(head), int.from_bytes(head[:4], "big")) - 3, 4))]
        if any(brand in (b"avif", b"avis") for brand in brands):
            return "AVIF"
        return "HEIF" if any(brand[:3] in (b"hei", b"hev") or brand in (b"mif1", b"msf1") for brand in brands) else None
    _register()
    for name in FORMATS:
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        try:
            if accept is not None and accept(head[:16]) is True:
                return name
        except (IndexError, struct.error):  # of a file shorter than what the decoder looks at
            continue
    return None


_OTHERS = (
    (rb"$", "but empty (0 bytes): copy it again"),
    (rb"version https://git-lfs\.github\.com/", "but a Git LFS pointer: download the real file with git lfs pull"),
    (rb"(\.\./)*\.?/?(git/)?annex/objects/", "but a git-annex pointer: download the real file with git annex get"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "that is read here but a JPEG XL: save it as PNG or JPEG"),
    (rb"\s*(<!doctype html|<html|<head|<body)", "but a web page: download the image itself"),
    (rb"%!PS|\xc5\xd0\xd3\xc6|%PDF|(\xef\xbb\xbf)?\s*(<\?xml|<svg)", "but a drawing or a document: export it as PNG"),
    (rb"FUJIFILM|IIRO|IIRS|MMOR|IIU\0|\0MRM|FOVb|.{4}ftypcrx", "but a camera's raw photo: export it as JPEG or TIFF"),
    (rb".{4}(ftyp|moov|mdat)|\x1aE\xdf\xa3|RIFF.{4}AVI ", "but a film: export single images from it"),
)


def why_no_image(head: bytes) -> str:
    """How the sentence "The file … is not an image" goes on, for a file that begins with these bytes."""
    for pattern, what in _OTHERS:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return what
    return f"and was expected to be {READABLE}: replace it or remove it"
