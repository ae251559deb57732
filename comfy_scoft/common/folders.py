"""The names in a folder, read again only when the folder has changed: menus ask for them at every queueing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from .text import composed

QUIET = 2.0
"""Seconds since a folder's last change after which its names are kept: FAT counts time in steps of two seconds."""
KEPT = 10_000
"""At most this many folders are kept."""


def on_disk(root: Path, *parts: str) -> Path:
    """`root / parts`, each part as the name that is there: composed in another way where only that one is."""
    path = root
    for part in parts:
        if not os.path.lexists(path / part):
            names = names_in(path)
            there = (*names.folders, *names.files, *names.linked_folders, *names.links)
            part = next((name for name in there if composed(name) == composed(part)), part)
        path /= part
    return path


@dataclass(frozen=True)
class Names:
    """The names in a folder, each kind sorted. linked_folders, links: symbolic links to folders, and to anything else;
    others: pipes and devices."""

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    linked_folders: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


_known: dict[str, tuple[int, Names]] = {}


def read_names(folder: Path) -> Names:
    """The names in a folder as they are now. Raises OSError for one that cannot be read."""
    kinds: tuple[list[str], ...] = [], [], [], [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                kind = 2 if Path(entry).is_dir() else 3  # entry.is_dir() fails for links in a circle
            else:
                kind = 1 if entry.is_file() else 0 if entry.is_dir() else 4
            kinds[kind].append(entry.name)
    return Names(*(tuple(sorted(names)) for names in kinds))


def names_in(folder: Path) -> Names:
    """The names in a folder, none if it cannot be read. Opens no file, and asks the disk about none."""
    try:
        changed = os.stat(folder).st_mtime_ns
        kept = _known.get(str(folder))
        if kept is not None and kept[0] == changed:
            return kept[1]
        names = read_names(folder)
    except OSError:
        return Names()
    if time.time() - changed / 1e9 > QUIET:
        if len(_known) >= KEPT:
            _known.clear()
        _known[str(folder)] = changed, names
    return names
