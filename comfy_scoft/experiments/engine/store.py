"""Files below one folder, each made once by whichever process comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import regex
from filelock import FileLock

from ...common.files import write_atomically
from ...common.names import LETTERS


@dataclass
class Store:
    """An experiment's folder. The names of its files hold a hash of all that decides their content."""

    out: Path

    def lock(self, name: str) -> FileLock:
        """Held by the one process that makes a thing; the others wait and then find it."""
        folder = self.out / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")

    def once(self, path: Path, make: Callable[[], bytes]) -> Path:
        """The file, written from `make` where it is not there yet."""
        with self.lock(f"{path.parent.name}-{path.stem}"):
            if not path.is_file():
                write_atomically(path, make())
        return path


def slug(name: str, keep: str = "") -> str:
    """A name as a file's: letters, digits and the characters of `keep` stay, all else becomes one "_"."""
    return "_".join(regex.sub(rf"[^{LETTERS}{regex.escape(keep)}]|_", " ", name).split()) or "unnamed"
