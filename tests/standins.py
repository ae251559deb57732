"""Model files of random weights with the names, keys, shapes and number type of the real ones.

What a person downloads is several GB and needs the internet; these files come from a generator and go through the same
loaders. Names and shapes are those of ComfyUI's own modules, and of open_clip's for the text encoders that were
published in its form: nothing here comes from the pack. Weights are scaled so that signals keep their size on the way
through. Files are written into a folder of the test's, never committed:

    python tests/standins.py FOLDER [name …] [--small]      (with COMFYUI_PATH set) writes FOLDER/<kind>/<file>
"""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import comfy_inprocess
import torch
from safetensors.torch import save_file
from small_models import CLIP_G, CLIP_L, SMALL, WORDS
from torch import Tensor

Shapes = dict[str, torch.Size]

FULL = {
    "sd1": {**SMALL["sd1"], "model_channels": 320, "context_dim": 768},
    "sdxl": {
        **SMALL["sdxl"],
        "model_channels": 320,
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
        "context_dim": 2048,
        "adm_in_channels": 2816,
    },
}
FULL["sd2"] = {**FULL["sd1"], "context_dim": 1024, "use_linear_in_transformer": True}
SIZES = {"full": FULL, "small": SMALL}
HEADS = {"sd1": {"num_heads": 8, "num_head_channels": -1}}
PER_HEAD = {"num_heads": -1, "num_head_channels": 64}

OPENAI_L = {**WORDS, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
OPENAI_L |= {"hidden_act": "quick_gelu", "projection_dim": 768}
OPENCLIP_H = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "projection_dim": 1024}
OPENCLIP_G = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280}

FILES = {
    "sd1": ("checkpoints", "v1-5-pruned-emaonly-fp16.safetensors"),
    "sd1-depth": ("controlnet", "control_v11f1p_sd15_depth_fp16.safetensors"),
    "sd1-inpainting": ("checkpoints", "sd-v1-5-inpainting.safetensors"),
    "sd2": ("checkpoints", "v2-1_768-ema-pruned.safetensors"),
    "sdxl": ("checkpoints", "sd_xl_base_1.0.safetensors"),
    "sdxl-depth": ("controlnet", "controlnet-depth-sdxl-1.0.safetensors"),
    "sd3": ("checkpoints", "sd3_medium.safetensors"),
}
"""Folder below ComfyUI's `models`, and file name, of each stand-in."""


def write(name: str, models: Path, size: str = "full") -> Path:
    """Write the stand-in `name` at its place below `models`, fp16, once; returns its path. size: "full" or "small"."""
    kind, file = FILES[name]
    path = models / kind / file
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file({key: drawn(key, shape) for key, shape in shapes(name, size).items()} | extras(name), part)
        part.rename(path)
    return path


def shapes(name: str, size: str = "full") -> Shapes:
    """Every weight of the file `name`, by its name there."""
    family = name.split("-")[0]
    if name == "sd3":
        return prefixed("model.diffusion_model.", _mmdit()) | prefixed("first_stage_model.", _vae(16))
    if name.endswith("-depth"):
        return prefixed("control_model." if family == "sd1" else "", _controlnet(SIZES[size][family], family))
    channels = 9 if name.endswith("inpainting") else 4
    found = prefixed("model.diffusion_model.", unet(SIZES[size][family], family, channels))
    return found | prefixed("first_stage_model.", _vae(4)) | _texts(family, size)


def drawn(name: str, shape: torch.Size, dtype: torch.dtype = torch.float16) -> Tensor:
    """A weight's values, decided by its name: near 1 for norms, small for biases, 1/√fan-in for everything else."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if not shape:
        return torch.tensor(math.log(100.0), dtype=dtype)
    noise = torch.randn(shape, generator=generator)
    if name.endswith("output_blocks.11.1.transformer_blocks.0.norm1.bias"):
        return (0.2 * noise).to(dtype)  # by its spread ComfyUI knows that SD 2.1's 768 px model predicts v
    if len(shape) == 1:
        return (0.02 * noise + (1.0 if name.endswith("weight") else 0.0)).to(dtype)
    if "embedding" in name:
        return (0.02 * noise).to(dtype)
    return (noise / math.prod(shape[1:]) ** 0.5).to(dtype)


def extras(name: str) -> dict[str, Tensor]:
    """What the published files hold besides weights: the noise schedule, position numbers, an average's counters."""
    if name not in ("sd1", "sd1-inpainting"):
        return {}
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    product = torch.cumprod(1 - betas, 0)
    return {
        "alphas_cumprod": product.float(),
        "betas": betas.float(),
        "sqrt_alphas_cumprod": product.sqrt().float(),
        "sqrt_one_minus_alphas_cumprod": (1 - product).sqrt().float(),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77).unsqueeze(0),
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(0, dtype=torch.int32),
    }


def prefixed(prefix: str, found: Mapping[str, torch.Size]) -> Shapes:
    return {prefix + key: shape for key, shape in found.items()}


def unet_config(config: Mapping[str, Any], family: str, channels: int = 4) -> dict[str, Any]:
    """Arguments of ComfyUI's UNetModel."""
    label = {"num_classes": "sequential"} if config["adm_in_channels"] else {}
    heads = HEADS.get(family, PER_HEAD)
    return {**comfy_inprocess.COMMON, **config, **heads, **label, "in_channels": channels}


def unet(config: Mapping[str, Any], family: str, channels: int = 4) -> Shapes:
    comfy = comfy_inprocess.start()
    kind = comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel
    return _of(lambda: kind(**unet_config(config, family, channels)))


def _controlnet(config: Mapping[str, Any], family: str) -> Shapes:
    comfy = comfy_inprocess.start()
    arguments = {**unet_config(config, family), "hint_channels": 3}
    del arguments["out_channels"], arguments["transformer_depth_output"]
    return _of(lambda: comfy.cldm.cldm.ControlNet(**arguments))


def _vae(channels: int) -> Shapes:
    comfy = comfy_inprocess.start()
    settings = {"double_z": True, "z_channels": channels, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128}
    settings |= {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    return _of(lambda: comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=settings, embed_dim=channels))


def _mmdit() -> Shapes:
    """Stable Diffusion 3 with two blocks, 128 wide: enough for ComfyUI to know it."""
    comfy = comfy_inprocess.start()
    kind = comfy.ldm.modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper
    context = {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}}
    sizes: dict[str, Any] = {
        "patch_size": 2,
        "in_channels": 16,
        "depth": 2,
        "adm_in_channels": 2048,
        "pos_embed_max_size": 192,
    }
    sizes |= {"operations": comfy.ops.disable_weight_init}
    return _of(lambda: kind(input_size=None, context_embedder_config=context, num_patches=36864, **sizes))


def _texts(family: str, size: str) -> Shapes:
    first = OPENAI_L if size == "full" else CLIP_L
    if family == "sd1":
        return prefixed("cond_stage_model.transformer.", _clip(first))
    if family == "sd2":
        return prefixed("cond_stage_model.model.", _open_clip(OPENCLIP_H))
    second = OPENCLIP_G if size == "full" else CLIP_G
    found = prefixed("conditioner.embedders.0.transformer.", _clip(first))
    return found | prefixed("conditioner.embedders.1.model.", _open_clip(second))


def _clip(config: Mapping[str, Any]) -> Shapes:
    comfy = comfy_inprocess.start()
    found = _of(lambda: comfy.clip_model.CLIPTextModel(config, torch.float32, None, comfy.ops.disable_weight_init))
    del found["text_projection.weight"]
    return found


def _open_clip(config: Mapping[str, Any]) -> Shapes:
    from open_clip.model import CLIP

    text = {"context_length": 77, "vocab_size": 49408, "width": config["hidden_size"]}
    text |= {"heads": config["num_attention_heads"], "layers": config["num_hidden_layers"]}
    if "intermediate_size" in config:
        text |= {"mlp_ratio": config["intermediate_size"] / config["hidden_size"]}
    eye = {"layers": 1, "width": 64, "image_size": 32, "patch_size": 32}
    found = _of(lambda: CLIP(embed_dim=config["projection_dim"], vision_cfg=eye, text_cfg=text))
    return {key: shape for key, shape in found.items() if not key.startswith("visual.")}


def _of(make: Callable[[], torch.nn.Module]) -> Shapes:
    with torch.device("meta"):
        return {key: value.shape for key, value in make().state_dict().items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="ComfyUI's models folder, or any other")
    parser.add_argument("names", nargs="*", default=["sd1", "sd1-depth"], help=", ".join(FILES))
    parser.add_argument("--small", action="store_true", help="a fraction of the width (see small_models.py)")
    options = parser.parse_args()
    for name in options.names:
        path = write(name, options.folder, "small" if options.small else "full")
        print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
