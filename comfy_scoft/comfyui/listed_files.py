"""Files of ComfyUI's folders of models, by the names that its lists show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..common.errors import UserError
from ..common.text import printable
from ..corrector.preference_file import ENDING
from .compat import folder_paths
from .runtime import output_folder

NONE = "none"
PREFERENCES = "scoft_preferences"
"""The name of this kind of folder in extra_model_paths.yaml."""


def listed_file(kind: str, name: str, names: Sequence[str], missing: str) -> Path:
    """The path of a file in ComfyUI's folders of a kind. Raises UserError, which begins with `missing`, unless it is
    one of the listed names."""
    if name not in names:
        raise UserError(f"{missing}: choose one from the list.")
    return Path(folder_paths.get_full_path_or_raise(kind, name))


def lora_names() -> list[str]:
    """The safetensors files of the lora folders."""
    return [name for name in folder_paths.get_filename_list("loras") if name.lower().endswith(".safetensors")]


def lora_file(name: str) -> Path:
    """The path of a listed LoRA. Raises UserError for a name that is not in the list."""
    missing = f"There is no LoRA {printable(name)!r} in the LoRA folders"
    return listed_file("loras", name, folder_paths.get_filename_list("loras"), missing)


def saved_preferences() -> Path:
    """The folder of Save Preference."""
    return output_folder() / "scoft" / "preferences"


def preference_names() -> list[str]:
    """The files in the folders of saved preferences and models/scoft_preferences, which ComfyUI lists from now on."""
    for folder in (saved_preferences(), Path(folder_paths.models_dir) / PREFERENCES):
        folder_paths.add_model_folder_path(PREFERENCES, str(folder))
    return [name for name in folder_paths.get_filename_list(PREFERENCES) if name.lower().endswith(ENDING)]


def preference_file(name: str) -> Path:
    """The path of a listed preference. Raises UserError for a name that is not in the list."""
    missing = f"There is no preference {printable(name)!r} in the preference folders"
    return listed_file(PREFERENCES, name, preference_names(), missing)


def changed(path: Path | None) -> tuple[int, int] | None:
    """Size and time of a file, so that the node runs again after the file was replaced."""
    if path is None:
        return None
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns
