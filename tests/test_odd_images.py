"""Images as cameras, phones, scanners and programs leave them: each is read as it looks, or said to be what it is."""

from __future__ import annotations

import csv
import random
import re
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import odd_images
import pytest
import torch
from bad_data import noise, one_sentence
from odd_images import DISPLAY_P3, LFS_POINTER, WIDE, WIDE_AS_SRGB, Odd, exif, flat, stored
from PIL import Image

from comfy_scoft.common.errors import ImageError
from comfy_scoft.data.crop import aligned
from comfy_scoft.data.dataset import load_folder
from comfy_scoft.data.formats import EXTENSIONS, FORMATS, NOT_READ, decoders, format_of
from comfy_scoft.data.images import check_image, image_size, open_image, read_pixels
from comfy_scoft.data.records import CultureRecord


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> list[Odd]:
    return odd_images.corpus(tmp_path_factory.mktemp("odd"))


@pytest.fixture
def no_heif(monkeypatch):
    """A ComfyUI without pillow-heif."""
    monkeypatch.delitem(Image.OPEN, "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


def difference(image: Image.Image, odd: Odd) -> int:
    return max(
        abs(a - b) for place, color in odd.shows.items() for a, b in zip(image.getpixel(place), color, strict=True)
    )


def test_every_odd_image_is_read_as_what_it_shows(corpus):
    wrong = []
    for odd in corpus:
        image = open_image(odd.path)
        if image.mode != "RGB" or image.size != odd.size or difference(image, odd) > odd.within:
            wrong.append((odd.path.name, image.mode, image.size, [image.getpixel(place) for place in odd.shows]))
    assert len(corpus) > 130 and wrong == []


def test_every_odd_image_passes_the_check_and_tells_its_size_from_the_header(corpus):
    wrong = []
    for odd in corpus:
        ignored = check_image(odd.path), check_image(odd.path, decode=False)
        if ignored != (odd.ignored, odd.ignored) or image_size(odd.path) != odd.size:
            wrong.append((odd.path.name, ignored, image_size(odd.path)))
    assert wrong == []


def test_training_negatives_metrics_and_surveys_see_the_same_colors(tmp_path):
    flat(WIDE).save(tmp_path / "p3.png", icc_profile=DISPLAY_P3)
    flat(WIDE_AS_SRGB).save(tmp_path / "srgb.png")
    seen = [read_pixels(tmp_path / name) for name in ("p3.png", "srgb.png")]
    assert (seen[0] - seen[1]).abs().max() <= 1 / 127.5
    record = CultureRecord(tmp_path / "p3.png", "x", negatives=(tmp_path / "srgb.png",))
    pixels, negatives = aligned(record, 8, flip=False)
    assert (pixels - negatives[0]).abs().max() <= 1 / 127.5


def test_an_image_without_a_profile_or_with_srgbs_keeps_every_value(tmp_path):
    path = noise(tmp_path / "a.png", (64, 64))
    values = np.asarray(Image.open(path))
    Image.open(path).save(tmp_path / "b.png", icc_profile=odd_images.SRGB)
    for name in ("a.png", "b.png"):
        assert np.array_equal(np.asarray(open_image(tmp_path / name)), values)


def test_every_broken_file_is_said_to_be_what_it_is(tmp_path):
    wrong = []
    for path, words in odd_images.broken(tmp_path).items():
        for read in (check_image, open_image):
            with pytest.raises(ValueError) as error:
                read(path)
            if words not in one_sentence(error):
                wrong.append((path.name, str(error.value)))
    assert wrong == []


def test_every_decoder_of_pillow_is_allowed_or_left_out_on_purpose():
    """A new one must be looked at: does it run a program, open other files, or take any file for its own?"""
    left_out = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IMT", "IPTC", "MCIDAS", "MPEG", "SPIDER", "WMF", "XVTHUMB"}
    Image.init()
    assert set(Image.OPEN) - set(FORMATS) <= left_out | {"FPX", "MIC"}
    assert not left_out & set(FORMATS) and not EXTENSIONS & NOT_READ
    assert set(decoders("")) & {"TGA", "IM", "PCD"} == set() and "TGA" in decoders(".tga")
    registered = {ending for ending, name in Image.registered_extensions().items() if name in FORMATS}
    assert registered <= EXTENSIONS


def test_a_format_is_told_by_its_first_bytes(corpus):
    wrong = []
    for odd in corpus:
        with Image.open(odd.path, formats=decoders(odd.path.suffix.lower())) as image:
            form = {"MPO": "JPEG"}.get(image.format, image.format)
        if form not in ("TGA", "IM") and format_of(odd.path.read_bytes()[:64]) != form:
            wrong.append((odd.path.name, form))
    assert wrong == []


def test_heic_without_its_package_is_one_sentence_with_the_command(tmp_path, no_heif):
    for n in range(12):
        shutil.copy(_heic(tmp_path / "a.heic"), tmp_path / f"IMG_{n}.HEIC")
        (tmp_path / f"IMG_{n}.txt").write_text("words")
    noise(tmp_path / "good.jpg")
    (tmp_path / "good.txt").write_text("words")
    (tmp_path / "a.heic").unlink()
    dataset, report = load_folder(tmp_path)
    assert len(dataset) == 1 and report.startswith("1 image loaded, 12 left out")
    (line,) = [line for line in report.splitlines() if "HEIC" in line]
    assert line.startswith("- 12 images are HEIC photos, which need the package pillow-heif: run `python install.py")
    assert "IMG_0.HEIC, IMG_1.HEIC" in line and "and 2 more" in line
    with pytest.raises(ValueError, match=r"IMG_0\.HEIC is a HEIC photo, .*python install\.py pillow-heif") as error:
        open_image(tmp_path / "IMG_0.HEIC")
    one_sentence(error)


def _heic(path: Path) -> Path:
    stored(6).save(path, exif=exif(6), quality=100)
    return path


def test_a_profile_that_is_ignored_is_said_once(tmp_path):
    for n in range(3):
        flat(WIDE).save(tmp_path / f"{n}.png", icc_profile=odd_images.OF_CMYK if n else DISPLAY_P3)
        (tmp_path / f"{n}.txt").write_text("words")
    dataset, report = load_folder(tmp_path)
    assert [open_image(record.image).getpixel((0, 0)) for record in dataset.records] == [WIDE_AS_SRGB, WIDE, WIDE]
    (line,) = [line for line in report.splitlines() if "profile" in line]
    assert line.startswith("The color profiles of 2 images are damaged, of HDR or for another kind of image, and are")
    assert "(1.png, 2.png)" in line


def test_a_large_set_says_that_only_headers_were_checked(tmp_path, monkeypatch):
    for n in range(3):
        noise(tmp_path / f"{n}.png")
        (tmp_path / f"{n}.txt").write_text("words")
    assert "headers" not in load_folder(tmp_path)[1]
    monkeypatch.setattr("comfy_scoft.data.dataset.folder.DECODED_AT_LOAD", 2)
    assert "only the headers are checked, so of these 3: a truncated image is found" in load_folder(tmp_path)[1]


def test_the_reader_leaves_pillows_own_image_decoders_as_they_are(tmp_path):
    """Thumbnails inside a HEIC are not taken for the image when it is checked."""
    path = tmp_path / "a.heic"
    Image.fromarray(np.full((600, 800, 3), 200, np.uint8)).save(path, thumbnails=[64])
    assert check_image(path) is False and open_image(path).size == (800, 600)


THIRTY = [
    *(f"IMG_{n:04}.HEIC" for n in range(6)),
    *(f"IMG_{n:04}.JPG" for n in range(6, 10)),
    *(f"camera/DSC0{n}.jpg" for n in range(4)),
    "camera/DSC04.tif",
    *(f"food/soup/{n}.jpeg" for n in range(4)),
    "food/soup/scan.tiff",
    "食堂/김치찌개.png",
    "naïve café/crème brûlée.png",
    "web/saved.jfif",
    "web/photo.webp",
    "web/moving.gif",
    "web/picture.avif",
]
"""28 whole images; a pointer and a broken file make thirty."""


@pytest.mark.parametrize("apart", [False, True], ids=["captions beside", "a table from a spreadsheet"])
def test_a_folder_as_people_have_it_is_used_or_named_file_by_file(tmp_path, apart):
    """From a phone, a camera, a Mac's zip and a spreadsheet."""
    root, captions = tmp_path / "our photos", {}
    for n, name in enumerate([*THIRTY, "camera/pointer.jpg", "food/half.jpg"]):
        path = root / unicodedata.normalize("NFD", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        more = {"icc_profile": DISPLAY_P3} if n % 2 else {}
        if path.suffix == ".HEIC":
            stored(6).save(path, exif=exif(6), quality=100, **more)
        else:
            flat(WIDE).save(path, **{".jfif": {"format": "JPEG"}}.get(path.suffix, {}), **more)
        captions[name] = f"words; of {name}"
        if not apart:
            path.with_suffix(".TXT" if n % 3 else ".txt").write_text(captions[name], encoding="utf-8-sig")
    if apart:
        with (root / "metadata.csv").open("w", encoding="utf-8-sig", newline="") as file:
            table = csv.writer(file, delimiter=";")
            table.writerow(["File name", "Caption", "Place"])
            table.writerows([name.replace("/", "\\"), caption, "Korea"] for name, caption in captions.items())
    (root / "camera/pointer.jpg").write_bytes(LFS_POINTER)
    half = noise(root / "food/half.jpg", (300, 200))
    half.write_bytes(half.read_bytes()[:9000])
    silent = [".DS_Store", "._IMG_0006.JPG", "__MACOSX/._IMG_0006.JPG", "camera/Thumbs.db", ".git/a.jpg", "desktop.ini"]
    unused = {
        "camera/DSC05.NEF": b"MM\0*",
        "camera/DSC06": (root / "camera/DSC00.jpg").read_bytes(),
        "food/uncaptioned.png": (root / "IMG_0006.JPG").read_bytes(),
        "notes.docx": b"PK\3\4",
        "clip.MOV": b"\0\0\0\x14ftypqt  ",
        "alone.txt": b"whose?",
    }
    for name in (*silent, *unused):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(unused.get(name, b"x"))
    dataset, report = load_folder(root)
    loaded = {unicodedata.normalize("NFC", r.image.relative_to(root).as_posix()): r for r in dataset.records}
    assert set(loaded) == set(THIRTY)
    assert all(record.caption == captions[name] for name, record in loaded.items())
    assert all(open_image(record.image).size in ((32, 16), (16, 32)) for record in dataset.records)
    color = open_image(loaded["IMG_0007.JPG"].image).getpixel((5, 5))
    assert max(abs(a - b) for a, b in zip(color, WIDE_AS_SRGB, strict=True)) <= 4
    assert "git lfs pull" in report and "camera/pointer.jpg" in report
    assert "food/half.jpg is truncated or damaged" in report
    assert [name for name in unused if name not in report] == []
    assert not any(Path(name).name in report for name in silent if name != "._IMG_0006.JPG" and "a.jpg" not in name)
    read = {path for record in dataset.records for path in record.files()}
    named = {path for path in root.rglob("*") if path.is_file() and path.relative_to(root).as_posix() in report}
    left = [p for p in root.rglob("*") if p.is_file() and p not in read | named and p.suffix.lower() != ".txt"]
    assert {p.relative_to(root).as_posix() for p in left} <= {*silent, "metadata.csv"}


def test_damaged_copies_of_odd_images_are_images_or_errors_of_one_sentence(corpus, tmp_path):
    rng = random.Random(0)  # noqa: S311
    for odd in corpus:
        data = bytearray(odd.path.read_bytes())
        for _ in range(4):
            data[rng.randrange(min(len(data), 200))] = rng.choice((0, 127, 255))
        path = tmp_path / f"a{odd.path.suffix}"
        path.write_bytes(data[: rng.choice((len(data), len(data) // 2))])
        for read in (check_image, image_size, open_image):
            try:
                read(path)
            except ImageError as error:
                one_sentence(error)


def test_the_reader_is_the_only_place_that_opens_images():
    """But for the mini world's own sheet of art."""
    pack = Path(__file__).resolve().parent.parent / "comfy_scoft"
    calls = re.compile(r"\bImage\.open\(|imread|read_image\(|decode_image|pil_loader")
    opening = [p.relative_to(pack).as_posix() for p in pack.rglob("*.py") if calls.search(p.read_text("utf-8"))]
    assert sorted(opening) == ["data/images.py", "mini_world/world.py"]


def test_the_same_folder_gives_the_same_pixels_whatever_it_was_saved_as(tmp_path):
    """One image in each lossless form."""
    values = np.random.default_rng(1).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    image, seen = Image.fromarray(values), {}
    for name in ("a.png", "a.bmp", "a.tif", "a.ppm", "a.tga", "a.qoi", "a.pcx", "a.sgi", "a.dds"):
        image.save(tmp_path / name)
        seen[name] = read_pixels(tmp_path / name)
    image.save(tmp_path / "a.webp", lossless=True)
    image.save(tmp_path / "a.jp2", irreversible=False)
    seen |= {name: read_pixels(tmp_path / name) for name in ("a.webp", "a.jp2")}
    assert [name for name, pixels in seen.items() if not torch.equal(pixels, seen["a.png"])] == []
