"""The files of a dataset's folder that are not used, each kind in one sentence of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...common.files import regular
from ...common.text import printable
from ..formats import HEAD, format_of, why_no_image
from .names import caption_stems, inside, real, same_stem
from .walk import DOWNLOADS, Folder

NAMED = 10
"""How many files a sentence names; it counts the others."""

_UNLISTED = (
    "{files} is an image that {table} does not list: add a line for it, or remove it.",
    "{count} images are not listed in {table}: add a line for each, or remove them ({files}).",
)
_OVERRULED = (
    "{files} is not read, because {table} gives the captions: remove one of the two.",
    "{count} caption files are not read, because {table} gives the captions: remove it or them ({files}).",
)
_ALONE = (
    "{files} is the caption of no image: put the image of the same name beside it, or remove it.",
    "{count} caption files have no image: put the image of the same name beside each, or remove them ({files}).",
)
_SECOND = (
    "{files} is not read, because its image has another caption file: remove one of the two.",
    "{count} caption files are not read, because their images have other ones: remove one of each two ({files}).",
)
_UNREAD = (
    "{files} is of a kind that is not read: export it as JPEG, PNG or TIFF.",
    "{count} files are of kinds that are not read: export them as JPEG, PNG or TIFF ({files}).",
)
_MISNAMED = (
    "{files} is an image by its content, but not by its name: give it the ending of its kind, as .jpg.",
    "{count} files are images by their content, but not by their names: give them the endings of their kinds, as .jpg "
    "({files}).",
)
_POINTERS = (
    "{files} is a Git LFS pointer: download the real file with git lfs pull.",
    "{count} files are Git LFS pointers: download the real files with git lfs pull ({files}).",
)
_LINKS = (
    "The folder {files} is a link that leads outside and is not entered: put the folder itself there, or start ComfyUI "
    "with --input-directory on a folder that holds both.",
    "{count} folders are links that lead outside and are not entered: put the folders themselves there, or start "
    "ComfyUI with --input-directory on a folder that holds all ({files}).",
)
_TABLES = (
    "{files} is not read beside another metadata file: keep one of the two.",
    "{count} files are not read beside other metadata files: keep one in each folder ({files}).",
)
_OTHERS = (
    "{files} is neither image nor caption and is not used.",
    "{count} files are neither images nor captions and are not used ({files}).",
)
_KINDS = (_UNLISTED, _OVERRULED, _ALONE, _SECOND, _UNREAD, _MISNAMED, _POINTERS, _LINKS, _TABLES, _OTHERS)


class Note(str):
    """A sentence for the report that is not an error."""


def named(files: Sequence[str]) -> str:
    """ "a.jpg, b.jpg and 12 more" """
    more = f" and {len(files) - NAMED:,} more" if len(files) > NAMED else ""
    return ", ".join(files[:NAMED]) + more


def sentence(kind: tuple[str, str], files: Sequence[str]) -> str:
    """The sentence of a kind, for one file or for several."""
    return kind[len(files) > 1].replace("{count}", f"{len(files):,}").replace("{files}", named(files))


class Unused:
    """Collects them. root: the dataset's folder, a resolved path."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[tuple[tuple[str, str], str], list[str]] = {(kind, ""): [] for kind in _KINDS}
        """By kind and the metadata file that the sentence names."""

    def take(self, folder: Folder, table: Path | None, used: set[Path]) -> None:
        """Add what lies in one folder and is not in `used`. table: the metadata file that decides there, or None."""
        if table is not None:
            by = self._label(table)
            if not (table.parent / DOWNLOADS).is_file():  # the report on links says why an image there is left out
                self._add(_UNLISTED, [folder.path / name for name in folder.images], used, by)
            self._add(_OVERRULED, [folder.path / name for name in folder.captions], used, by)
        else:
            images = [caption_stems(name) for name in (*folder.images, *folder.unread)]
            stems = set().union(*images)
            captions = [folder.path / name for name in folder.captions]
            read = {same_stem(path.name) for path in captions if real(path) in used}
            read = set().union(*(own for own in images if own & read))
            self._add(_ALONE, [path for path in captions if same_stem(path.name) not in stems])
            self._add(_SECOND, [path for path in captions if same_stem(path.name) in read], used)
        self._add(_UNREAD, [folder.path / name for name in folder.unread], used)
        self._add(_LINKS, [path for path in folder.links if not inside(path, self._root)])
        self._add(_TABLES, [folder.path / name for name in folder.metadata[1:]])
        for path in (folder.path / name for name in folder.others):
            self._add(_kind_of(path, self._root), [path], used)

    def _add(self, kind: tuple[str, str], paths: list[Path], used: set[Path] | None = None, table: str = "") -> None:
        files = [self._label(path) for path in paths if not used or real(path) not in used]
        self._files.setdefault((kind, table), []).extend(files)

    def _label(self, path: Path) -> str:
        return printable(path.relative_to(self._root).as_posix())

    def notes(self) -> Iterator[Note]:
        for (kind, table), files in sorted(self._files.items(), key=lambda item: _KINDS.index(item[0][0])):
            if files:
                yield Note(sentence(kind, files).replace("{table}", table))


def _kind_of(path: Path, root: Path) -> tuple[str, str]:
    """The kind of a file whose name is neither an image's nor a caption's, by its first bytes."""
    try:
        if inside(path, root) and path.is_file():
            with regular(path).open("rb") as file:
                head = file.read(HEAD)
            if "Git LFS" in why_no_image(head):
                return _POINTERS
            if b"\0" in head and format_of(head) is not None:
                return _MISNAMED
    except OSError:
        pass
    return _OTHERS
