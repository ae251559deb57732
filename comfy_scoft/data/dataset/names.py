"""File names that are the same to a person: composed in another way, in another case, or with other blanks."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from ...common.text import composed


def same_name(name: str) -> str:
    """Equal for names that differ only in case, in how accents are composed (macOS takes them apart), or in the kind of
    their blanks (macOS writes a narrow one before PM into the names of screenshots)."""
    return " ".join(composed(composed(name).casefold()).split())


def same_stem(name: str) -> str:
    """The same of a file's name without its ending."""
    return same_name(os.path.splitext(name)[0])


def caption_stems(image: str) -> set[str]:
    """`same_stem` of the caption files that belong to an image: of a.jpg those of a.txt and a.jpg.txt."""
    return {same_stem(image), same_name(image)}


class Names:
    """The names in folders inside `root`, a resolved path; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Path, dict[str, list[str]]] = {}

    def find(self, folder: Path, name: str) -> str | None:
        """The entry of a folder with this name, composed otherwise or in another case where exactly one is."""
        if folder not in self._folders:
            same: dict[str, list[str]] = {}
            for entry in os.listdir(folder):
                same.setdefault(same_name(entry), []).append(entry)
            self._folders[folder] = same
        entries = self._folders[folder].get(same_name(name), [])
        for alike in (str, composed, same_name):
            found = [entry for entry in entries if alike(entry) == alike(name)]
            if found:
                return found[0] if len(found) == 1 else None
        return None

    def path(self, base: Path, relative: str) -> Path:
        """`base / relative`, each part under the name that `find` finds for it."""
        path = base
        for part in PurePosixPath(relative).parts:
            listed = path.is_dir() and real(path).is_relative_to(self._root)
            path /= (self.find(path, part) if listed else None) or part
        return path


def inside(path: Path, root: Path) -> bool:
    """Whether a file is no link, or one to a place in `root`, a resolved path."""
    return not path.is_symlink() or real(path).is_relative_to(root)


def real(path: Path) -> Path:
    """The path without links; of links in a circle, one of them."""
    return Path(os.path.realpath(path))
