"""The folder that collected images live in: a dataset in CCUB's form, and a log of what came from where.

<folder>/metadata.jsonl        the dataset, as Load Dataset reads it; url, sha256 and fetched stand in each line
<folder>/images/00012_3f….jpg  row of the list and first digits of the SHA-256: no name from the net is ever used
<folder>/downloads.jsonl       one line for each image that arrived whole
<folder>/links_report.csv      what became of the rows that gave no image of their own
<folder>/.parts/               what is under way; emptied at every start
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ...common.errors import UserError
from ...common.files import file_hash, write_atomically
from ..dataset import open_image
from ..dataset.rows import read_lines
from .perceptual_hash import difference_hash

LOG, REPORT, PARTS = "downloads.jsonl", "links_report.csv", ".parts"
_OUR_NAME = re.compile(r"images/\d{5,}_[0-9a-f]{12}\.(png|jpg|gif|webp|avif|bmp)")


class DiskError(UserError):
    """The folder cannot be written to: the whole run ends."""


class Saved(BaseModel):
    """An image that arrived whole. file: its name in the folder; look: its difference hash, as hex digits.

    url: the link; origin: the address it came from after redirects; fetched: the time, UTC, ISO 8601.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    url: str
    origin: str
    file: str
    sha256: str
    bytes: int
    width: int
    height: int
    look: str
    fetched: str


class Store:
    """The folder of one list. Raises UserError for a folder that holds anything else, DiskError while writing."""

    def __init__(self, folder: Path, max_pixels: int) -> None:
        self.folder = folder
        self._max_pixels = max_pixels
        self.saved: dict[str, Saved] = {}
        """By link; only images that are there, whole."""

    def open(self, tick: Callable[[], None] = lambda: None) -> None:
        """Make the folder, or take stock of what an earlier run left in it; `tick` is called once an image."""
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            if not (self.folder / LOG).is_file():
                raise UserError(
                    f"The folder {self.folder.name!r} was not made by collecting links and holds other files: choose "
                    "another name."
                )
        try:
            (self.folder / "images").mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.folder / PARTS, ignore_errors=True)
            (self.folder / PARTS).mkdir(exist_ok=True)
            root = self.folder.resolve()
            for name in ("images", PARTS, LOG):
                if (self.folder / name).resolve() != root / name:
                    raise UserError(f"{name} in the folder {root.name!r} is a link: put the real one there instead.")
            (self.folder / LOG).open("ab").close()  # not touch(): the time of what stays as it is must stay too
        except OSError as error:
            raise _disk_error(self.folder) from error
        self._take_stock(tick)

    def _take_stock(self, tick: Callable[[], None]) -> None:
        """Believe a line of the log only when its file is there and holds what the line says."""
        for _, text in read_lines(self.folder / LOG, LOG):
            tick()
            try:
                found = Saved.model_validate_json(text) if isinstance(text, str) else None
            except ValidationError:
                continue  # the last line of a run that was killed while it wrote
            if found and _OUR_NAME.fullmatch(found.file) and not (self.folder / found.file).is_symlink():
                try:
                    whole = file_hash(self.folder / found.file) == found.sha256
                except ValueError:
                    whole = False
                if whole:
                    self.saved[found.url] = found

    def part(self, number: int) -> Path:
        """Where the bytes of a link go until they are known to be an image. The name is read in messages."""
        return self.folder / PARTS / f"of link {number}"

    def keep(self, number: int, url: str, origin: str) -> Saved:
        """Check that the part is an image, whole and of an allowed size, and give it its name; may take a second.

        Raises UserError with one sentence when it is not one.
        """
        part = self.part(number)
        image = open_image(part, self._max_pixels)
        digest = file_hash(part)
        with part.open("rb") as file:
            ending = ending_of(file.read(16))
        assert ending is not None
        name = f"images/{number:05d}_{digest[:12]}{ending}"
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        saved = Saved(
            url=url,
            origin=origin,
            file=name,
            sha256=digest,
            bytes=part.stat().st_size,
            width=image.width,
            height=image.height,
            look=difference_hash(image).hex(),
            fetched=now,
        )
        try:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, self.folder / name)
        except OSError as error:
            raise _disk_error(self.folder) from error
        return saved

    def enter(self, saved: Saved) -> None:
        """Add an image to the log. A line is on disk before the next one is begun."""
        try:
            with (self.folder / LOG).open("a+b") as file:
                if file.tell() and not _ends_with_newline(file):
                    file.write(b"\n")
                file.write(saved.model_dump_json().encode() + b"\n")
        except OSError as error:
            raise _disk_error(self.folder) from error
        self.saved[saved.url] = saved

    def write_metadata(self, lines: list[dict[str, Any]]) -> None:
        """The dataset's own list; untouched when nothing changes, so that nodes behind it need not run again."""
        self._write("metadata.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def write_report(self, text: str) -> None:
        """The table of rows without an image; no file when there is nothing to tell."""
        self._write(REPORT, text)

    def close(self) -> None:
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)

    def _write(self, name: str, text: str) -> None:
        path, data = self.folder / name, text.encode("utf-8")
        try:
            if not data:
                path.unlink(missing_ok=True)
            elif not path.is_file() or path.read_bytes() != data:
                write_atomically(path, data)
        except OSError as error:
            raise _disk_error(self.folder) from error


def ending_of(head: bytes) -> str | None:
    """The file ending that the first 16 bytes of an image stand for, None for anything else. A first look only."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if head.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return ".gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ".webp"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"mif1"):
        return ".avif"
    return ".bmp" if head.startswith(b"BM") else None


def open_part(path: Path) -> IO[bytes]:
    """A new part to write to. Raises DiskError."""
    try:
        return path.open("wb")
    except OSError as error:
        raise _disk_error(path.parent.parent) from error


def write_part(file: IO[bytes], chunk: bytes) -> None:
    """Add a chunk to a part. Raises DiskError."""
    try:
        file.write(chunk)
    except OSError as error:
        raise _disk_error(Path(file.name).parent.parent) from error


def _ends_with_newline(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _disk_error(folder: Path) -> DiskError:
    return DiskError(
        f"The folder {folder.name!r} cannot be written to: see whether the disk has room and this user may write there."
    )
