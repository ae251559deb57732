"""Records of a community's images, and a dataset of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CATEGORIES = (
    "architecture",
    "city",
    "clothing",
    "dance music & visual arts",
    "food & drink",
    "nature",
    "people & action",
    "religion & festival",
    "utensils & tools",
)
"""The nine categories of CCUB (SCoFT, section 3). Communities may use others; these are the ones the tables know."""

ERAS = ("traditional", "modern", "")
"""CCUB's second axis; the empty string stands for "not said"."""


@dataclass(frozen=True)
class CultureRecord:
    """One image of a culture with its words, its negatives, and where it comes from.

    image: absolute path, already checked to be inside the dataset's folder and to be an image.
    caption: the cultural caption `c`, written by a member of the community.
    generic_captions: captions `c_b` of the same image by a general captioner, any number.
    era: "traditional", "modern" or "".
    negatives: absolute paths of images `x⁻` with the same structure and the base model's own idea of the place.
    depth: absolute path of the depth map the negatives were made from.
    source, collector, license, consent, verified_by: provenance, free text.
    """

    image: Path
    caption: str
    generic_captions: tuple[str, ...] = ()
    culture: str = ""
    place: str = ""
    category: str = ""
    era: str = ""
    split: str = "train"
    negatives: tuple[Path, ...] = ()
    depth: Path | None = None
    source: str = ""
    collector: str = ""
    licence: str = ""
    consent: str = ""
    verified_by: tuple[str, ...] = ()

    def files(self) -> tuple[Path, ...]:
        """Every file the record points to: the image, its negatives, and its depth map if it has one."""
        return (self.image, *self.negatives) + ((self.depth,) if self.depth is not None else ())


@dataclass(frozen=True)
class Dataset:
    """Records and the folder they live in. Immutable: every change gives a new one."""

    root: Path
    records: tuple[CultureRecord, ...]
    name: str

    def __len__(self) -> int:
        return len(self.records)

    def replace(self, records: Iterable[CultureRecord]) -> Dataset:
        """The same dataset with other records."""
        return dataclasses.replace(self, records=tuple(records))

    def split(self, name: str) -> Dataset:
        """The records of one split ("train", "test", ...), or all of them for "all". May be empty."""
        if name == "all":
            return self
        return self.replace(record for record in self.records if record.split == name)

    def without(self, other: Dataset) -> Dataset:
        """The records whose image is none of the other's. May be empty."""
        own = {record.image for record in other.records}
        return self.replace(record for record in self.records if record.image not in own)

    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) over the words of every record and the name, size and time of every file.

        It changes when a file or a caption does, and costs one `stat` a file: no image is read. Moving the whole
        folder does not change it. A file that has gone missing counts as such.
        """
        digest = hashlib.sha256()
        for record in self.records:
            facts = {
                field.name: getattr(record, field.name)
                for field in dataclasses.fields(record)
                if field.name not in ("image", "negatives", "depth")
            }
            facts["files"] = {
                "image": self._facts(record.image),
                "negatives": [self._facts(path) for path in record.negatives],
                "depth": self._facts(record.depth) if record.depth is not None else None,
            }
            digest.update(json.dumps(facts, sort_keys=True).encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def identity(self) -> str:
        """SHA-256 (16 hex digits) over what training reads: captions, and the bytes of images and negatives.

        Unlike `fingerprint`, a copied or rewritten file of the same bytes is the same.
        """
        from ..common.fingerprints import of_files

        digest = hashlib.sha256()
        for record in self.records:
            words = [record.caption, list(record.generic_captions), of_files((record.image, *record.negatives))]
            digest.update(json.dumps(words).encode() + b"\n")
        return digest.hexdigest()[:16]

    def _facts(self, path: Path) -> list[str | int]:
        """Name relative to the root, bytes, and time of change in milliseconds."""
        name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()
        try:
            stat = path.stat()
        except OSError:
            return [name, -1, -1]
        return [name, stat.st_size, stat.st_mtime_ns // 1_000_000]
