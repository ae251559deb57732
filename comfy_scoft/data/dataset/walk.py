"""What lies in a folder and below it: images, captions, metadata and the rest, told apart by name alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..formats import EXTENSIONS, NOT_READ
from .metadata import SPLIT_NAMES
from .names import inside, same_stem

METADATA = ("metadata.jsonl", "metadata.csv")
"""Metadata file names of CCUB and of Hugging Face's ImageFolder; the first that exists is used."""

SPLITS = ("train", "test", "validation")
CAPTION_ENDINGS = (".txt", ".caption")
"""Endings of the caption file beside an image, as in kohya's sd-scripts."""

DOWNLOADS, LINKS_REPORT = "downloads.jsonl", "links_report.csv"
"""What Download Links keeps beside its images."""

_SPLIT_OF = {name: name for name in SPLITS} | SPLIT_NAMES
_KOHYA = re.compile(r"(\d{1,9})_(.{1,200})", re.DOTALL)
_YEARS = range(1900, 2100)
_SYSTEM = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin")
_OURS = (DOWNLOADS, LINKS_REPORT)


@dataclass
class Folder:
    """One folder of a tree. All but `path` and `links` are names in it, in natural order.

    split: "" where neither the folder nor one above it is named after a split.
    repeats, caption: of kohya's folders, `10_hanbok` -> 10, "hanbok"; else 0 and "".
    images: files named as images. unread: as images of kinds that are not read. links: folders that are links.
    """

    path: Path
    split: str = ""
    repeats: int = 0
    caption: str = ""
    metadata: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    unreadable: bool = False

    @property
    def year(self) -> bool:
        """Whether the name begins as kohya's do, with a number that is rather a year: 2023_trip."""
        return not self.caption and _KOHYA.fullmatch(self.path.name) is not None

    def offers(self, root: Path) -> bool:
        """Whether it holds metadata, or an image with a caption, that is no link out of `root`, a resolved path."""
        stems = {same_stem(name) for name in self.captions}
        candidates = self.images if stems or self.caption else []
        images = (name for name in candidates if self.caption or same_stem(name) in stems)
        return any(inside(self.path / name, root) for name in (*self.metadata, *images))


def walk(root: Path, *, layout_only: bool = False) -> Iterator[Folder]:
    """The folder and those below it, each before its subfolders; linked and hidden ones are not entered.

    Order: `images` first, then by name, and splits last. layout_only: enter only subfolders named `images`, after a
    split, or as kohya's; for menus, so files are in no order.
    """
    return _walk(Folder(root), layout_only=layout_only)


def _walk(folder: Folder, *, layout_only: bool) -> Iterator[Folder]:
    yield _read(folder, ordered=not layout_only)
    splits = list(_SPLIT_OF)
    for inner in sorted(folder.folders, key=lambda inner: _place(inner.path.name, splits)):
        if not layout_only or inner.path.name == "images" or inner.caption or inner.path.name.lower() in _SPLIT_OF:
            yield from _walk(inner, layout_only=layout_only)


def _place(name: str, splits: list[str]) -> tuple[int, int, list[tuple[int, int, str]]]:
    split = splits.index(name.lower()) + 1 if name.lower() in splits else 0
    return split, name != "images", natural(name)


def _read(folder: Folder, *, ordered: bool) -> Folder:
    """Fill in what lies in the folder itself."""
    try:
        with os.scandir(folder.path) as entries:
            listed = sorted(entries, key=lambda entry: natural(entry.name)) if ordered else list(entries)
    except OSError:
        folder.unreadable = True
        return folder
    for entry in listed:
        name, lower = entry.name, entry.name.lower()
        if name.startswith(".") or lower in _SYSTEM or lower in _OURS:
            continue
        ending = os.path.splitext(lower)[1]
        if entry.is_dir(follow_symlinks=False):
            folder.folders.append(_inner(Path(entry.path), folder.split))
        elif entry.is_symlink() and os.path.isdir(entry.path):  # entry.is_dir() raises for links in a circle
            folder.links.append(Path(entry.path))
        elif not entry.is_symlink() and not entry.is_file():  # a pipe or a device
            folder.others.append(name)
        elif lower in METADATA:
            folder.metadata.append(name)
        elif ending in EXTENSIONS:
            folder.images.append(name)
        elif ending in CAPTION_ENDINGS:
            folder.captions.append(name)
        else:
            (folder.unread if ending in NOT_READ else folder.others).append(name)
    folder.metadata.sort(key=lambda name: METADATA.index(name.lower()))
    return folder


def _inner(path: Path, split: str) -> Folder:
    match = _KOHYA.fullmatch(path.name)
    split = _SPLIT_OF.get(path.name.lower(), split)
    if match is None or int(match[1]) in _YEARS:
        return Folder(path, split)
    return Folder(path, split, int(match[1]), " ".join(match[2].replace("_", " ").split()))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key with FOOD_2 before FOOD_10."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d{1,18})", name)]
