"""What fuzz.py feeds to the code: hostile values, rows, tables and images, each decided by a seeded generator."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

VALUES: list[Any] = [
    *("", " ", "good.png", "other/deep.png", "../secret.png", "link.png", "door/secret.png", "/etc/passwd", "a\0b"),
    *("C:\\secret.png", "\\\\host\\share\\x.png", "..\\secret.png", "x" * 3000, "y" * 20_000, "ñandú 🦙", "\ud800"),
    *("\u202e\x1b[0m", ".", "..", "good.png/x", "con", "NUL.png", "~", "$HOME", "%2e%2e/secret.png", "\\\\?\\C:\\x"),
    *("file:///etc/passwd", "train", "all", "modern", "FOOD", "a|b||c", "|" * 5000, '"', "'", '""', "=1+1", "http://x"),
    *("http://127.0.0.1/", "https://example.org/a.jpg", "//x", "javascript:1", "http://[::1", "http://" + "a." * 900),
    *(None, True, 0, -1, 5, 1e308, float("nan"), float("inf"), [], {}, ["good.png"], ["", None], [["x"]]),
    *({"a": {"b": []}}, ["x"] * 1500, "a\nb", "a\r\nb", "a\tb", ",", ";", "\ufeff", "\u2028", "٣", "²"),
]
KEYS = (
    "file_name text caption blip_text generic_captions negative_imgpath culture place category era tags split depth "
    "source collector licence license consent verified_by url link junk __class__ key model_config"
).split()
NAMES = [
    "a",
    "FOOD_1",
    "TRAD_FOOD_2",
    "mod-3",
    "٣_x",
    "²",
    "x" * 200,
    "a b",
    "ñ",
    "🦙",
    "-rf",
    "$(x)",
    "a.b.c",
    "_1",
    "%00",
]
FOLDERS = ["", "train", "val", "images", "10_hanbok", "1_food", "999_x", "0_ ", "10_" + "y" * 150, "train/5_trad_city"]


def mangled(rng: random.Random, raw: bytes, most: int = 3) -> bytes:
    """Bytes flipped, cut, doubled or inserted in a few places; half the time none."""
    data = bytearray(raw)
    for _ in range(rng.choice((0, 0, 0, 1, most))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
        elif kind == 1:
            del data[at : at + rng.randrange(40)]
        elif kind == 2:
            data[at:at] = data[max(0, at - rng.randrange(40)) : at]
        else:
            data[at:at] = rng.choice(
                (b'"', b"\\", b"{", b"[" * 2000, b"\xff\xfe", b"\0", b"\xef\xbb\xbf", b"\r", b"\n")
            )
    return bytes(data)


def values(rng: random.Random, good: dict[str, Any]) -> dict[str, Any]:
    row = dict(good) if rng.random() < 0.7 else {}
    for _ in range(rng.randrange(4)):
        row[rng.choice(KEYS)] = rng.choice(VALUES)
    return row


def json_line(rng: random.Random, good: dict[str, Any]) -> bytes:
    text = json.dumps(values(rng, good), ensure_ascii=rng.random() < 0.9)
    return mangled(rng, text.encode("utf-8", "surrogatepass")).replace(b"\n", b" ")


def csv_table(rng: random.Random, good: dict[str, Any], rows: int) -> bytes:
    """A table with a good head most of the time, and cells of anything."""
    columns = [*good, *rng.sample(KEYS, rng.randrange(8))]
    file = io.StringIO()
    writer = csv.writer(file, delimiter=rng.choice(",,,;\t"), lineterminator=rng.choice(("\n", "\r\n")))
    lines = []
    for number in range(rows + 1):
        row = values(rng, good)
        cells = columns if not number else [str(row.get(name, "")) for name in columns]
        writer.writerow(cells + ["", "more"][: rng.choice((0, 0, 0, 1, 2))])
        raw = file.getvalue().encode("utf-8", "surrogatepass")
        lines.append(raw if not number and rng.random() < 0.8 else mangled(rng, raw))
        file.seek(0)
        file.truncate()
    return b"".join(lines)


def images() -> list[bytes]:
    """A small file of each kind that is read, plain and peculiar."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    color = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    variants: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((color, kind, {}) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF")),
        (color.convert("P"), "PNG", {"transparency": 3}),
        (color.convert("RGBA"), "PNG", {"exif": exif}),
        (color.convert("CMYK"), "JPEG", {}),
        (color, "JPEG", {"progressive": True, "exif": exif}),
        (color.convert("1"), "BMP", {}),
        (Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257), "PNG", {}),
        (color, "GIF", {"save_all": True, "append_images": [color.rotate(90, expand=True)], "loop": 0}),
        (color, "WEBP", {"lossless": True, "exif": exif}),
    ]
    if "AVIF" in Image.SAVE:
        variants.append((color, "AVIF", {}))
    found = []
    for image, kind, options in variants:
        file = io.BytesIO()
        image.save(file, kind, **options)
        found.append(file.getvalue())
    return found


def bad_image(rng: random.Random, good: list[bytes]) -> bytes:
    raw = rng.choice(good)
    kind = rng.randrange(8)
    if kind == 0:
        return raw[: rng.randrange(len(raw) + 1)]
    if kind == 1:
        other = rng.choice(good)
        return raw[: rng.randrange(len(raw))] + other[rng.randrange(len(other)) :]
    if kind == 2 and raw.startswith(b"\x89PNG"):  # another size, with its checksum right
        sides = [rng.choice((0, 1, 13, 3000, 60_000, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
        head = b"IHDR" + struct.pack(">II", *sides) + raw[24:29]
        return raw[:12] + head + struct.pack(">I", zlib.crc32(head)) + raw[33:]
    data = bytearray(raw)
    for _ in range(rng.randrange(1, 8)):
        data[rng.randrange(min(len(data), rng.choice((32, 128, len(data)))))] = rng.randrange(256)
    return bytes(data) if kind < 7 else mangled(rng, bytes(data))
