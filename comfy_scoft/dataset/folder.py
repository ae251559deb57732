"""A folder of a community's pictures -> a `Dataset` and a report of what was left out and why."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..records import CATEGORIES, CultureRecord, Dataset
from .images import EXTENSIONS, check_image
from .metadata import (
    category_of_name,
    locate,
    normal_category,
    normal_era,
    normal_split,
    parse_line,
    read_lines,
    shown,
)

METADATA = "metadata.jsonl"
SPLITS = ("train", "test", "validation")
DATASET_PARTS = (*SPLITS, METADATA, "images", "negatives", "depth")
"""Everything a saved dataset may hold at its top."""

DECODED_AT_LOAD = 500
"""Up to this many pictures are decoded once when a folder is loaded; of more only headers and checksums are read,
and a cut JPEG is found on first use."""

Found = Iterator["CultureRecord | ValueError"]


@dataclass
class _Tally:
    """What became of the records of a folder."""

    loaded: list[CultureRecord] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
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
    """Read `metadata.jsonl` (in the folder or in its train, test, validation folders), else images with `.txt`.

    culture, place: for the records that state none.
    categories: keep only these (names or CCUB prefixes); none for all. split: one split's name, or "all".
    limit: keep the first that many good records; 0 for all.
    strict: raise on the first broken record; otherwise it is left out.
    Returns the dataset and a report whose first line is "38 of 40 records loaded, 2 left out", with one sentence
    for each record left out. A record with any fault (also in a negative or its depth map) is left out whole.
    Raises ValueError with one sentence when the folder is missing or empty or nothing good and asked for is in it.
    """
    if limit < 0:
        raise ValueError(f"The limit is {limit}: give 0 for all records, or how many to load.")
    if not folder.is_dir():
        raise ValueError(f"The folder {folder} does not exist: choose a folder with images and their captions.")
    root = folder.resolve()
    split = split.strip().lower()
    wanted = {normal_category(category).casefold() for category in categories if category.strip()}
    tally, candidates = _Tally(), []
    for found in _readable(_find(root), root):
        if isinstance(found, CultureRecord):
            found = dataclasses.replace(found, culture=found.culture or culture, place=found.place or place)
            if split in ("all", found.split) and (not wanted or found.category.casefold() in wanted):
                candidates.append(found)
            else:
                tally.passed_over += 1
        elif strict:
            raise found
        else:
            tally.faults.append(str(found))
    if not candidates and tally.passed_over and not tally.faults:
        raise ValueError(
            f"None of the {tally.passed_over} records of {root.name} is of the split and categories asked for: "
            "ask for others, or for all."
        )
    _check_pictures(candidates, tally, limit, strict)
    if not tally.loaded:
        raise ValueError(_nothing_good(root, tally.faults))
    return Dataset(root, tuple(tally.loaded), root.name), tally.report()


def _check_pictures(candidates: list[CultureRecord], tally: _Tally, limit: int, strict: bool) -> None:
    """Move the candidates whose files are whole into the tally, up to the limit; each file is opened once."""
    decode = sum(len(record.files()) for record in candidates[: limit or None]) <= DECODED_AT_LOAD
    verdicts: dict[Path, ValueError | None] = {}
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
        except ValueError as fault:
            if strict:
                raise
            tally.faults.append(str(fault))
        else:
            tally.loaded.append(record)


def _verdict(path: Path, decode: bool) -> ValueError | None:
    try:
        check_image(path, decode=decode)
    except ValueError as fault:
        return fault
    return None


def _nothing_good(root: Path, faults: list[str]) -> str:
    if not faults:
        return (
            f"The folder {root} holds no dataset: it was expected to hold a {METADATA} with a line for each image, "
            "or images with a .txt caption of the same name beside each."
        )
    if len(faults) == 1:
        return faults[0]
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return f"No record of {root.name} could be loaded: {'; '.join(f.rstrip('.') for f in faults[:3])}{more}."


def _find(root: Path) -> Found:
    """Every record of the folder, unfiltered, or the fault that stands in its place."""
    places = [(root, "train"), *((root / name, name) for name in SPLITS)]
    with_metadata = [(base, split) for base, split in places if (base / METADATA).is_file()]
    for base, split in with_metadata:
        yield from _from_metadata(base, split, root)
    if not with_metadata:
        for base, split in places:
            for folder in (base, base / "images"):
                yield from _from_captions(folder, split, root)


def _readable(found: Found, root: Path) -> Found:
    try:
        yield from found
    except OSError as error:
        name = Path(error.filename or root).name
        yield ValueError(f"{shown(name)} in {root.name} may not be read: give this user the right to read it.")


def _from_metadata(base: Path, split: str, root: Path) -> Found:
    label = (base / METADATA).relative_to(root).as_posix()
    try:
        path = locate(label, (root,), root, label)
    except ValueError as fault:
        yield fault
        return
    for where, text in read_lines(path, label):
        try:
            if isinstance(text, ValueError):
                raise text
            yield _record(text, where, base, split, root)
        except ValueError as fault:
            yield fault


def _record(text: str, where: str, base: Path, split: str, root: Path) -> CultureRecord:
    line = parse_line(text, where)
    bases = (base, root) if base != root else (root,)
    return CultureRecord(
        image=locate(line.file_name, bases, root, where),
        caption=line.text,
        generic_captions=tuple(line.blip_text),
        culture=line.culture,
        place=line.place,
        category=normal_category(line.category) or category_of_name(Path(line.file_name.replace("\\", "/")).stem),
        era=normal_era(line.era, where),
        split=normal_split(line.split or split, where),
        negatives=tuple(locate(name, bases, root, where) for name in line.negative_imgpath),
        depth=locate(line.depth, bases, root, where) if line.depth else None,
        source=line.source,
        collector=line.collector,
        licence=line.licence,
        consent=line.consent,
        verified_by=tuple(line.verified_by),
    )


def _from_captions(folder: Path, split: str, root: Path) -> Found:
    """Images of one folder with the text file of the same name beside each."""
    if not folder.is_dir():
        return
    for image in sorted(folder.iterdir(), key=_natural):
        if image.suffix.lower() not in EXTENSIONS or image.name.startswith("."):
            continue
        where = f"The image {shown(image.name)}"
        try:
            words = _caption_beside(image, root)
            path = locate(image.relative_to(root).as_posix(), (root,), root, where)
            yield CultureRecord(path, words, category=category_of_name(image.stem), split=split)
        except ValueError as fault:
            yield fault


def _caption_beside(image: Path, root: Path) -> str:
    text = image.with_suffix(".txt")
    if not text.is_file():
        raise ValueError(f"The image {shown(image.name)} has no caption: write one into {shown(text.name)} beside it.")
    label = text.relative_to(root).as_posix()
    words = []
    for _, line in read_lines(locate(label, (root,), root, shown(label)), shown(label)):
        if isinstance(line, ValueError):
            raise line
        words.append(line)
    if not words:
        raise ValueError(f"The caption file {shown(text.name)} is empty: write the image's caption into it.")
    return " ".join(words)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """FOOD_2 before FOOD_10."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d{1,18})", path.name)]


def holds_dataset(folder: Path) -> bool:
    """Whether a menu should offer the folder: it has a `metadata.jsonl` or an image with a caption. Cheap."""
    try:
        if any((base / METADATA).is_file() for base in (folder, *(folder / name for name in SPLITS))):
            return True
        places = [folder, *(folder / name for name in SPLITS)]
        return any(
            path.suffix.lower() in EXTENSIONS and path.with_suffix(".txt").is_file()
            for base in [*places, *(base / "images" for base in places)]
            if base.is_dir()
            for path in base.iterdir()
        )
    except OSError:
        return False


def counts(dataset: Dataset) -> dict[tuple[str, str], int]:
    """How many records each (category, era) has, in CCUB's order of categories, others after them by name."""
    found = Counter((record.category, record.era) for record in dataset.records)

    def order(key: tuple[str, str]) -> tuple[int, str, str]:
        known = CATEGORIES.index(key[0]) if key[0] in CATEGORIES else len(CATEGORIES)
        return (known, *key)

    return {key: found[key] for key in sorted(found, key=order)}
