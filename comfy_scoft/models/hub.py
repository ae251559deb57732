"""Networks that a person keeps in a folder of their own, in the form in which the Hugging Face hub gives them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from ..common.errors import UserError

Network = TypeVar("Network")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class FolderLoader(Generic[Network]):
    """Loads a network from a folder; menus read from it which folders fit and what the hub has.

    name: what a person chooses. load: (folder, device) -> the network, from local files alone.
    weights: the file that holds its weights. model_type: what its config.json says it is; "" for one without.
    hub: repositories that a person may choose to download, the first is the usual one.
    """

    name: str
    load: Callable[[Path, torch.device], Network]
    weights: str
    model_type: str
    hub: tuple[str, ...]

    def __call__(self, folder: Path | None = None, device: torch.device = CPU) -> Network:
        """The network on `device`. Raises UserError without a folder, and for one that holds something else."""
        if folder is None:
            raise UserError(f"{self.name} needs a folder with its weights: {self.advice()}")
        if not self.fits(folder):
            raise UserError(f"The folder {folder.name!r} holds no {self.name}: {self.advice()}")
        try:
            return self.load(folder, device)
        except UserError:
            raise
        except ImportError as error:
            raise UserError(
                f"{self.name} needs the package {error.name or 'of its own'}: run `python install.py` in this pack's "
                "folder with ComfyUI's Python."
            ) from error
        except Exception as error:  # each library has errors of its own for damaged or foreign files
            raise UserError(
                f"The {self.name} in {folder.name!r} is incomplete, damaged or of another kind: download it again."
            ) from error

    def fits(self, folder: Path) -> bool:
        """Whether the folder holds this network's weights, by its config.json. Reads no weights."""
        if not (folder / self.weights).is_file():
            return False
        if not self.model_type:
            return True
        try:
            config = json.loads((folder / "config.json").read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(config, dict) and config.get("model_type") == self.model_type

    def advice(self) -> str:
        return f"put all small files and {self.weights} of {self.hub[0]} into a folder of their own."

    def download(self, repository: str) -> Path:
        """The folder of a repository of `hub`, fetched where it is not in the hub's cache yet.

        Only ever called because a person chose it by name. Raises UserError when it cannot be had.
        """
        from huggingface_hub import snapshot_download

        assert repository in self.hub
        try:
            return Path(snapshot_download(repository, allow_patterns=["*.json", "*.txt", self.weights]))
        except Exception as error:  # no network, no such repository, no space: the hub's client has many errors
            raise UserError(
                f"{repository} could not be fetched from the hub ({type(error).__name__}): check the connection, or "
                "choose a folder of your own."
            ) from error
