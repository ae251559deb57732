"""A folder of a community's images -> a `Dataset` and a report of what was left out and why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...common.errors import ImageError, UserError
from ...common.files import recovered
from ...common.text import composed, printable
from ...models.text_encoder import WINDOW, is_long
from ..images import check_image
from ..records import CATEGORIES, CultureRecord, Dataset, counted
from .find import find_records
from .merge import one_record_each
from .metadata import normal_category
from .unused import Note, sentence
from .walk import METADATA, SPLITS

DATASET_PARTS = (*SPLITS, METADATA[0], "images", "negatives", "depth")
"""Top-level names that a saved dataset may contain."""

DECODED_AT_LOAD = 500
"""Up to this many images are decoded when a folder is loaded. Of more, only headers and checksums are read, and a
truncated JPEG is found on first use."""

SAME_ERRORS = 20
"""How many errors with the same remedy the report lists; it counts the others."""

NAMED_ERRORS = 3
"""How many sentences the error has when nothing could be loaded."""

_IGNORED_PROFILE = (
    "The color profile of {files} is damaged, of HDR or for another kind of image, and is ignored: if its colors look "
    "wrong, convert it to sRGB with an image program.",
    "The color profiles of {count} images are damaged, of HDR or for another kind of image, and are ignored: if their "
    "colors look wrong, convert them to sRGB with an image program ({files}).",
)

SAMPLED = "Of several captions of an image, training samples one at each use"
READ = "They are read in full, or cut if long_captions of Train LoRA says so."


@dataclass
class _LoadLog:
    """Records loaded and left out so far."""

    loaded: list[CultureRecord] = field(default_factory=list)
    errors: list[UserError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    filtered: int = 0

    def report(self) -> str:
        captions = [caption for record in self.loaded for caption in record.captions]
        lines = [f"{counted(self.loaded)} loaded, {len(self.errors)} left out"]
        if len(captions) > len(self.loaded):
            lines.append(SAMPLED)
        if long := sum(map(is_long, captions)):
            lines.append(f"Captions of more than {WINDOW} tokens: {long}. {READ}")
        splits = Counter(record.split for record in self.loaded)
        lines.append("Splits: " + ", ".join(f"{name} {count}" for name, count in splits.items()))
        negatives = sum(len(record.negatives) for record in self.loaded)
        generic = sum(bool(record.generic_captions) for record in self.loaded)
        lines.append(f"With generic captions: {generic}; negatives: {negatives}")
        if self.filtered:
            lines.append(f"Not asked for (another split or category, or beyond the limit): {self.filtered}")
        lines += self.notes
        if self.errors:
            lines += ["Left out:", *(f"- {line}" for line, _ in left_out(self.errors))]
        return "\n".join(lines)


def left_out(errors: Sequence[UserError]) -> list[tuple[str, int]]:
    """Sentences for a report, each with how many errors it stands for.

    Images with one remedy for all share a sentence. Of other errors with the same remedy, the part of the sentence
    after the colon, the first SAME_ERRORS have one each.
    """
    kinds: dict[str, list[UserError]] = {}
    for error in errors:
        kinds.setdefault(_kind(error), []).append(error)
    lines: list[tuple[str, int]] = []
    listed: Counter[str] = Counter()
    for error in errors:
        kind, number = _kind(error), len(kinds[_kind(error)])
        listed[kind] += 1
        if isinstance(error, ImageError) and error.of_many and number > 1:
            if listed[kind] == 1:
                files = [alike.file for alike in kinds[kind] if isinstance(alike, ImageError)]
                lines.append((sentence(("", error.of_many), files), number))
        elif listed[kind] <= SAME_ERRORS:
            lines.append((str(error), 1))
        elif listed[kind] == number:
            lines.append((f"{number - SAME_ERRORS:,} more to which the same applies: {kind}", number - SAME_ERRORS))
    return lines


def _kind(error: UserError) -> str:
    return (isinstance(error, ImageError) and error.of_many) or str(error).rpartition(": ")[2]


def load_folder(
    folder: Path,
    culture: str = "",
    place: str = "",
    categories: Sequence[str] = (),
    split: str = "all",
    limit: int = 0,
    *,
    strict: bool = False,
) -> tuple[Dataset, str]:
    """Load a folder in any layout that `find_records` supports: CCUB, ImageFolder, caption files, kohya.

    culture, place: defaults for records that state none.
    categories: keep only these (names or CCUB prefixes); empty keeps all. split: one split's name, or "all".
    limit: keep the first `limit` valid records; 0 keeps all.
    strict: raise on the first invalid record instead of leaving it out.
    Returns the dataset and a report whose first line is "38 images loaded, 2 left out", followed by one sentence for
    each row or image left out. Several rows of one image are one record with several captions. An invalid negative or
    depth map invalidates its record.
    Raises UserError if the folder is missing or empty, or nothing in it is valid and asked for.
    """
    if limit < 0:
        raise UserError(f"The limit is {limit}: give 0 for all records, or how many to load.")
    if not folder.is_dir():
        recovered(folder.parent)
    if not folder.is_dir():
        raise UserError(f"The folder {folder} does not exist: choose a folder with images and their captions.")
    root = folder.resolve()
    split, culture, place = composed(split).strip().lower(), composed(culture), composed(place)
    kept_categories = {normal_category(category).casefold() for category in categories if category.strip()}
    log, candidates = _LoadLog(), []
    for entry in one_record_each(find_records(root)):
        if isinstance(entry, CultureRecord):
            record = dataclasses.replace(entry, culture=entry.culture or culture, place=entry.place or place)
            in_categories = not kept_categories or record.category.casefold() in kept_categories
            if split in ("all", record.split) and in_categories:
                candidates.append(record)
            else:
                log.filtered += 1
        elif isinstance(entry, Note):
            log.notes.append(str(entry))
        elif strict:
            raise entry
        else:
            log.errors.append(entry)
    if not candidates and log.filtered and not log.errors:
        raise UserError(
            f"None of the {log.filtered} records of {root.name} is of the split and categories asked for: "
            "ask for others, or for all."
        )
    _check_images(candidates, root, log, limit, strict=strict)
    if not log.loaded:
        raise UserError(_nothing_loaded(root, log))
    return Dataset(root, tuple(log.loaded), printable(root.name)), log.report()


def _check_images(candidates: list[CultureRecord], root: Path, log: _LoadLog, limit: int, *, strict: bool) -> None:
    """Add the candidates whose files are valid to the log, up to the limit; each file is opened once."""
    number = sum(len(record.files()) for record in candidates[: limit or None])
    decode = number <= DECODED_AT_LOAD
    checked: dict[Path, UserError | None] = {}
    ignored: list[str] = []
    for position, record in enumerate(candidates):
        if limit and len(log.loaded) == limit:
            log.filtered += len(candidates) - position
            break
        for path in record.files():
            label = printable(path.relative_to(root).as_posix())
            if path not in checked:
                checked[path] = None
                try:
                    if check_image(path, decode=decode):
                        ignored.append(label)
                except ImageError as raised:
                    checked[path] = raised.about(label)
            if (error := checked[path]) is not None:
                if strict:
                    raise error
                log.errors.append(error)
                break
        else:
            log.loaded.append(record)
    if ignored:
        log.notes.append(sentence(_IGNORED_PROFILE, ignored))
    if not decode:
        log.notes.append(
            f"Of more than {DECODED_AT_LOAD} images only the headers are checked, so of these {number:,}: a truncated "
            "image is found when it is first used."
        )


def _nothing_loaded(root: Path, log: _LoadLog) -> str:
    found = left_out(log.errors)
    if len(found) < NAMED_ERRORS:  # what is not used may be where the captions are
        found += [(note, 1) for note in log.notes]
    if not found:
        return (
            f"The folder {root} holds no dataset: it was expected to hold a {METADATA[0]} with a line for each image, "
            "or images with a .txt caption of the same name beside each."
        )
    if len(found) == 1:
        return found[0][0]
    rest = sum(count for _, count in found[NAMED_ERRORS:])
    more = f"; and {rest} more" if rest else ""
    named = "; ".join(line.rstrip(".") for line, _ in found[:NAMED_ERRORS])
    return f"No record of {root.name} could be loaded: {named}{more}."


def counts(dataset: Dataset) -> dict[tuple[str, str], int]:
    """Number of records by (category, era), in CCUB's order of categories, others after them by name."""
    number = Counter((record.category, record.era) for record in dataset.records)
    return {key: number[key] for key in sorted(number, key=lambda key: ([*CATEGORIES, key[0]].index(key[0]), *key))}
