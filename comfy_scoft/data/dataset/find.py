"""The forms in which people keep images with words -> records, or the fault that stands in a record's place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...common.errors import UserError
from ..records import CultureRecord
from .images import EXTENSIONS
from .metadata import (
    MAX_TEXT,
    SPLIT_NAMES,
    MetadataLine,
    facts_of_name,
    facts_of_tags,
    locate,
    normal_category,
    normal_era,
    normal_split,
    parse_row,
)
from .rows import read_lines, read_rows, shown

METADATA = ("metadata.jsonl", "metadata.csv")
"""Where a folder says what it holds, as CCUB and as Hugging Face's image folders do; the first that is there counts."""

SPLITS = ("train", "test", "validation")
CAPTIONS = (".txt", ".caption")
"""The file beside an image that holds its caption; kohya's tools know both."""

_KOHYA = re.compile(r"(\d{1,3})_(.{1,200})", re.DOTALL)


class Note(str):
    """A sentence for the report that is no fault."""


Found = Iterator[CultureRecord | Note | UserError]


def find_records(root: Path) -> Found:
    """Every record of a folder, nothing filtered and no image opened. `root` must be a real path.

    The forms, in the folder itself and in sub-folders named after a split ("train", "test", "validation", "val", …):
    - `metadata.jsonl` or `metadata.csv`: the released CCUB form, and Hugging Face's image folders;
    - without one, images with a `.txt` or `.caption` file of the same name beside each;
    - of these also kohya's sub-folders `N_name`. As there, `name` is the caption of an image that has none. It also is
      the category where the image's own name tells none. `N`, how often an epoch repeats an image, changes nothing:
      a repeated record would count twice in every figure, and get its negatives twice.
    """
    try:
        yield from _find(root)
    except OSError as error:
        name = Path(error.filename or root).name
        yield UserError(f"{shown(name)} in {root.name} may not be read: give this user the right to read it.")


def _find(root: Path) -> Found:
    bases = _bases(root)
    with_metadata = [(base, name, split) for base, split in bases if (name := _metadata(base)) is not None]
    for base, name, split in with_metadata:
        yield from _from_metadata(base, name, split, root)
    if with_metadata:
        return
    for base, split in bases:
        for folder in (base, base / "images"):
            yield from _from_captions(folder, split, root)
        for folder, repeats, words in _kohya_folders(base):
            yield from _from_captions(folder, split, root, words)
            if repeats > 1:
                yield Note(
                    f"The folder {shown(folder.name)} asks for {repeats} repeats: each image counts once here, and "
                    "the number of training steps says how often it is seen."
                )


def _bases(root: Path) -> list[tuple[Path, str]]:
    """The folder itself and its sub-folders named after a split, each with that split's name."""
    known = {name: name for name in SPLITS} | SPLIT_NAMES
    named = [(root / name, split) for name, split in known.items()]
    return [(root, "train"), *((base, split) for base, split in named if base.is_dir())]


def _metadata(base: Path) -> str | None:
    return next((name for name in METADATA if (base / name).is_file()), None)


def _kohya_folders(base: Path) -> list[tuple[Path, int, str]]:
    """kohya's `10_hanbok` -> (folder, 10, "hanbok"), for the sub-folders of `base`, in natural order."""
    if not base.is_dir():
        return []
    found = [(path, match) for path in base.iterdir() if (match := _KOHYA.fullmatch(path.name)) and path.is_dir()]
    folders = [(path, int(match[1]), " ".join(match[2].replace("_", " ").split())) for path, match in found]
    return sorted(folders, key=lambda folder: _natural(folder[0]))


def _from_metadata(base: Path, name: str, split: str, root: Path) -> Found:
    label = (base / name).relative_to(root).as_posix()
    try:
        path = locate(label, (root,), root, label)
    except UserError as fault:
        yield fault
        return
    for where, values in read_rows(path, label):
        try:
            if isinstance(values, UserError):
                raise values
            yield _record(parse_row(values, where, MetadataLine), where, base, split, root)
        except UserError as fault:
            yield fault


def _record(line: MetadataLine, where: str, base: Path, split: str, root: Path) -> CultureRecord:
    bases = (base, root) if base != root else (root,)
    name = line.file_name.replace("\\", "/")
    if base == root and name.split("/")[0] in (*SPLITS, *SPLIT_NAMES):
        split = name.split("/")[0]  # one list for all splits, as image folders have it
    by_name, by_tags = facts_of_name(Path(name).stem), facts_of_tags(line.tags)
    return CultureRecord(
        image=locate(line.file_name, bases, root, where),
        caption=line.text,
        generic_captions=tuple(line.blip_text),
        culture=line.culture,
        place=line.place,
        category=normal_category(line.category) or by_tags[0] or by_name[0],
        era=normal_era(line.era, where) or by_tags[1] or by_name[1],
        split=normal_split(line.split or split, where),
        negatives=tuple(locate(name, bases, root, where) for name in line.negative_imgpath),
        depth=locate(line.depth, bases, root, where) if line.depth else None,
        source=line.source,
        collector=line.collector,
        licence=line.licence,
        consent=line.consent,
        verified_by=tuple(line.verified_by),
    )


def _from_captions(folder: Path, split: str, root: Path, kohya: str = "") -> Found:
    """Images of one folder with the text file of the same name beside each; `kohya`: the words of its folder's name."""
    if not folder.is_dir():
        return
    for image in sorted(folder.iterdir(), key=_natural):
        if image.suffix.lower() not in EXTENSIONS or image.name.startswith("."):
            continue
        where = f"The image {shown(image.name)}"
        try:
            words = _caption_beside(image, root) or kohya
            if not words:
                beside = shown(image.with_suffix(CAPTIONS[0]).name)
                raise UserError(f"{where} has no caption: write one into {beside} beside it.")
            path = locate(image.relative_to(root).as_posix(), (root,), root, where)
            category, era = _facts(image.stem, words, kohya)
            yield CultureRecord(path, words, category=category, era=era, split=split)
        except UserError as fault:
            yield fault


def _facts(stem: str, words: str, kohya: str) -> tuple[str, str]:
    """(category, era) by the image's name, else by a caption that is a list of tags, else by kohya's folder."""
    pieces: Sequence[str] = words.split(",")
    by_name, by_tags = facts_of_name(stem), facts_of_tags(pieces if len(pieces) > 1 else ())
    by_folder = facts_of_name(f"{kohya}_0")
    return (
        by_name[0] or by_tags[0] or by_folder[0] or normal_category(kohya),
        by_name[1] or by_tags[1] or by_folder[1],
    )


def _caption_beside(image: Path, root: Path) -> str:
    """The caption in the text file beside an image; "" when there is no file. Raises UserError for an empty one."""
    text = next((path for ending in CAPTIONS if (path := image.with_suffix(ending)).is_file()), None)
    if text is None:
        return ""
    label = text.relative_to(root).as_posix()
    words: list[str] = []
    length = 0
    for _, line in read_lines(locate(label, (root,), root, shown(label)), shown(label)):
        if isinstance(line, UserError):
            raise line
        words.append(line)
        length += len(line)
        if length > MAX_TEXT:
            raise UserError(f"The caption file {shown(text.name)} has more than {MAX_TEXT:,} characters: shorten it.")
    if not words:
        raise UserError(f"The caption file {shown(text.name)} is empty: write the image's caption into it.")
    return " ".join(words)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """FOOD_2 before FOOD_10."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d{1,18})", path.name)]


def holds_dataset(folder: Path) -> bool:
    """Whether a menu should offer the folder: it has metadata, or an image with a caption. Cheap."""
    try:
        bases = [base for base, _ in _bases(folder)]
        if any(_metadata(base) is not None for base in bases):
            return True
        places = [place for base in bases for place in (base, base / "images") if place.is_dir()]
        if any(_has_caption(path) for place in places for path in place.iterdir()):
            return True
        kohya = (place for base in bases for place, _, _ in _kohya_folders(base))
        return any(path.suffix.lower() in EXTENSIONS for place in kohya for path in place.iterdir())
    except OSError:
        return False


def _has_caption(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and any(path.with_suffix(ending).is_file() for ending in CAPTIONS)
