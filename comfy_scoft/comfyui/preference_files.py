"""Preference files of ComfyUI's folders, by the names that a list shows."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import UserError
from ..corrector.preference_file import ENDING
from .compat import folder_paths
from .runtime import output_folder

KIND = "scoft_preferences"
"""The name of this kind of folder in extra_model_paths.yaml."""


def saved_folder() -> Path:
    """The folder of Save Preference."""
    return output_folder() / "scoft" / "preferences"


def register() -> None:
    """Add the folders of saved preferences and models/scoft_preferences to ComfyUI's lists. Safe to call again."""
    for folder in (saved_folder(), Path(folder_paths.models_dir) / KIND):
        folder_paths.add_model_folder_path(KIND, str(folder))


def preference_names() -> list[str]:
    register()
    return [name for name in folder_paths.get_filename_list(KIND) if name.lower().endswith(ENDING)]


def preference_file(name: str) -> Path:
    """The path of a listed preference. Raises UserError for a name that is not in the list."""
    if name not in preference_names():
        raise UserError(f"There is no preference {name!r} in the preference folders: choose one from the list.")
    return Path(folder_paths.get_full_path_or_raise(KIND, name))
