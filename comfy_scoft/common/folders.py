"""The names in a folder, read again only when the folder has changed: menus ask for them at every queueing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

QUIET = 2.0
"""Seconds since a folder's last change after which its names are kept: FAT counts time in steps of two seconds."""
KEPT = 10_000
"""At most this many folders are kept."""


@dataclass(frozen=True)
class Names:
    """The names in a folder, each kind sorted. links: symbolic links, to whatever. Pipes and devices are left out."""

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


_known: dict[str, tuple[int, Names]] = {}


def names_in(folder: Path) -> Names:
    """The names in a folder, none if it cannot be read. Opens no file, and asks the disk about none."""
    try:
        changed = os.stat(folder).st_mtime_ns
        kept = _known.get(str(folder))
        if kept is not None and kept[0] == changed:
            return kept[1]
        folders, files, links = [], [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links.append(entry.name)
                elif entry.is_file():
                    files.append(entry.name)
                elif entry.is_dir():
                    folders.append(entry.name)
    except OSError:
        return Names()
    names = Names(tuple(sorted(folders)), tuple(sorted(files)), tuple(sorted(links)))
    if time.time() - changed / 1e9 > QUIET:
        if len(_known) >= KEPT:
            _known.clear()
        _known[str(folder)] = changed, names
    return names
