"""TAESD, the small autoencoder of ComfyUI's previews: decodes the rollout's image with little memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import UserError
from ..models.stable_diffusion import BaseModel
from .compat import comfy, folder_paths
from .to_diffusers import vae_from_vae

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny

NAMES = {"sd1": "taesd", "sd2": "taesd", "sdxl": "taesdxl"}
FOLDER = "vae_approx"


def small_vae(base: BaseModel) -> AutoencoderTiny | None:
    """The TAESD of the base model's latents from models/vae_approx, or None if its two files are not there.

    Raises UserError for files with other content.
    """
    name = NAMES.get(base.family)
    files = {part: _file(f"{name}_{part}.") for part in ("encoder", "decoder")} if name else {}
    if not files or None in files.values():
        return None
    try:
        weights = {
            f"taesd_{part}.{key}": value
            for part, path in files.items()
            for key, value in comfy.utils.load_torch_file(str(path), safe_load=True).items()
        }
        module, _ = vae_from_vae(comfy.sd.VAE(sd=weights))
    except Exception as error:  # torch, safetensors and pickle each have errors of their own for a wrong file
        raise UserError(
            f"The files {name}_encoder and {name}_decoder in models/{FOLDER} are not those of TAESD: download them "
            "again, or remove them."
        ) from error
    return module  # type: ignore[return-value]  # these keys make a TAESD


def _file(start: str) -> Path | None:
    names = [name for name in folder_paths.get_filename_list(FOLDER) if Path(name).name.startswith(start)]
    path = folder_paths.get_full_path(FOLDER, names[0]) if names else None
    return None if path is None else Path(path)
