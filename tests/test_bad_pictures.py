"""Images that are cut, huge, or none: found when they are read, and told in one sentence."""

import struct
import zlib

import pytest
from bad_data import GOOD, cut, load_with, noise
from PIL import ImageFile

from comfy_scoft.data.images import open_image


def giant_png(path, width, height):
    """A valid header of the given size with hardly any data behind it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


@pytest.fixture
def folder(tmp_path):
    """A good record and room for a bad one."""
    noise(tmp_path / "set/good.png")
    return tmp_path / "set"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
@pytest.mark.parametrize("tolerant", [False, True])
def test_a_truncated_image_is_found_at_load_and_on_use(folder, monkeypatch, suffix, tolerant):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    path = cut(folder / f"cut.{suffix}")
    fault = load_with(folder, GOOD | {"file_name": path.name})[0]
    with pytest.raises(ValueError) as error:
        open_image(path)
    assert str(error.value) == fault
    assert f"cut.{suffix} is truncated or damaged" in fault or "is not an image" in fault
    assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant


def test_a_truncated_negative_leaves_its_record_out(folder):
    cut(folder / "n.png")
    noise(folder / "other.png")
    assert (
        "n.png is truncated" in load_with(folder, GOOD | {"file_name": "other.png", "negative_imgpath": ["n.png"]})[0]
    )


def test_an_image_bomb_is_refused_before_it_is_decoded(folder, monkeypatch):
    large, load = [], ImageFile.ImageFile.load

    def noted(image):
        large.append(max(image.size) > 4000)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", noted)
    noise(folder / "other.png")
    for width, height in ((8000, 8000), (12_000, 12_000), (60_000, 60_000)):
        path = giant_png(folder / "bomb.png", width, height)
        (fault,) = load_with(folder, GOOD | {"file_name": "other.png", "depth": path.name})
        assert "bomb.png has more than the allowed 50 million pixels" in fault
        with pytest.raises(ValueError, match="million pixels"):
            open_image(path)
    assert large and not any(large), "the good image alone is decoded"


def test_the_limit_of_pixels_is_the_callers(folder):
    assert open_image(folder / "good.png", max_pixels=1200).size == (40, 30)
    with pytest.raises(ValueError, match="more than the allowed 0.001199 million pixels"):
        open_image(folder / "good.png", max_pixels=1199)


def test_a_compressed_text_bomb_in_a_png_is_refused(folder):
    data = b"Comment\0\0" + zlib.compress(bytes(80_000_000))
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    raw = (folder / "good.png").read_bytes()
    (folder / "text.png").write_bytes(raw[:33] + chunk + raw[33:])
    load_with(folder, GOOD | {"file_name": "text.png"})


def test_a_file_that_is_no_picture_is_refused_whatever_its_name(folder):
    (folder / "page.jpg").write_text("<html>")
    (folder / "empty.png").write_bytes(b"")
    (folder / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    lines = [GOOD | {"file_name": name} for name in ("page.jpg", "empty.png", "script.png", "metadata.jsonl")]
    assert all("is not an image" in fault for fault in load_with(folder, *lines))
