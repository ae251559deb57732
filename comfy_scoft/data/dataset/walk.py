"""What lies in a folder and below it: images, captions, metadata and the rest, told apart by name alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ...common.folders import names_in, read_names
from ...common.text import is_unicode
from ..formats import EXTENSIONS, NOT_READ
from .metadata import SPLIT_NAMES
from .names import caption_stems, inside, same_stem

METADATA = ("metadata.jsonl", "metadata.csv")
"""Metadata file names of CCUB and of Hugging Face's ImageFolder; the first that exists is used."""

SPLITS = ("train", "test", "validation")
CAPTION_ENDINGS = (".txt", ".caption")
"""Endings of the caption file beside an image, as in kohya's sd-scripts."""

DOWNLOADS, LINKS_REPORT = "downloads.jsonl", "links_report.csv"
"""What Download Links keeps beside its images."""

LINKS_TRIED = 100
"""Links that a menu follows in a folder."""

_SPLIT_OF = {name: name for name in SPLITS} | SPLIT_NAMES
_KOHYA = re.compile(r"(\d{1,9})_(.{1,200})", re.DOTALL)
_NO_REPEATS = re.compile(r"(19|20)\d\d_.*|\d{6,}_.*|[1-9]\d\d_[A-Z0-9_]{4}", re.DOTALL)
"""Names as kohya's whose number is none of repeats: years, dates (20230814_trip) and cameras' folders (100_FUJI)."""
_SYSTEM = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"),
    *("$recycle.bin", "#recycle", "@recycle", "system volume information", "lost+found"),
)
_OURS = (DOWNLOADS, LINKS_REPORT)


@dataclass
class Folder:
    """One folder of a tree. All but `path` and `links` are names in it, in natural order.

    split: "" where neither the folder nor one above it is named after a split.
    repeats, caption: of kohya's folders, `10_hanbok` -> 10, "hanbok"; else 0 and "".
    images: files named as images; captioned: those with a caption file beside them. unread: as images of kinds that
    are not read. links: folders that are links; linked: files that are.
    """

    path: Path
    split: str = ""
    repeats: int = 0
    caption: str = ""
    metadata: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    captioned: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    links: list[Path] = field(default_factory=list)
    linked: tuple[str, ...] = ()
    folders: list[Folder] = field(default_factory=list)
    unreadable: bool = False

    @property
    def numbered(self) -> bool:
        """Whether the name begins as kohya's do, with a number that is rather a year, a date or a camera's."""
        return _NO_REPEATS.fullmatch(self.path.name) is not None

    def offers(self, root: Path) -> bool:
        """Whether it holds metadata, or an image with a caption, that is no link out of `root`, a resolved path. Of
        images that are all links, only the first LINKS_TRIED are followed: every link costs time."""
        linked = set(self.linked)
        names = sorted((*self.metadata, *(self.images if self.caption else self.captioned)), key=linked.__contains__)
        return any(name not in linked or inside(self.path / name, root) for name in names[:LINKS_TRIED])


def walk(root: Path, *, layout_only: bool = False) -> Iterator[Folder]:
    """The folder and those below it, each before its subfolders; linked and hidden ones are not entered.

    Order: `images` first, then by name, and splits last. layout_only: enter only subfolders named `images`, after a
    split, or as kohya's; for menus, so the names in a folder are read once for as long as it does not change.
    """
    return _walk(Folder(root), layout_only=layout_only)


def _walk(folder: Folder, *, layout_only: bool) -> Iterator[Folder]:
    yield _read(folder, fresh=not layout_only)
    splits = list(_SPLIT_OF)
    for inner in sorted(folder.folders, key=lambda inner: _place(inner.path.name, splits)):
        if not layout_only or inner.path.name == "images" or inner.caption or inner.path.name.lower() in _SPLIT_OF:
            yield from _walk(inner, layout_only=layout_only)


def _place(name: str, splits: list[str]) -> tuple[int, int, list[tuple[int, int, str]]]:
    split = splits.index(name.lower()) + 1 if name.lower() in splits else 0
    return split, name != "images", natural(name)


def _read(folder: Folder, *, fresh: bool) -> Folder:
    """Fill in what lies in the folder itself. fresh: even if it seems unchanged."""
    try:
        names = read_names(folder.path) if fresh else names_in(folder.path)
    except OSError:
        folder.unreadable = True
        return folder
    folder.folders = [_inner(folder.path / name, folder.split) for name in names.folders if not hidden(name)]
    folder.links = [folder.path / name for name in names.linked_folders if not hidden(name)]
    folder.linked = names.links
    folder.metadata, folder.images, folder.captioned, folder.captions, folder.unread, folder.others = _sorted_out(
        names.files + names.links
    )
    folder.others += names.others
    return folder


def hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM


@lru_cache(maxsize=1000)
def _sorted_out(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The names of a folder's files by kind, in the order of Folder's fields and each in natural order."""
    kinds: dict[str, list[str]] = {kind: [] for kind in ("metadata", "image", "caption", "unread", "other", "")}
    for name in sorted(names, key=natural):
        kinds[_kind(name)].append(name)
    metadata, images, captions, unread, others, _ = kinds.values()
    metadata.sort(key=lambda name: METADATA.index(name.lower()))
    stems = {same_stem(name) for name in captions}
    captioned = [name for name in images if stems & caption_stems(name)]
    return tuple(map(tuple, (metadata, images, captioned, captions, unread, others)))


def _kind(name: str) -> str:
    """What a file is by its name: "" for one to pass over in silence."""
    lower = name.lower()
    ending = os.path.splitext(lower)[1]
    if hidden(name) or lower in _OURS:
        return ""
    if lower in METADATA:
        return "metadata"
    if ending in EXTENSIONS:
        return "image"
    return "caption" if ending in CAPTION_ENDINGS else "unread" if ending in NOT_READ else "other"


def _inner(path: Path, split: str) -> Folder:
    match = _KOHYA.fullmatch(path.name)
    split = _SPLIT_OF.get(path.name.lower(), split)
    if match is None or _NO_REPEATS.fullmatch(path.name):
        return Folder(path, split)
    caption = " ".join(match[2].replace("_", " ").split())
    return Folder(path, split, int(match[1]), caption if is_unicode(caption) else "")


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key with FOOD_2 before FOOD_10."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d{1,18})", name)]
