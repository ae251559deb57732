"""LoRA files of ComfyUI's folders, by the names that its lists show."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ..common.errors import UserError
from .compat import folder_paths

NONE = "none"


def lora_names() -> list[str]:
    """The safetensors files of the lora folders."""
    return [name for name in folder_paths.get_filename_list("loras") if name.lower().endswith(".safetensors")]


def lora_file(name: str) -> Path:
    """The path of a listed LoRA. Raises UserError for a name that is not in the list."""
    if name not in folder_paths.get_filename_list("loras"):
        raise UserError(f"There is no LoRA {name!r} in the LoRA folders: choose one from the list.")
    return Path(folder_paths.get_full_path_or_raise("loras", name))


def read_lora(name: str) -> dict[str, Tensor]:
    """The tensors of a listed LoRA. Raises UserError for a file that cannot be read."""
    path = lora_file(name)
    try:
        return load_file(path)
    except Exception as error:  # safetensors has its own kind of error, and a missing file another
        raise UserError(f"The LoRA {name!r} cannot be read ({error}): choose another safetensors file.") from error
