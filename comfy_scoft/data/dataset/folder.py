"""A folder of a community's images -> a `Dataset` and a report of what was left out and why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...common.errors import UserError
from ..records import CATEGORIES, CultureRecord, Dataset
from .find import METADATA, SPLITS, Note, find_records
from .images import check_image
from .metadata import normal_category

DATASET_PARTS = (*SPLITS, METADATA[0], "images", "negatives", "depth")
"""Everything a saved dataset may hold at its top."""

DECODED_AT_LOAD = 500
"""Up to this many images are decoded once when a folder is loaded; of more only headers and checksums are read,
and a cut JPEG is found on first use."""


@dataclass
class _Tally:
    """What became of the records of a folder."""

    loaded: list[CultureRecord] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed_over: int = 0

    def report(self) -> str:
        total = len(self.loaded) + len(self.faults)
        lines = [f"{len(self.loaded)} of {total} records loaded, {len(self.faults)} left out"]
        splits = Counter(record.split for record in self.loaded)
        lines.append("Splits: " + ", ".join(f"{name} {count}" for name, count in splits.items()))
        negatives = sum(len(record.negatives) for record in self.loaded)
        generic = sum(bool(record.generic_captions) for record in self.loaded)
        lines.append(f"With generic captions: {generic}; negatives: {negatives}")
        if self.passed_over:
            lines.append(f"Not asked for (another split or category, or beyond the limit): {self.passed_over}")
        lines += self.notes
        if self.faults:
            lines += ["Left out:", *(f"- {fault}" for fault in self.faults)]
        return "\n".join(lines)


def load_folder(
    folder: Path,
    culture: str = "",
    place: str = "",
    categories: Sequence[str] = (),
    split: str = "all",
    limit: int = 0,
    strict: bool = False,
) -> tuple[Dataset, str]:
    """Read a folder in any of the forms that `find_records` knows: CCUB's, an image folder, captions beside images.

    culture, place: for the records that state none.
    categories: keep only these (names or CCUB prefixes); none for all. split: one split's name, or "all".
    limit: keep the first that many good records; 0 for all.
    strict: raise on the first broken record; otherwise it is left out.
    Returns the dataset and a report whose first line is "38 of 40 records loaded, 2 left out", with one sentence
    for each record left out. A record with any fault (also in a negative or its depth map) is left out whole.
    Raises UserError with one sentence when the folder is missing or empty or nothing good and asked for is in it.
    """
    if limit < 0:
        raise UserError(f"The limit is {limit}: give 0 for all records, or how many to load.")
    if not folder.is_dir():
        raise UserError(f"The folder {folder} does not exist: choose a folder with images and their captions.")
    root = folder.resolve()
    split = split.strip().lower()
    wanted = {normal_category(category).casefold() for category in categories if category.strip()}
    tally, candidates = _Tally(), []
    for found in find_records(root):
        if isinstance(found, CultureRecord):
            found = dataclasses.replace(found, culture=found.culture or culture, place=found.place or place)
            if split in ("all", found.split) and (not wanted or found.category.casefold() in wanted):
                candidates.append(found)
            else:
                tally.passed_over += 1
        elif isinstance(found, Note):
            tally.notes.append(str(found))
        elif strict:
            raise found
        else:
            tally.faults.append(str(found))
    if not candidates and tally.passed_over and not tally.faults:
        raise UserError(
            f"None of the {tally.passed_over} records of {root.name} is of the split and categories asked for: "
            "ask for others, or for all."
        )
    _check_images(candidates, tally, limit, strict)
    if not tally.loaded:
        raise UserError(_nothing_good(root, tally.faults))
    return Dataset(root, tuple(tally.loaded), root.name), tally.report()


def _check_images(candidates: list[CultureRecord], tally: _Tally, limit: int, strict: bool) -> None:
    """Move the candidates whose files are whole into the tally, up to the limit; each file is opened once."""
    decode = sum(len(record.files()) for record in candidates[: limit or None]) <= DECODED_AT_LOAD
    verdicts: dict[Path, UserError | None] = {}
    for position, record in enumerate(candidates):
        if limit and len(tally.loaded) == limit:
            tally.passed_over += len(candidates) - position
            return
        try:
            for path in record.files():
                if path not in verdicts:
                    verdicts[path] = _verdict(path, decode)
                if (fault := verdicts[path]) is not None:
                    raise fault
        except UserError as fault:
            if strict:
                raise
            tally.faults.append(str(fault))
        else:
            tally.loaded.append(record)


def _verdict(path: Path, decode: bool) -> UserError | None:
    try:
        check_image(path, decode=decode)
    except UserError as fault:
        return fault
    return None


def _nothing_good(root: Path, faults: list[str]) -> str:
    if not faults:
        return (
            f"The folder {root} holds no dataset: it was expected to hold a {METADATA[0]} with a line for each image, "
            "or images with a .txt caption of the same name beside each."
        )
    if len(faults) == 1:
        return faults[0]
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return f"No record of {root.name} could be loaded: {'; '.join(f.rstrip('.') for f in faults[:3])}{more}."


def counts(dataset: Dataset) -> dict[tuple[str, str], int]:
    """How many records each (category, era) has, in CCUB's order of categories, others after them by name."""
    found = Counter((record.category, record.era) for record in dataset.records)

    def order(key: tuple[str, str]) -> tuple[int, str, str]:
        known = CATEGORIES.index(key[0]) if key[0] in CATEGORIES else len(CATEGORIES)
        return (known, *key)

    return {key: found[key] for key in sorted(found, key=order)}
