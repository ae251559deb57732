"""Networks in folders of ComfyUI's models and on Hugging Face, as the entries of a menu."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.text import printable
from ..models.hub import FolderLoader
from .compat import folder_paths, io
from .runtime import folders

AUTOMATIC = "automatic"
DOWNLOAD = "download "
"""How menu entries begin that download something: choosing one allows it."""

KINDS = {
    "captioners": ("captioners", "blip", "BLIP", "LLM", "diffusers"),
    "depth_estimators": ("depth_estimators", "depth", "annotators", "controlnet_aux", "depthanything", "diffusers"),
}
"""Kind of network -> the folders of ComfyUI's models that are searched for it. Add more in extra_model_paths.yaml,
under the kind's name."""


def local_folders(kind: str, loader: FolderLoader[Any]) -> dict[str, Path]:
    """Menu entry -> folder, for each local folder that holds the network."""
    roots = [Path(folder_paths.models_dir) / name for name in KINDS[kind]]
    if kind in folder_paths.folder_names_and_paths:
        roots += [Path(path) for path in folder_paths.get_folder_paths(kind)]
    entries: dict[str, Path] = {}
    for root in roots:
        for name in folders(root, depth=2):
            if loader.fits(root / name):
                entries.setdefault(f"{root.name}/{name}", root / name)
    return entries


def choices(kind: str, menu: Mapping[str, Any]) -> list[str]:
    """The entries for all networks of a menu: `automatic`, local folders, and downloads."""
    loaders = [loader for loader in menu.values() if isinstance(loader, FolderLoader)]
    local = [entry for loader in loaders for entry in local_folders(kind, loader)]
    return [AUTOMATIC, *dict.fromkeys(local), *(DOWNLOAD + name for loader in loaders for name in loader.hub)]


def weights_input(kind: str, menu: Mapping[str, Any], more: str = "") -> Any:
    """The widget of a network's weights. more: the end of its tooltip."""
    tooltip = "The network's weights. automatic: a matching folder in ComfyUI's models. 'download …': download it once "
    tooltip += f"from Hugging Face.{more}"
    options = choices(kind, menu)
    return io.Combo.Input("weights", options=options, default=AUTOMATIC, optional=True, tooltip=tooltip)


def find(kind: str, menu: Mapping[str, Any], name: str, entry: str) -> Path | None:
    """The folder of a menu entry; None for a network that needs none.

    It is looked up among the folders that exist now, so no other path is possible. Raises UserError for an entry of
    another network, or one that does not exist.
    """
    loader = menu.get(name)
    if not isinstance(loader, FolderLoader):
        return None
    here = local_folders(kind, loader)
    if entry == AUTOMATIC:
        if not here:
            raise UserError(
                f"{loader.name} is not in ComfyUI's models/{kind} folder: {loader.advice()[:-1]} there, or choose "
                "under 'weights' to download it."
            )
        return next(iter(here.values()))
    if entry.startswith(DOWNLOAD) and entry.removeprefix(DOWNLOAD) in loader.hub:
        return loader.download(entry.removeprefix(DOWNLOAD))
    if entry not in here:
        raise UserError(
            f"{printable(entry)!r} does not hold {loader.name}: choose 'automatic', or another entry of 'weights'."
        )
    return here[entry]
