"""The folders that datasets are read from and written to: always ComfyUI's own, whatever name arrives."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from ..dataset import holds_dataset
from ..mini import layout
from .runtime import folders, input_folder, inside, output_folder

SHIPPED = "community set of nuvia (shipped)"
SAVED = " (saved)"
"""What a menu adds to the name of a dataset that Save Dataset wrote."""


def dataset_names() -> list[str]:
    """What the menu of folders offers: the shipped set, datasets in the input folder, and saved ones."""
    names: list[str] = []
    for name in folders(input_folder()) if input_folder().is_dir() else []:
        within = any(name.startswith(f"{found}/") for found in names)
        if not within and holds_dataset(input_folder() / name):
            names.append(name)
    saved = folders(saved_root(), depth=1) if saved_root().is_dir() else []
    return [SHIPPED, *names, *(f"{name}{SAVED}" for name in saved if holds_dataset(saved_root() / name))]


def dataset_folder(name: str) -> Path:
    """The folder that a name of the menu stands for. Raises ValueError for one that leads anywhere else."""
    if name == SHIPPED:
        return layout.WEIGHTS.parent / "community"
    folder = inside(input_folder(), name)
    if not folder.is_dir() and name.endswith(SAVED):
        folder = inside(saved_root(), name.removesuffix(SAVED))
    if not folder.is_dir():
        raise ValueError(f"There is no folder {name!r} in ComfyUI's input folder: put it there, or choose another one.")
    return folder


def saved_root() -> Path:
    return output_folder() / "scoft" / "datasets"


def files_fingerprint(folder: Path) -> str:
    """SHA-256 over the name, size and time of every file below a folder."""
    digest = hashlib.sha256()
    for place, names, files in os.walk(folder):
        names.sort()
        for name in sorted(files):
            stat = os.stat(os.path.join(place, name), follow_symlinks=False)
            relative = os.path.relpath(os.path.join(place, name), folder)
            digest.update(f"{relative}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def plain_name(name: str) -> str:
    """The name of a new folder. Raises ValueError for one with a path in it or with letters that no folder can have."""
    clean = name.strip()
    if not re.fullmatch(r"\w[\w .()-]{0,79}", clean) or clean.endswith("."):
        raise ValueError(f"{name!r} is no plain name for a dataset: use letters, digits, spaces, - and _, and no path.")
    return clean
