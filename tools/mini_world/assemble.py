"""Step 8 of the mini world: the trained parts as single files in the formats that everyone loads, in fp16.

    python tools/mini_world/assemble.py --autoencoder DIR --tower clip.pt --unet unet.pt --controlnet controlnet.pt

DIR is a diffusers AutoencoderTiny folder, clip.pt the file of build_tower.py, the other two state dicts of
layout.build_unet() and layout.build_controlnet(). Writes scoft-mini.safetensors (the layout of an SD 1.x checkpoint
with a TAESD as its VAE), scoft-mini-depth.safetensors (the layout of lllyasviel's ControlNets) and
scoft-mini-clip.safetensors (the open_clip tower). The vocabulary keeps only the rows that the captions use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

sys.path.append(str(Path(__file__).parents[2]))

from comfy_scoft.common.files import write_atomically  # noqa: E402
from comfy_scoft.models import state_dict_keys  # noqa: E402
from comfy_scoft.models.mini import layout  # noqa: E402

EMBEDDING = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
NOTICE = "Made with Twemoji art, copyright Twitter, Inc and other contributors, CC-BY 4.0."


def checkpoint(
    unet: Mapping[str, Tensor], autoencoder: Mapping[str, Tensor], tower: Mapping[str, Tensor], used: Iterable[int]
) -> dict[str, Tensor]:
    """The mini checkpoint under single-file names, before the change to fp16."""
    state = {f"model.diffusion_model.{n}": unet[k] for k, n in state_dict_keys.unet_names(unet, 1).items()}
    state |= {f"first_stage_model.{n}": autoencoder[k] for k, n in state_dict_keys.taesd_names(autoencoder).items()}
    state["first_stage_model.vae_scale"] = torch.tensor(layout.LATENT_SCALE)
    state["first_stage_model.vae_shift"] = torch.tensor(0.0)
    state |= {f"cond_stage_model.transformer.{k}": v for k, v in state_dict_keys.clip_text_weights(tower).items()}
    return state_dict_keys.prune_rows(state, EMBEDDING, used)


def controlnet(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ControlNet as `control_model.…`: ComfyUI finds a mini one by its shapes in this form only.

    (For the diffusers form its loader has a closed list of configurations.)
    """
    return {f"control_model.{n}": weights[k] for k, n in state_dict_keys.unet_names(weights, 1).items()}


def write(weights: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """fp16 safetensors, atomically; the scale of the latents stays float32, row numbers stay integers."""
    half = {
        k: (v.half() if v.is_floating_point() and v.ndim else v).detach().cpu().contiguous().clone()
        for k, v in weights.items()
    }
    bad = [k for k, v in half.items() if not torch.isfinite(v).all()]
    if bad:
        raise SystemExit(f"{bad[0]} does not fit in fp16: train it again, or clip it.")
    write_atomically(path, save(half, metadata={"format": "pt", "modelspec.license": NOTICE, **metadata}))
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {len(half)} tensors")


def _state(path: Path) -> Any:
    if path.is_dir():
        return load_file(next(path.glob("*.safetensors")))
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def assemble(autoencoder: Path, tower: Path, unet: Path, control: Path | None, out: Path = layout.WEIGHTS) -> None:
    """Write every file whose parts are given."""
    clip = _state(tower)
    used = set(clip["used"]) | {0, 49406, 49407}
    whole = checkpoint(_state(unet), _state(autoencoder), clip["clip"], used)
    title = {"modelspec.title": "SCoFT mini world", "modelspec.architecture": "stable-diffusion-v1"}
    write(whole, out / "checkpoints" / layout.CHECKPOINT, title)
    pruned = state_dict_keys.prune_rows(clip["clip"], "token_embedding.weight", used)
    write(pruned, out / "clip" / layout.TOWER, {"modelspec.title": "SCoFT mini world, CLIP"})
    if control is not None:
        title = {"modelspec.title": "SCoFT mini world, depth ControlNet"}
        write(controlnet(_state(control)), out / "controlnet" / layout.CONTROLNET, title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--tower", type=Path, required=True)
    parser.add_argument("--unet", type=Path, required=True)
    parser.add_argument("--controlnet", type=Path)
    parser.add_argument("--out", type=Path, default=layout.WEIGHTS)
    args = parser.parse_args()
    assemble(args.autoencoder, args.tower, args.unet, args.controlnet, args.out)


if __name__ == "__main__":
    main()
