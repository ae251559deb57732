"""The folder layouts that hold captioned images -> records, or for each broken record its error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...common.errors import DiskError, ImageError, UserError
from ...common.text import printable
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
from .names import Names, inside, real
from .rows import read_lines, read_rows
from .unused import Note, Unused, sentence
from .walk import CAPTION_ENDINGS, SPLITS, Folder, walk

Entries = Iterator[CultureRecord | Note | UserError]

_BARE = (
    "The image {file} has no caption: write one into {beside} beside it{else}.",
    "{count} images have no caption: write one into a .txt file of the same name beside each{else} ({files}).",
)
_BY_FOLDER = (
    "The caption of {files}, which has no caption file, is the name of its folder.",
    "The captions of {count} images, which have no caption files, are the names of their folders ({files}).",
)
_SHARED = (
    "{files} has the caption file of another image of its name: remove one of the two if they are the same photo.",
    "{count} images have the caption files of others of their names: remove one of each two that are the same photo "
    "({files}).",
)
_LINK_OUT = (
    "The image {file} is a link that leads outside the folder: put the file itself there, or start ComfyUI with "
    "--input-directory on a folder that holds both.",
    "{count} images are links that lead outside the folder: put the files themselves there, or start ComfyUI with "
    "--input-directory on a folder that holds both ({files}).",
)
_LINK_GONE = (
    "The image {file} is a link to a file that is not there: put the file itself there (git annex get does for "
    "git-annex).",
    "{count} images are links to files that are not there: put the files themselves there (git annex get does for "
    "git-annex): {files}.",
)


def find_records(root: Path) -> Entries:
    """Every record of a folder, unfiltered and with no image opened, then notes on the files that are not used.

    `root` must be a resolved path. It and all folders below are read, except linked and hidden ones. In each:
    - `metadata.jsonl` or `metadata.csv`: CCUB as released, and Hugging Face's ImageFolder. It decides for its folder
      and those below: images that none lists are not used, unless it has no valid line;
    - otherwise images with a `.txt` or `.caption` file of the same name beside each (of a.jpg: a.txt or a.jpg.txt);
    - and kohya's folders `N_name`, where `name` is the caption of an image without a caption file, and its category
      if the image's own name gives none. The repeat count `N` is ignored: repeated records would count twice in
      metrics and get negatives twice. Years, dates (six digits and more) and cameras' folders (100_FUJI) are none.
    A folder named after a split ("train", "test", "validation", "val", …) gives it to what is in it and below.
    """
    search = _Search(root)
    folders = list(walk(root))
    for folder in folders:
        if folder.unreadable:
            yield _may_not_be_read(folder.path, root)
        if folder.metadata:
            yield from search.from_metadata(folder)
    for folder in folders:
        yield from search.from_captions(folder)
    for folder in folders:
        search.unused.take(folder, search.table(folder), search.used)
    for kind, images in ((_BY_FOLDER, search.by_folder), (_SHARED, search.shared)):
        if images:
            yield Note(sentence(kind, images))
    yield from search.unused.notes()


def _may_not_be_read(path: Path, root: Path, error: OSError | None = None) -> UserError:
    if error is not None and not isinstance(error, PermissionError):
        return DiskError(f"{printable(path.name)} in {root.name} cannot be read", error)
    return UserError(f"{printable(path.name)} in {root.name} may not be read: give this user the right to read it.")


class _Search:
    """What was found so far. used: every file that a record or a row names, and every caption file that was read.

    records: how many of them each metadata file gave. by_folder: images that have kohya's
    folder as their caption. shared: images whose caption file had been another's too.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.names = root, Names(root)
        self.used: set[Path] = set()
        self.records: dict[Path, int] = {}
        self.by_folder: list[str] = []
        self.shared: list[str] = []
        self.unused = Unused(root)

    def label(self, path: Path) -> str:
        return printable(path.relative_to(self.root).as_posix())

    def table(self, folder: Folder) -> Path | None:
        """The metadata file that decides for a folder: the nearest one, in it or above."""
        return next((table for table in self.records if folder.path.is_relative_to(table.parent)), None)

    def listed(self, path: Path) -> Path:
        """The real path of a file that lies in a folder. Raises UserError for a link to nothing or to elsewhere."""
        file = real(path)
        if not file.is_relative_to(self.root):
            raise UserError(f"{self.label(path)} points outside the folder: put the file itself there, and no link.")
        if not file.is_file():
            raise UserError(f"{self.label(path)} is a link to a file that is not there: put the file itself there.")
        self.used.add(file)
        return file

    def locate(self, name: str, where: str, base: Path) -> Path:
        bases = (self.root,) if base == self.root else (base, self.root)
        path = locate(name, bases, self.root, where, self.names)
        self.used.add(path)
        return path

    def from_metadata(self, folder: Folder) -> Entries:
        path = folder.path / folder.metadata[0]
        label = self.label(path)
        self.records = {path: 0, **self.records}  # deeper ones first
        try:
            for where, values in read_rows(self.listed(path), label):
                try:
                    if isinstance(values, UserError):
                        raise values
                    yield self._record(values, where, folder)
                    self.records[path] += 1
                except UserError as error:
                    yield error
        except UserError as error:
            yield error
        except OSError as error:
            yield _may_not_be_read(path, self.root, error)

    def _record(self, values: dict[str, Any], where: str, folder: Folder) -> CultureRecord:
        try:
            row = parse_row(values, where, MetadataRow)
        except UserError:
            self._mention(values.get("file_name"), folder.path)
            raise
        name = row.file_name.replace("\\", "/")
        split = folder.split
        if not split and name.split("/")[0].lower() in (*SPLITS, *SPLIT_NAMES):
            split = name.split("/")[0]  # one metadata file for all splits, as ImageFolder allows
        by_name, by_tags = category_and_era_of_name(Path(name).stem), category_and_era_of_tags(row.tags)
        return CultureRecord(
            image=self.locate(row.file_name, where, folder.path),
            caption=row.text[0],
            other_captions=tuple(row.text[1:]),
            generic_captions=tuple(row.blip_text),
            category=normal_category(row.category) or by_tags[0] or by_name[0],
            era=normal_era(row.era, where) or by_tags[1] or by_name[1],
            split=normal_split(row.split or split or SPLITS[0], where),
            negatives=tuple(self.locate(name, where, folder.path) for name in row.negative_imgpath),
            depth=self.locate(row.depth, where, folder.path) if row.depth else None,
            verified_by=tuple(row.verified_by),
            **row.model_dump(include={"culture", "place", "source", "collector", "licence", "consent"}),
        )

    def _mention(self, name: object, base: Path) -> None:
        """An image that a broken row names is not one that no row names."""
        try:
            self.locate(str(name), "", base)
        except UserError:
            pass

    def from_captions(self, folder: Folder) -> Entries:
        """Images of one folder with their caption files."""
        table = self.table(folder)
        for name in folder.images:
            path = folder.path / name
            try:
                text = self._beside(path, CAPTION_ENDINGS)
                if table and (real(path) in self.used or self.records[table] or text is None):
                    continue
                if text is not None and real(text) in self.used:
                    self.shared.append(self.label(path))
                yield self._captioned(folder, path, text)
                if text is None:
                    self.by_folder.append(self.label(path))
            except UserError as error:
                yield error
            except OSError as error:
                yield _may_not_be_read(path if text is None else text, self.root, error)
        if folder.repeats > 1 and not table:
            yield Note(
                f"The folder {printable(folder.path.name)} asks for {folder.repeats} repeats: each image counts once "
                "here, and the number of training steps decides how often it is used."
            )

    def _beside(self, image: Path, endings: Sequence[str]) -> Path | None:
        """The caption file beside an image."""
        stems = (image.stem, image.name)
        names = (self.names.find(image.parent, f"{stem}{ending}") for stem in stems for ending in endings)
        return next((image.parent / name for name in names if name is not None), None)

    def _captioned(self, folder: Folder, path: Path, text: Path | None) -> CultureRecord:
        label = self.label(path)
        if not path.exists():
            raise ImageError(_LINK_GONE[0], label, _LINK_GONE[1])
        if not inside(path, self.root):
            raise ImageError(_LINK_OUT[0], label, _LINK_OUT[1])
        caption = self._text(text) if text is not None else folder.caption
        if not caption:
            raise self._bare(folder, path)
        category, era = _category_and_era(path.stem, caption, folder.caption)
        return CultureRecord(self.listed(path), caption, category=category, era=era, split=folder.split or SPLITS[0])

    def _bare(self, folder: Folder, path: Path) -> UserError:
        beside = printable(path.with_suffix(CAPTION_ENDINGS[0]).name)
        rename = f", or name the folder 1_{printable(folder.path.name.partition('_')[2])}" if folder.numbered else ""
        one, many = (text.replace("{else}", rename) for text in _BARE)
        return ImageError(one.replace("{beside}", beside), self.label(path), many)

    def _text(self, path: Path) -> str:
        """The caption in a file. Raises UserError for an empty one."""
        label = self.label(path)
        lines: list[str] = []
        length = 0
        for _, line in read_lines(self.listed(path), label):
            if isinstance(line, UserError):
                raise line
            lines.append(line)
            length += len(line)
            if length > MAX_TEXT:
                raise UserError(f"The caption file {label} has more than {MAX_TEXT:,} characters: shorten it.")
        if not lines:
            raise UserError(f"The caption file {label} is empty: write the image's caption into it.")
        return " ".join(lines)


def _category_and_era(stem: str, caption: str, kohya: str) -> tuple[str, str]:
    """From the image's name, else from a caption that is a list of tags, else from kohya's folder name."""
    tags: Sequence[str] = caption.split(",")
    by_name, by_tags = category_and_era_of_name(stem), category_and_era_of_tags(tags if len(tags) > 1 else ())
    by_folder = category_and_era_of_name(f"{kohya}_0")
    return (
        by_name[0] or by_tags[0] or by_folder[0] or normal_category(kohya),
        by_name[1] or by_tags[1] or by_folder[1],
    )


def holds_dataset(folder: Path) -> bool:
    """Whether a menu should offer the folder: it has metadata, or an image with a caption. Opens no file.

    Subfolders count that are named after a split, `images` or as kohya's.
    """
    return folder.is_dir() and any(inner.offers(folder.resolve()) for inner in walk(folder, layout_only=True))


def has_metadata(folder: Path) -> bool:
    """Whether a metadata file lies in the folder itself."""
    return bool(next(walk(folder, layout_only=True)).metadata)
