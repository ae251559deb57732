"""Image files as cameras, phones, scanners and programs write them, each with the pixels that it shows.

`corpus(folder)` writes them; `broken(folder)` writes files that are no images, or half of one. Profiles, PNGs of
unusual depths and a lossless JPEG are made from bytes, because Pillow writes none of them.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()

Color = tuple[int, int, int]
SIZE = (32, 16)
"""Width and height of the images."""

WIDE, WIDE_AS_SRGB = (200, 120, 90), (213, 115, 83)
"""A color in Display P3, and the same in sRGB (by the primaries of both, D65 and sRGB's curve)."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize 12345\n"


@dataclass(frozen=True)
class Odd:
    """A file and what `open_image` must give of it: the size, and colors at places, each channel within `within`."""

    path: Path
    shows: dict[tuple[int, int], Color]
    within: int = 0
    size: tuple[int, int] = SIZE
    ignored: bool = False


def _tag(kind: bytes, data: bytes) -> bytes:
    return kind + bytes(4) + data


def _fixed(values: Iterable[float]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def adapted(primaries: Sequence[tuple[float, float]]) -> np.ndarray:
    """Columns XYZ of red, green and blue of a D65 color space, adapted to D50 (Bradford) as ICC profiles hold them."""

    def upright(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1.0, (1 - x - y) / y])

    columns, white = np.stack([upright(*xy) for xy in primaries], 1), upright(0.3127, 0.3290)
    columns = columns * np.linalg.solve(columns, white)
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gains = (cones @ np.array([0.9642, 1.0, 0.8249])) / (cones @ white)
    return np.linalg.inv(cones) @ np.diag(gains) @ cones @ columns


def profile(space: bytes, curve: bytes, columns: np.ndarray | None = None, name: str = "test") -> bytes:
    """An ICC profile, version 2.4, of a display: b"RGB " with columns as `adapted` gives them, or b"GRAY"."""
    title = name.encode() + b"\0"
    tags = [(b"desc", _tag(b"desc", struct.pack(">I", len(title)) + title + bytes(78)))]
    tags.append((b"wtpt", _tag(b"XYZ ", _fixed((0.9642, 1.0, 0.8249)))))
    if columns is not None:
        tags += [(b"rgb"[i : i + 1] + b"XYZ", _tag(b"XYZ ", _fixed(columns[:, i]))) for i in range(3)]
        tags += [(b"rgb"[i : i + 1] + b"TRC", curve) for i in range(3)]
    else:
        tags.append((b"kTRC", curve))
    table, data, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for key, value in tags:
        table += key + struct.pack(">II", start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    head = struct.pack(">I4xI4s4s4s", start + len(data), 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed((0.9642, 1.0, 0.8249))
    return head.ljust(128, b"\0") + table + data


def gamma(value: float) -> bytes:
    return _tag(b"curv", struct.pack(">IH", 1, round(value * 256)) + bytes(2))


SRGB_CURVE = _tag(b"para", struct.pack(">H2x", 3) + _fixed((2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
DISPLAY_P3 = profile(b"RGB ", SRGB_CURVE, adapted([(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)]), "Display P3")
ADOBE_RGB = profile(b"RGB ", gamma(2.2), adapted([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)]), "Adobe RGB (1998)")
SRGB = profile(b"RGB ", SRGB_CURVE, adapted([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)]), "sRGB")
GRAY_18 = profile(b"GRAY", gamma(1.8), name="Gray gamma 1.8")
OF_CMYK = profile(b"GRAY", gamma(1.8)).replace(b"GRAY", b"CMYK", 1)


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG of any bit depth and color type. rows: packed samples without filter bytes."""
    stride = len(rows) // height
    raw = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(height))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)), *more]
    chunks += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    data = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(data)


def lossless_jpeg(gray: np.ndarray) -> bytes:
    """A lossless JPEG (SOF3, first predictor, 8 bits) of a gray image (H, W): none is decoded at a reduced size."""
    height, width = gray.shape
    values = gray.astype(int)
    before = np.empty_like(values)
    before[:, 1:], before[1:, 0], before[0, 0] = values[:, :-1], values[:-1, 0], 128
    bits = []
    for difference in (values - before).ravel().tolist():
        length = abs(difference).bit_length()
        bits.append(f"{length:04b}")  # nine codes of four bits: the lengths 0 to 8 in their order
        if length:
            bits.append(f"{difference if difference > 0 else difference + (1 << length) - 1:0{length}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    body = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)).replace(b"\xff", b"\xff\0")
    table = bytes([0, 0, 0, 0, 9]) + bytes(12) + bytes(range(9))
    segments = [
        (0xC3, struct.pack(">BHHB3B", 8, height, width, 1, 1, 0x11, 0)),
        (0xC4, table),
        (0xDA, bytes([1, 1, 0, 1, 0, 0])),
    ]
    marked = [b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data for marker, data in segments]
    return b"\xff\xd8" + b"".join(marked) + body + b"\xff\xd9"


def bmp(bits: int, compression: int, pixels: bytes, palette: bytes = b"", masks: bytes = b"", *, top: int = 1) -> bytes:
    """A BMP of SIZE with the header of Windows 3. top: -1 for one whose first row is the upper one."""
    header = struct.pack("<IiiHHIIiiII", 40, SIZE[0], SIZE[1] * top, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    start = 14 + len(header) + len(masks) + len(palette)
    return b"BM" + struct.pack("<I4xI", start + len(pixels), start) + header + masks + palette + pixels


def psd(bits: int, planes: bytes) -> bytes:
    """A Photoshop file of SIZE without layers. planes: red, green and blue one after the other."""
    header = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, SIZE[1], SIZE[0], bits, 3)
    return header + bytes(12) + bytes(2) + planes


def flat(color: object, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, SIZE, color)  # type: ignore[arg-type]


def marked() -> Image.Image:
    """Black, the upper left quarter red: told apart in all eight orientations with a green dot beside it."""
    array = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    array[: SIZE[1] // 2, : SIZE[0] // 2] = (255, 0, 0)
    array[: SIZE[1] // 2, SIZE[0] // 2 :] = (0, 255, 0)
    return Image.fromarray(array)


def stored(orientation: int) -> Image.Image:
    """The marked image as a camera stores it that writes this EXIF orientation."""
    turns = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turn = turns[orientation]
    return marked() if turn is None else marked().transpose(turn)


MARKED: dict[tuple[int, int], Color] = {(4, 4): (255, 0, 0), (27, 4): (0, 255, 0), (4, 12): (0, 0, 0)}


def exif(orientation: int) -> bytes:
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


def exif_of_adobe_rgb(index: bytes = b"R03\0") -> bytes:
    """What a camera set to Adobe RGB writes: color space "uncalibrated" and an interoperability index, no profile."""
    more = struct.pack("<HHHII", 2, 0xA001, 3, 1, 65535) + struct.pack("<HHIII", 0xA005, 4, 1, 56, 0)
    head = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 26, 0)
    return head + more + struct.pack("<HHHI4sI", 1, 1, 2, 4, index, 0)


def chunk(kind: bytes, *values: float) -> tuple[bytes, bytes]:
    """A PNG's chunk gAMA or cHRM."""
    return kind, struct.pack(f">{len(values)}I", *(round(value * 100_000) for value in values))


def with_profile(jp2: bytes, icc: bytes) -> bytes:
    """A JPEG 2000 file with a profile in place of the name of its color space."""
    at, header = jp2.index(b"colr") - 4, jp2.index(b"jp2h") - 4
    old = int.from_bytes(jp2[at : at + 4], "big")
    box = struct.pack(">I4s3B", len(icc) + 11, b"colr", 2, 0, 0) + icc
    size = int.from_bytes(jp2[header : header + 4], "big") + len(box) - old
    return jp2[:header] + struct.pack(">I", size) + jp2[header + 4 : at] + box + jp2[at + old :]


def corpus(folder: Path) -> list[Odd]:
    """Write the files; each has the name of what is odd about it."""
    folder.mkdir(parents=True, exist_ok=True)
    colors = (*_profiles(folder), *_colors_without_profile(folder))
    return [*_depths(folder), *colors, *_orientations(folder), *_kinds(folder), *_bmps(folder)]


class _Writer:
    """Writes files and keeps what they show."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.odd: list[Odd] = []

    def add(self, name: str, data: bytes | Image.Image, color: Color | dict, within: int = 0, **more) -> None:
        path, keys = self.folder / name, ("size", "ignored")
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            data.save(path, **{key: value for key, value in more.items() if key not in keys})
        shows = color if isinstance(color, dict) else {(3, 3): color, (SIZE[0] - 4, SIZE[1] - 4): color}
        self.odd.append(Odd(path, shows, within, **{key: value for key, value in more.items() if key in keys}))


def _depths(folder: Path) -> list[Odd]:
    """Bits, channels, palettes and transparency."""
    write, number = _Writer(folder), SIZE[0] * SIZE[1]
    gray16 = (128 * 257).to_bytes(2, "big")
    write.add("gray-16.png", png(*SIZE, 16, 0, gray16 * number), (128, 128, 128))
    write.add("gray-16-clear.png", png(*SIZE, 16, 0, gray16 * number, (b"tRNS", gray16)), (255, 255, 255))
    write.add("gray-16-dark.png", png(*SIZE, 16, 0, b"\0\xff" * number), (1, 1, 1))
    write.add("rgb-16.png", png(*SIZE, 16, 2, bytes([200, 200, 120, 120, 90, 90]) * number), (200, 120, 90))
    clear = bytes([200, 200, 120, 120, 90, 90])
    write.add("rgb-16-clear.png", png(*SIZE, 16, 2, clear * number, (b"tRNS", clear)), (255, 255, 255))
    write.add("rgba-16.png", png(*SIZE, 16, 6, (clear + bytes(2)) * number), (255, 255, 255))
    write.add("gray-alpha-16.png", png(*SIZE, 16, 4, (gray16 + b"\xff\xff") * number), (128, 128, 128))
    write.add("gray-2.png", png(*SIZE, 2, 0, bytes([0b10101010]) * (number // 4)), (170, 170, 170))
    write.add("gray-4.png", png(*SIZE, 4, 0, bytes([0x77]) * (number // 2)), (119, 119, 119))
    write.add("gray-1.png", flat(1, "1"), (255, 255, 255))
    write.add("gray-alpha.png", flat((100, 255), "LA"), (100, 100, 100))
    write.add("gray-alpha-half.png", flat((100, 128), "LA"), (177, 177, 177), 1)
    write.add("rgba-clear.png", flat((255, 0, 0, 0), "RGBA"), (255, 255, 255))
    write.add("gray-clear.png", png(*SIZE, 8, 0, bytes([7]) * number, (b"tRNS", b"\0\7")), (255, 255, 255))
    colors = (b"PLTE", bytes([10, 20, 30, 40, 50, 60]))
    write.add("palette.png", png(*SIZE, 8, 3, b"\1" * number, colors), (40, 50, 60))
    write.add("palette-clear.png", png(*SIZE, 8, 3, b"\1" * number, colors, (b"tRNS", b"\xff\0")), (255, 255, 255))
    write.add("palette-half.png", png(*SIZE, 8, 3, b"\1" * number, colors, (b"tRNS", b"\xff\x80")), (147, 152, 157), 1)
    write.add("cmyk.jpg", flat((0, 255, 255, 0), "CMYK"), (255, 0, 0), 2, quality=100)
    write.add("cmyk.tif", flat((0, 255, 255, 0), "CMYK"), (255, 0, 0))
    write.add("gray-16.tif", Image.fromarray(np.full(SIZE[::-1], 128 * 257, np.uint16)), (128, 128, 128))
    write.add("float.tif", Image.fromarray(np.full(SIZE[::-1], 0.5, np.float32)), (128, 128, 128))
    write.add("float-255.tif", Image.fromarray(np.full(SIZE[::-1], 77.0, np.float32)), (77, 77, 77))
    above = np.full(SIZE[::-1], 0.5, np.float32)
    above[8, 8] = 1.0005
    write.add("float-above-1.tif", Image.fromarray(above), (128, 128, 128))
    file = io.BytesIO()
    Image.fromarray(np.full(SIZE[::-1], 55 * 257, np.uint16)).save(file, "TIFF")
    from_black, from_white = (struct.pack("<HHIHH", 0x0106, 3, 1, value, 0) for value in (1, 0))
    assert from_black in file.getvalue()
    write.add("gray-16-from-white.tif", file.getvalue().replace(from_black, from_white), (200, 200, 200))
    write.add("fax.tif", flat(1, "1"), (255, 255, 255), compression="group4")
    write.add("lab.tif", flat((137, 128, 128), "LAB"), (128, 128, 128), 1)
    write.add("ycbcr.tif", flat((100, 128, 128), "YCbCr"), (100, 100, 100), 1)
    return write.odd


def _profiles(folder: Path) -> list[Odd]:
    write = _Writer(folder)
    for name in ("p3.png", "p3.jpg", "p3.webp", "p3.tif", "p3.avif", "p3.heic"):
        within = {"p3.png": 1, "p3.tif": 1}.get(name, 4)
        more = {"quality": 100} if within == 4 else {}
        write.add(name, flat(WIDE), WIDE_AS_SRGB, within, icc_profile=DISPLAY_P3, **more)
    write.add("p3-palette.png", flat(WIDE).quantize(4), WIDE_AS_SRGB, 1, icc_profile=DISPLAY_P3)
    write.add("p3-alpha.png", flat((*WIDE, 255), "RGBA"), WIDE_AS_SRGB, 1, icc_profile=DISPLAY_P3)
    write.add("p3-clear.png", flat((*WIDE, 0), "RGBA"), (255, 255, 255), icc_profile=DISPLAY_P3)
    write.add("p3-turned.jpg", stored(6), MARKED | {(4, 4): (255, 0, 0)}, 2, icc_profile=DISPLAY_P3, exif=exif(6))
    write.add("adobe.jpg", flat(WIDE), (224, 121, 88), 2, icc_profile=ADOBE_RGB, quality=100)
    write.add("srgb.png", flat(WIDE), WIDE, icc_profile=SRGB)
    write.add("gray-profile.png", flat(100, "L"), (119, 119, 119), 1, icc_profile=GRAY_18)
    write.add("gray-alpha-profile.png", flat((100, 255), "LA"), (119, 119, 119), 1, icc_profile=GRAY_18)
    write.add("cmyk-profile.jpg", flat(WIDE), WIDE, 2, icc_profile=OF_CMYK, quality=100, ignored=True)
    write.add("cmyk-profile.png", flat(WIDE), WIDE, icc_profile=OF_CMYK, ignored=True)
    write.add("gray-profile-rgb.png", flat(WIDE), WIDE, icc_profile=GRAY_18, ignored=True)
    write.add("half-a-profile.png", flat(WIDE), WIDE, icc_profile=DISPLAY_P3[:200], ignored=True)
    write.add("no-profile-at-all.png", flat(WIDE), WIDE, icc_profile=b"sRGB", ignored=True)
    return write.odd


def _colors_without_profile(folder: Path) -> list[Odd]:
    """Files that state their colors otherwise than by an ICC profile."""
    write, number = _Writer(folder), SIZE[0] * SIZE[1]
    white, srgb = (0.3127, 0.3290), (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
    p3 = chunk(b"cHRM", *white, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    usual, old_mac, linear = (chunk(b"gAMA", value) for value in (0.45455, 0.55556, 1.0))

    def add_png(name: str, color: Color, *chunks: tuple[bytes, bytes], **more) -> None:
        write.add(name, png(*SIZE, 8, 2, bytes(WIDE) * number, *chunks), color, 1, **more)

    add_png("chrm-p3.png", WIDE_AS_SRGB, p3, usual)
    add_png("chrm-srgb.png", WIDE, chunk(b"cHRM", *white, *srgb), usual)
    add_png("gama-mac.png", (210, 139, 109), old_mac)
    add_png("gama-linear.png", (229, 182, 160), linear)
    add_png("srgb-chunk.png", WIDE, (b"sRGB", b"\0"), linear, p3)
    add_png("gama-zero.png", WIDE, chunk(b"gAMA", 0))
    add_png("gama-tiny.png", WIDE, chunk(b"gAMA", 0.00001), ignored=True)
    add_png("chrm-zero.png", WIDE, chunk(b"cHRM", *[0] * 8), ignored=True)
    write.add("gama-gray.png", png(*SIZE, 8, 0, bytes([100]) * number, old_mac), (119, 119, 119), 1)
    write.add("gama-gray-16.png", png(*SIZE, 16, 0, bytes([55, 55]) * number, linear), (128, 128, 128), 1)
    adobe = (224, 121, 88)
    write.add("camera-adobe.jpg", flat(WIDE), adobe, 2, quality=100, exif=exif_of_adobe_rgb())
    write.add("camera-adobe.heic", flat(WIDE), adobe, 4, quality=100, exif=exif_of_adobe_rgb())
    write.add("camera-srgb.jpg", flat(WIDE), WIDE, 2, quality=100, exif=exif_of_adobe_rgb(b"R98\0"))
    both = {"quality": 100, "exif": exif_of_adobe_rgb(), "icc_profile": DISPLAY_P3}
    write.add("camera-both.jpg", flat(WIDE), WIDE_AS_SRGB, 2, **both)
    write.add("camera-gray.jpg", flat(100, "L"), (100, 100, 100), 2, quality=100, exif=exif_of_adobe_rgb())
    for name, color, primaries, transfer in (
        ("p3", WIDE_AS_SRGB, 12, 13),
        ("unspecified", WIDE, 2, 2),
        ("tv", WIDE, 6, 6),
        ("hdr", WIDE, 9, 16),
    ):
        colors = {"color_primaries": primaries, "transfer_characteristics": transfer, "matrix_coefficients": 6}
        write.add(f"nclx-{name}.heic", flat(WIDE), color, 4, ignored=name == "hdr", quality=100, **colors)
    file = io.BytesIO()
    flat(WIDE).save(file, "JPEG2000", irreversible=False)
    write.add("p3.jp2", with_profile(file.getvalue(), DISPLAY_P3), WIDE_AS_SRGB, 1)
    return write.odd


def _orientations(folder: Path) -> list[Odd]:
    write = _Writer(folder)
    for n in range(1, 9):
        for ending, within in (("jpg", 12), ("png", 0), ("webp", 12), ("tif", 0), ("avif", 12)):
            more = {"lossless": True} if ending == "webp" else {} if within == 0 else {"quality": 100, "subsampling": 0}
            more = {"quality": 100, "subsampling": "4:4:4"} if ending == "avif" else more
            write.add(f"turned-{n}.{ending}", stored(n), MARKED, within, exif=exif(n), **more)
        write.add(f"turned-{n}.heic", stored(n), MARKED, 12, exif=exif(n), quality=100, chroma=444)
    no_number = exif(6).replace(struct.pack(">HHI", 0x0112, 3, 1), struct.pack(">HHI", 0x0112, 2, 4))
    write.add("turned-nowhere.png", marked(), MARKED, exif=no_number)
    return write.odd


def _kinds(folder: Path) -> list[Odd]:
    """Formats and endings."""
    write, red = _Writer(folder), (200, 20, 30)
    for name in ("a.tif", "a.tiff", "a.bmp", "a.dib", "a.ppm", "a.tga", "a.pcx", "a.sgi", "a.qoi", "a.dds", "a.im"):
        write.add(name, flat(red), red)
    write.add("a.jp2", flat(red), red)
    write.add("lzw.tif", flat(red), red, compression="tiff_lzw")
    write.add("deflate.tif", flat(red), red, compression="tiff_adobe_deflate")
    write.add("a.pgm", flat(77, "L"), (77, 77, 77))
    write.add("a.pbm", flat(1, "1"), (255, 255, 255))
    write.add("a.pfm", Image.fromarray(np.full(SIZE[::-1], 1.0, np.float32)), (255, 255, 255))
    write.add("a.xbm", flat(1, "1"), (255, 255, 255))
    write.add("a.ico", flat(red), {(3, 3): red}, sizes=[(32, 16)])
    write.add("a.icns", Image.new("RGB", (32, 32), red), {(3, 3): red}, size=(1024, 1024))
    write.add("a.psd", psd(8, b"".join(bytes([value]) * (SIZE[0] * SIZE[1]) for value in red)), red)
    for ending in ("jpg", "jpeg", "jpe", "jfif"):
        write.add(f"b.{ending}", flat(red), red, 2, format="JPEG", quality=100)
    write.add("jpeg-named.png", flat(red), red, 2, format="JPEG", quality=100)
    write.add("png-named.jpg", flat(red), red, format="PNG")
    write.add("SHOUTED.PNG", flat(red), red)
    write.add("progressive.jpg", flat(red), red, 2, progressive=True, quality=100)
    write.add("a.avif", flat(red), red, 4, quality=100)
    write.add("alpha.avif", flat((*red, 0), "RGBA"), (255, 255, 255), 2)
    write.add("a.heic", flat(red), red, 4, quality=100)
    write.add("a.hif", flat(red), red, 4, format="HEIF", quality=100)
    write.add("alpha.heic", flat((*red, 0), "RGBA"), (255, 255, 255), 4, quality=100)
    frames = {"save_all": True, "append_images": [flat((0, 0, 255)), flat((0, 255, 0))]}
    for name, within in (
        ("moving.gif", 0),
        ("moving.png", 0),
        ("moving.webp", 8),
        ("moving.avif", 8),
        ("pages.tif", 0),
    ):
        write.add(name, flat(red), red, within, **frames)
    write.add("moving.heic", flat(red), red, 6, quality=100, **frames)
    write.add("two.mpo", flat(red), red, 4, quality=100, **frames)
    write.add("lossless.jpg", lossless_jpeg(np.full(SIZE[::-1], 99, np.uint8)), (99, 99, 99))
    steps = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE[::-1])
    write.add("lossless-steps.jpg", lossless_jpeg(steps), {(5, 0): (5, 5, 5), (5, 9): (37, 37, 37)})
    return write.odd


def _bmps(folder: Path) -> list[Odd]:
    """BMPs that few programs write and Windows shows."""
    write, number = _Writer(folder), SIZE[0] * SIZE[1]
    palette = bytes([30, 20, 10, 0, 60, 50, 40, 0]) + bytes(4 * 14)
    write.add("top-down.bmp", bmp(24, 0, bytes([30, 20, 200]) * number, top=-1), (200, 20, 30))
    write.add("rgb555.bmp", bmp(16, 0, struct.pack("<H", 31 << 10) * number), (255, 0, 0))
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    write.add("rgb565.bmp", bmp(16, 3, struct.pack("<H", 63 << 5) * number, masks=masks), (0, 255, 0))
    write.add("rgbx.bmp", bmp(32, 0, bytes([30, 20, 200, 0]) * number), (200, 20, 30))
    write.add("4-bit.bmp", bmp(4, 0, bytes([0x11]) * (number // 2), palette), (40, 50, 60))
    line = bytes([SIZE[0], 1, 0, 0])
    write.add("rle8.bmp", bmp(8, 1, line * SIZE[1] + b"\0\1", palette + bytes(4 * 240)), (40, 50, 60))
    write.add("rle4.bmp", bmp(4, 2, bytes([SIZE[0], 0x11, 0, 0]) * SIZE[1] + b"\0\1", palette), (40, 50, 60))
    core = struct.pack("<IHHHH", 12, *SIZE, 1, 24)
    os2 = b"BM" + struct.pack("<I4xI", 26 + 3 * number, 26) + core + bytes([30, 20, 200]) * number
    write.add("os2.bmp", os2, (200, 20, 30))
    return write.odd


def broken(folder: Path) -> dict[Path, str]:
    """Files that cannot be read, and what the error must say of each."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))

    def half(name: str) -> bytes:
        data = io.BytesIO()
        noise.save(data, {"jpg": "JPEG", "tif": "TIFF", "heic": "HEIF", "jp2": "JPEG2000"}.get(name, name.upper()))
        return data.getvalue()[: int(len(data.getvalue()) * 0.6)]

    thumbnail = io.BytesIO()
    noise.save(thumbnail, "TIFF", tiffinfo={0x00FE: 1})
    files = {
        "pointer.jpg": (LFS_POINTER, "git lfs pull"),
        "annex.png": (b"/annex/objects/SHA256E-s12--aa.png\n", "git annex get"),
        "zero.jpg": (b"", "is not an image but empty"),
        "note.jpg": (b"see the other folder", "is not an image and was expected to be"),
        "page.jpg": (b"<!DOCTYPE html><html></html>", "is not an image but a web page"),
        "drawing.png": (b'<?xml version="1.0"?><svg></svg>', "but a drawing or a document"),
        "program.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "a drawing or a document"),
        "new.jpg": (b"\xff\x0a" + bytes(90), "JPEG XL"),
        "film.jpg": (b"\0\0\0\x20ftypisom" + bytes(90), "but a film"),
        "raw.tif": (thumbnail.getvalue(), "a camera's raw photo"),
        "inner.bmp": (bmp(24, 4, half("jpg")), "is a kind of BMP that is not read"),
        "two-bits.bmp": (bmp(2, 0, bytes(128), bytes(16)), "is a kind of BMP that is not read"),
        "deep.psd": (psd(16, bytes(6 * SIZE[0] * SIZE[1])), "begins as PSD, but is truncated"),
        **{
            f"half.{ending}": (half(ending), "truncated or damaged")
            for ending in ("png", "jpg", "webp", "bmp", "gif", "tif", "avif", "heic", "jp2", "tga", "ppm", "qoi")
        },
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {folder / name: words for name, (_, words) in files.items()}
