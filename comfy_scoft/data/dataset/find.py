"""The folder layouts that hold captioned images -> records, or for each broken record its error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...common.errors import UserError
from ..images import EXTENSIONS
from ..records import CultureRecord
from .metadata import (
    MAX_TEXT,
    SPLIT_NAMES,
    MetadataRow,
    category_and_era_of_name,
    category_and_era_of_tags,
    locate,
    normal_category,
    normal_era,
    normal_split,
    parse_row,
)
from .rows import printable, read_lines, read_rows

METADATA = ("metadata.jsonl", "metadata.csv")
"""Metadata file names of CCUB and of Hugging Face's ImageFolder; the first that exists is used."""

SPLITS = ("train", "test", "validation")
CAPTION_ENDINGS = (".txt", ".caption")
"""Endings of the caption file beside an image, as in kohya's sd-scripts."""

_KOHYA = re.compile(r"(\d{1,3})_(.{1,200})", re.DOTALL)


class Note(str):
    """A sentence for the report that is not an error."""


Entries = Iterator[CultureRecord | Note | UserError]


def find_records(root: Path) -> Entries:
    """Every record of a folder, unfiltered and with no image opened. `root` must be a resolved path.

    Layouts, in the folder itself and in subfolders named after a split ("train", "test", "validation", "val", …):
    - `metadata.jsonl` or `metadata.csv`: CCUB as released, and Hugging Face's ImageFolder;
    - otherwise images with a `.txt` or `.caption` file of the same name beside each;
    - and kohya's subfolders `N_name`, where `name` is the caption of an image without a caption file, and its category
      if the image's own name gives none. The repeat count `N` is ignored: repeated records would count twice in
      metrics and get negatives twice.
    """
    try:
        yield from _find(root)
    except OSError as error:
        name = Path(error.filename or root).name
        yield UserError(f"{printable(name)} in {root.name} may not be read: give this user the right to read it.")


def _find(root: Path) -> Entries:
    bases = _bases(root)
    with_metadata = [(base, name, split) for base, split in bases if (name := _metadata(base)) is not None]
    for base, name, split in with_metadata:
        yield from _from_metadata(base, name, split, root)
    if with_metadata:
        return
    for base, split in bases:
        for folder in (base, base / "images"):
            yield from _from_captions(folder, split, root)
        for folder, repeats, caption in _kohya_folders(base):
            yield from _from_captions(folder, split, root, caption)
            if repeats > 1:
                yield Note(
                    f"The folder {printable(folder.name)} asks for {repeats} repeats: each image counts once here, and "
                    "the number of training steps decides how often it is used."
                )


def _bases(root: Path) -> list[tuple[Path, str]]:
    """The folder itself and its subfolders named after a split, each with that split's name."""
    known = {name: name for name in SPLITS} | SPLIT_NAMES
    named = [(root / name, split) for name, split in known.items()]
    return [(root, "train"), *((base, split) for base, split in named if base.is_dir())]


def _metadata(base: Path) -> str | None:
    return next((name for name in METADATA if (base / name).is_file()), None)


def _kohya_folders(base: Path) -> list[tuple[Path, int, str]]:
    """(folder, repeats, caption) of kohya's subfolders, `10_hanbok` -> (…, 10, "hanbok"), in natural order."""
    if not base.is_dir():
        return []
    matches = [(path, match) for path in base.iterdir() if (match := _KOHYA.fullmatch(path.name)) and path.is_dir()]
    folders = [(path, int(match[1]), " ".join(match[2].replace("_", " ").split())) for path, match in matches]
    return sorted(folders, key=lambda folder: _natural(folder[0]))


def _from_metadata(base: Path, name: str, split: str, root: Path) -> Entries:
    label = (base / name).relative_to(root).as_posix()
    try:
        path = locate(label, (root,), root, label)
    except UserError as error:
        yield error
        return
    for where, values in read_rows(path, label):
        try:
            if isinstance(values, UserError):
                raise values
            yield _record(parse_row(values, where, MetadataRow), where, base, split, root)
        except UserError as error:
            yield error


def _record(row: MetadataRow, where: str, base: Path, split: str, root: Path) -> CultureRecord:
    bases = (base, root) if base != root else (root,)
    name = row.file_name.replace("\\", "/")
    if base == root and name.split("/")[0] in (*SPLITS, *SPLIT_NAMES):
        split = name.split("/")[0]  # one metadata file for all splits, as ImageFolder allows
    by_name, by_tags = category_and_era_of_name(Path(name).stem), category_and_era_of_tags(row.tags)
    return CultureRecord(
        image=locate(row.file_name, bases, root, where),
        caption=row.text[0],
        other_captions=tuple(row.text[1:]),
        generic_captions=tuple(row.blip_text),
        category=normal_category(row.category) or by_tags[0] or by_name[0],
        era=normal_era(row.era, where) or by_tags[1] or by_name[1],
        split=normal_split(row.split or split, where),
        negatives=tuple(locate(name, bases, root, where) for name in row.negative_imgpath),
        depth=locate(row.depth, bases, root, where) if row.depth else None,
        verified_by=tuple(row.verified_by),
        **row.model_dump(include={"culture", "place", "source", "collector", "licence", "consent"}),
    )


def _from_captions(folder: Path, split: str, root: Path, kohya: str = "") -> Entries:
    """Images of one folder with their caption files; `kohya`: the caption in the folder's own name."""
    if not folder.is_dir():
        return
    for image in sorted(folder.iterdir(), key=_natural):
        if image.suffix.lower() not in EXTENSIONS or image.name.startswith("."):
            continue
        where = f"The image {printable(image.name)}"
        try:
            caption = _caption_beside(image, root) or kohya
            if not caption:
                beside = printable(image.with_suffix(CAPTION_ENDINGS[0]).name)
                raise UserError(f"{where} has no caption: write one into {beside} beside it.")
            path = locate(image.relative_to(root).as_posix(), (root,), root, where)
            category, era = _category_and_era(image.stem, caption, kohya)
            yield CultureRecord(path, caption, category=category, era=era, split=split)
        except UserError as error:
            yield error


def _category_and_era(stem: str, caption: str, kohya: str) -> tuple[str, str]:
    """From the image's name, else from a caption that is a list of tags, else from kohya's folder name."""
    tags: Sequence[str] = caption.split(",")
    by_name, by_tags = category_and_era_of_name(stem), category_and_era_of_tags(tags if len(tags) > 1 else ())
    by_folder = category_and_era_of_name(f"{kohya}_0")
    return (
        by_name[0] or by_tags[0] or by_folder[0] or normal_category(kohya),
        by_name[1] or by_tags[1] or by_folder[1],
    )


def _caption_beside(image: Path, root: Path) -> str:
    """The caption in the text file beside an image, "" if there is no file. Raises UserError for an empty one."""
    text = next((path for ending in CAPTION_ENDINGS if (path := image.with_suffix(ending)).is_file()), None)
    if text is None:
        return ""
    label = text.relative_to(root).as_posix()
    lines: list[str] = []
    length = 0
    for _, line in read_lines(locate(label, (root,), root, printable(label)), printable(label)):
        if isinstance(line, UserError):
            raise line
        lines.append(line)
        length += len(line)
        if length > MAX_TEXT:
            raise UserError(
                f"The caption file {printable(text.name)} has more than {MAX_TEXT:,} characters: shorten it."
            )
    if not lines:
        raise UserError(f"The caption file {printable(text.name)} is empty: write the image's caption into it.")
    return " ".join(lines)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key with FOOD_2 before FOOD_10."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d{1,18})", path.name)]


def holds_dataset(folder: Path) -> bool:
    """Whether a menu should offer the folder: it has metadata, or an image with a caption. Opens no file."""
    try:
        bases = [base for base, _ in _bases(folder)]
        if any(_metadata(base) is not None for base in bases):
            return True
        folders = [folder for base in bases for folder in (base, base / "images") if folder.is_dir()]
        if any(_has_caption(path) for folder in folders for path in folder.iterdir()):
            return True
        kohya = (folder for base in bases for folder, _, _ in _kohya_folders(base))
        return any(path.suffix.lower() in EXTENSIONS for folder in kohya for path in folder.iterdir())
    except OSError:
        return False


def _has_caption(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and any(path.with_suffix(ending).is_file() for ending in CAPTION_ENDINGS)
