"""The folder of downloaded images: a dataset in CCUB's layout, and a log of where each image came from.

<folder>/metadata.jsonl        the dataset, for Load Dataset; each line also has url, sha256 and fetched
<folder>/images/00012_3f….jpg  row of the list and first digits of the SHA-256; names from the web are never used
<folder>/downloads.jsonl       one line for each complete image
<folder>/links_report.csv      the rows that gave no image of their own, and why
<folder>/.parts/               downloads in progress; emptied at every start
"""

from __future__ import annotations

import datetime
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ...common.errors import UserError
from ...common.files import (
    append_line,
    disk_errors,
    file_hash,
    make_folder,
    publish_file,
    regular,
    sync_file,
    write_atomically,
)
from ..dataset.rows import read_lines
from ..dataset.walk import DOWNLOADS, LINKS_REPORT
from ..formats import EXTENSIONS, FORMATS, HEAD, format_of
from ..images import open_image
from .perceptual_hash import difference_hash

LOG, REPORT, PARTS = DOWNLOADS, LINKS_REPORT, ".parts"
_OUR_NAME = re.compile(rf"images/\d{{5,}}_[0-9a-f]{{12}}({'|'.join(map(re.escape, sorted(EXTENSIONS)))})")


class SavedImage(BaseModel):
    """A line of the log: one complete image. file: relative to the folder; look: its difference hash, hexadecimal.

    url: the link; origin: the URL after redirects; fetched: the time, UTC, ISO 8601.
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
    """The folder of one list. Raises UserError for a folder with other content, and DiskError while writing."""

    def __init__(self, folder: Path, max_pixels: int) -> None:
        self.folder = folder
        self._max_pixels = max_pixels
        self.saved: dict[str, SavedImage] = {}
        """By link; only images that exist and are complete."""

    def open(self, tick: Callable[[], None] = lambda: None) -> None:
        """Create the folder, or read what an earlier run left in it; `tick` is called once for each logged image."""
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            if not (self.folder / LOG).is_file():
                raise UserError(
                    f"The folder {self.folder.name!r} was not made by collecting links and holds other files: choose "
                    "another name."
                )
        with self.writing():
            make_folder(self.folder / "images")
            shutil.rmtree(self.folder / PARTS, ignore_errors=True)
            (self.folder / PARTS).mkdir(exist_ok=True)
            root = self.folder.resolve()
            for name in ("images", PARTS, LOG):
                if (self.folder / name).resolve() != root / name:
                    raise UserError(f"{name} in the folder {root.name!r} is a link: put the real one there instead.")
            (self.folder / LOG).open("ab").close()  # not touch(), which would change the time of an existing file
        self._read_log(tick)

    def _read_log(self, tick: Callable[[], None]) -> None:
        """Accept a line of the log only if its file exists and has the hash in the line."""
        for _, text in read_lines(self.folder / LOG, LOG):
            tick()
            try:
                image = SavedImage.model_validate_json(text) if isinstance(text, str) else None
            except ValidationError:
                continue  # the last line of a run that was killed while writing it
            if image and _OUR_NAME.fullmatch(image.file) and not (self.folder / image.file).is_symlink():
                try:
                    complete = file_hash(self.folder / image.file) == image.sha256
                except UserError:
                    complete = False
                if complete:
                    self.saved[image.url] = image

    def part(self, number: int) -> Path:
        """The temporary file of a link. Its name appears in messages."""
        return self.folder / PARTS / f"of link {number}"

    def accept(self, number: int, url: str, origin: str) -> SavedImage:
        """Check that the temporary file is a complete image of an allowed size, and move it to its final name.

        May take a second. Raises UserError if it is not one.
        """
        part = self.part(number)
        image = open_image(part, self._max_pixels)
        digest = file_hash(part)
        with regular(part).open("rb") as file:
            form = format_of(file.read(HEAD))
        assert form is not None
        name = f"images/{number:05d}_{digest[:12]}{FORMATS[form].split()[0]}"
        saved = SavedImage(
            url=url,
            origin=origin,
            file=name,
            sha256=digest,
            bytes=part.stat().st_size,
            width=image.width,
            height=image.height,
            look=difference_hash(image).hex(),
            fetched=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        )
        with self.writing():
            publish_file(part, self.folder / name)
        return saved

    def log(self, saved: SavedImage) -> None:
        """Append an image to the log; each line is complete before the next one is begun."""
        with self.writing():
            append_line(self.folder / LOG, saved.model_dump_json().encode())
        self.saved[saved.url] = saved

    def close(self) -> None:
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)

    def writing(self) -> AbstractContextManager[None]:
        """Within it, an OSError is a DiskError, which ends the run."""
        return disk_errors(f"The folder {self.folder.name!r} cannot be written to")

    def write(self, name: str, text: str) -> None:
        """Write a file whole; "" removes it. An equal file is left alone, so that later nodes need not run again.

        The log is on the disk before it.
        """
        path, data = self.folder / name, text.encode("utf-8")
        with self.writing():
            sync_file(self.folder / LOG)
            if not data:
                path.unlink(missing_ok=True)
            elif not path.is_file() or regular(path).read_bytes() != data:
                write_atomically(path, data)
