"""The folders of datasets: for any name, always inside ComfyUI's own folders."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from ..common.errors import UserError
from ..common.files import recovered
from ..common.folders import on_disk
from ..common.names import MAX_BYTES, file_name
from ..common.text import printable
from ..data.dataset import has_metadata, holds_dataset
from ..data.dataset.rows import ROW_ENDINGS
from ..data.dataset.walk import METADATA
from ..data.download.store import LOG, REPORT
from ..mini_world import COMMUNITY
from .runtime import files, folders, input_folder, inside, output_folder
from .typed_names import typed
from .widgets import Node

SHIPPED = "community set of nuvia (shipped)"
SAVED = " (saved)"
"""What the menu adds to the name of a dataset from Save Dataset."""


def dataset_names() -> list[str]:
    """The menu of datasets: the shipped one, those in the input folder, and saved ones."""
    return [SHIPPED, *_datasets_in(input_folder()), *(f"{name}{SAVED}" for name in _datasets_in(saved_root()))]


def _datasets_in(root: Path) -> list[str]:
    """The folders below `root` that hold a dataset, sorted.

    A folder below a listed one is part of that, except below one with metadata, which may be broken or list other
    images. A folder without images of its own is listed if datasets lie in two or more of its subfolders.
    """
    whole: list[str] = []
    names: set[str] = set()
    for name in folders(root):
        if not any(name.startswith(f"{above}/") for above in whole) and holds_dataset(root / name):
            names.add(name)
            if not has_metadata(root / name):
                whole.append(name)
    parts = {tuple(name.split("/")) for name in names}
    branches = Counter(above for above, _ in {(part[:n], part[n]) for part in parts for n in range(1, len(part))})
    return sorted(names | {"/".join(above) for above, count in branches.items() if count > 1})


def dataset_folder(name: str) -> Path:
    """The folder of a menu entry. Raises UserError for a name that leads anywhere else."""
    if name == SHIPPED:
        return COMMUNITY
    if name.endswith(SAVED) and not os.path.isdir(inside(input_folder(), name)):
        saved = inside(saved_root(), name.removesuffix(SAVED))
        if os.path.isdir(saved):
            return saved
    return given_folder(name)


def given_folder(name: str) -> Path:
    """A folder in the input folder. Raises UserError for a name that leads anywhere else."""
    folder = inside(input_folder(), name)
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
        name = printable(name)
        raise UserError(f"There is no folder {name!r} in ComfyUI's input folder: put it there, or choose another one.")
    return folder


def link_files() -> list[str]:
    """The menu of lists of links in the input folder, without the tables of datasets."""
    own = {*METADATA, LOG, REPORT}
    return [name for name in files(input_folder(), *ROW_ENDINGS) if name.rsplit("/", 1)[-1] not in own]


def link_file(name: str) -> Path:
    """The list of a menu entry. Raises UserError for a name that leads anywhere else."""
    path = inside(input_folder(), name)
    if not os.path.isfile(path) or not path.name.lower().endswith(ROW_ENDINGS):
        raise UserError(
            f"There is no list {printable(name)!r} in ComfyUI's input folder: put a .csv or .jsonl file there."
        )
    return path


def collected_folder(name: str, links: Path) -> Path:
    """The folder of a list's images in the input folder: `name`, or the list's own name and "images"."""
    stem = file_name(links.stem[:60], "collected", " ", ".()-", MAX_BYTES - len(" images"))
    return dataset_place(input_folder(), name if name.strip() else f"{stem} images")


def saved_root() -> Path:
    return recovered(output_folder() / "scoft" / "datasets")


def files_fingerprint(folder: Path) -> str:
    """SHA-256 over the name, size and time of every file below a folder."""
    digest = hashlib.sha256()
    for place, names, present in os.walk(folder):
        names.sort()
        for name in sorted(present):
            stat = os.stat(os.path.join(place, name), follow_symlinks=False)
            relative = os.path.relpath(os.path.join(place, name), folder)
            digest.update(f"{relative}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def dataset_place(root: Path, name: str) -> Path:
    """The new folder of a typed name under `root`. Raises UserError as `typed` does."""
    folder, last = typed(root, name, "dataset name")
    return on_disk(folder, last)


class FolderNode(Node):
    """A node that reads a folder, which its widget `folder` names. find: the folder of a name; UserError if none."""

    find: ClassVar[Callable[..., Path]]

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        """Reject a bad folder before anything runs. None: the name comes from another node."""
        return folder is None or bool(cls.find(folder))

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, **_: Any) -> str:
        """Changes when any file under the folder does."""
        return files_fingerprint(cls.find(folder)) if folder is not None else ""
