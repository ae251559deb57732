"""A base model from one .safetensors file, outside ComfyUI: the mini model, or any Stable Diffusion 1.x checkpoint.

Nothing is downloaded: the configurations are those of the diffusers classes, and the vocabulary is the one that
open_clip carries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import ldm
from .base_model import BaseModel, TextEmbedding
from .mini import layout
from .schedule import NoiseSchedule

START, END, LENGTH = 49406, 49407, 77
ADVICE = "give the mini checkpoint or a Stable Diffusion 1.x checkpoint (.safetensors)."

_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
_CONTEXT = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_SD1_TEXT = {**layout.TEXT, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
_SD1_TEXT["num_attention_heads"] = 12


def load_base(path: Path, prediction: str = "epsilon", dtype: torch.dtype = torch.float32) -> BaseModel:
    """The checkpoint at `path` as a BaseModel on the CPU, its weights cast to `dtype`.

    `prediction` is what its UNet answers with; a file of this family does not say it. Raises ValueError, one sentence,
    for a missing file, one that is not safetensors, and a model of another family.
    """
    parts = {k: _cast(v, dtype) for k, v in _read(Path(path)).items()}
    width = parts["unet"].get(_CONTEXT, torch.empty(0, 0)).shape[1]
    channels = tuple(parts["unet"].get("input_blocks.0.0.weight", torch.empty(0, 0)).shape[:2])
    if (width, channels) == (layout.CONTEXT, (layout.CHANNELS[0], 4)):
        family, text = "mini", layout.TEXT
    elif (width, channels) == (768, (320, 4)):
        family, text = "sd1", _SD1_TEXT
    else:
        raise ValueError(f"{Path(path).name} holds a model that is not supported here: {ADVICE}")
    vae, own_scale = _autoencoder(parts["vae"])
    return BaseModel(
        unet=_unet(family, parts["unet"]),
        vae=vae,
        schedule=NoiseSchedule.scaled_linear(prediction=prediction),
        embed=_embedder(text, parts["text"]),
        family=family,
        name=Path(path).stem,
        vae_scaling=ldm.latent_scaling(layout.LATENT_SCALE, own_scale),
    )


def token_ids(caption: str) -> Tensor:
    """(1, 77) int64: start, at most 75 tokens of CLIP's vocabulary, end, and the end token again as padding."""
    ids = [START, *_vocabulary().encode(caption)[: LENGTH - 2], END]
    return torch.tensor([ids + [END] * (LENGTH - len(ids))])


@lru_cache(maxsize=1)
def _vocabulary() -> Any:
    import open_clip

    return open_clip.SimpleTokenizer()


def _read(path: Path) -> dict[str, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(f"There is no file {path.name!r} in {str(path.parent)!r}: {ADVICE}")
    prefixes = {"unet": _UNET, "vae": _VAE, "text": _TEXT}
    found: dict[str, dict[str, Tensor]] = {name: {} for name in prefixes}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                for name, prefix in prefixes.items():
                    if key.startswith(prefix):
                        found[name][key[len(prefix) :]] = file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is not a safetensors file that can be read: {ADVICE}") from error
    lacking = [name for name, weights in found.items() if not weights]
    if lacking:
        raise ValueError(f"{path.name} holds no {' and no '.join(lacking)} weights of Stable Diffusion 1.x: {ADVICE}")
    return found


def _cast(weights: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {k: v.to(dtype) if v.is_floating_point() and v.ndim else v for k, v in weights.items()}


def _unet(family: str, weights: dict[str, Tensor]) -> Any:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        if family == "mini":
            unet = layout.build_unet()
        else:  # diffusers' defaults are Stable Diffusion 1.x, but for these three
            unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    names = ldm.unet_names(unet.state_dict(), unet.config.layers_per_block)
    return ldm.fill(unet, names, weights, "the UNet", ADVICE)


def _autoencoder(weights: dict[str, Tensor]) -> tuple[Any, float]:
    """The autoencoder, and the factor that its latents carry already (1.0, or TAESD's own)."""
    from diffusers import AutoencoderKL

    if "taesd_decoder.1.weight" in weights:
        scale = float(weights.pop("vae_scale", 1.0))
        weights.pop("vae_shift", None)
        with torch.device("meta"):
            tiny = layout.build_autoencoder()
        return ldm.fill(tiny, ldm.taesd_names(tiny.state_dict()), weights, "the TAESD", ADVICE), scale
    with torch.device("meta"):
        full = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
        )
    known = {k: v for k, v in weights.items() if not k.startswith(("loss.", "model_ema."))}
    return ldm.fill(full, ldm.vae_names(full.state_dict()), known, "the VAE", ADVICE), 1.0


def _embedder(config: dict[str, Any], weights: dict[str, Tensor]) -> Callable[[str], TextEmbedding]:
    encoder = text_encoder(config, weights)

    def embed(caption: str) -> TextEmbedding:
        with torch.no_grad():
            return TextEmbedding(encoder(token_ids(caption))[0])

    return embed


def text_encoder(config: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    """transformers' CLIPTextModel with the text weights of a single file ("text_model.…"), frozen.

    With "eager" attention its hidden states are, bit for bit, those of ComfyUI on a CPU: a job exported there trains
    the same LoRA here (a test compares the two).
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    encoder = CLIPTextModel(CLIPTextConfig(**config, attn_implementation="eager"))
    weights = ldm.expand_rows(weights, "text_model.embeddings.token_embedding.weight")
    known = {k.removeprefix("text_model."): v for k, v in weights.items() if not k.endswith("position_ids")}
    # transformers 5 dropped "text_model." from its own names
    names = {k: k.removeprefix("text_model.") for k in encoder.state_dict() if not k.endswith("position_ids")}
    return ldm.fill(encoder, names, known, "the text encoder", ADVICE)
