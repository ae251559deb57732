"""A base model from one .safetensors file, outside ComfyUI: Stable Diffusion 1.x, 2.x and XL, and the mini model.

Nothing is downloaded: the configurations of the families are in `configs/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.files import regular
from . import state_dict_keys
from .mini import layout
from .noise_schedule import NoiseSchedule
from .stable_diffusion import BaseModel, family_of
from .text_encoder import LongCaptions, embedder, text_encoder, token_ids

CONFIGS = Path(__file__).parent / "configs"
ADVICE = "give a Stable Diffusion 1.x, 2.x or XL checkpoint (.safetensors), or the mini one."

_PREFIXES = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text": ("cond_stage_model.", "conditioner.embedders."),
}
_MARKS = ("v_pred", "ztsnr")
"""Names, without a value, by which SD XL files say that they predict v, and that their noise ends at zero SNR."""

Weights = dict[str, Tensor]


def load_base(
    path: Path,
    prediction: str | None = None,
    dtype: torch.dtype = torch.float32,
    long_captions: LongCaptions = LongCaptions.ALL,
) -> BaseModel:
    """The checkpoint at `path` as a BaseModel on the CPU, its weights cast to `dtype`.

    prediction: what its UNet answers with, "epsilon" or "v_prediction"; None takes what the file tells: SD XL files
    carry a mark, and SD 2.x is told by one bias, as ComfyUI does. Raises UserError, one sentence, for a missing file,
    one that is not safetensors, and a model of another family.
    """
    with _opened(path) as file:
        names = list(file.keys())
    lacking = [part for part, starts in _PREFIXES.items() if not any(n.startswith(starts) for n in names)]
    if lacking:
        raise UserError(f"{path.name} holds no {' and no '.join(lacking)} weights of Stable Diffusion: {ADVICE}")
    weights = _read(path, _PREFIXES["unet"][0], dtype)
    family = _family(weights, path.name)
    config = configuration(family)
    vae, own_scale = autoencoder(_read(path, _PREFIXES["vae"][0], dtype))
    return BaseModel(
        unet=_unet(family, weights),
        vae=vae,
        schedule=_schedule(family, weights, names, prediction),
        embed=embedder(config["text"], lambda prefix: _read(path, prefix, dtype), ADVICE, long_captions),
        family=family,
        name=path.stem,
        vae_scaling=state_dict_keys.latent_scaling(config["latent_scale"], own_scale),
    )


def configuration(family: str) -> dict[str, Any]:
    """A family's shapes: "unet" (arguments of UNet2DConditionModel), "text" (its encoders) and "latent_scale"."""
    if family == "mini":
        text = {"prefix": "cond_stage_model.transformer.", "names": "transformers", "hidden": "last", "pad": 49407}
        return {"text": [{**text, "config": layout.TEXT}], "latent_scale": layout.LATENT_SCALE}
    return json.loads((CONFIGS / f"{family}.json").read_bytes())


def _read(path: Path, prefix: str, dtype: torch.dtype) -> Weights:
    """The weights under `prefix`, without it. Whole numbers and single values keep their type."""
    found = {}
    with _opened(path) as file:
        for key in file.keys():  # noqa: SIM118 - not a dict
            if key.startswith(prefix):
                value = file.get_tensor(key)
                found[key[len(prefix) :]] = value.to(dtype) if value.is_floating_point() and value.ndim else value
    return found


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"There is no file {path.name!r} in {str(path.parent)!r}: {ADVICE}")
    try:
        return safe_open(regular(path), framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path.name} is not a safetensors file that can be read: {ADVICE}") from error


def _family(unet: Mapping[str, Tensor], name: str) -> str:
    """The family whose sizes the UNet has: first width, channels in, width of the text, and of the label."""
    first = unet.get("input_blocks.0.0.weight", torch.empty(0, 0))
    label = unet.get("label_emb.0.0.weight", torch.empty(0, 0)).shape[1]
    text = next((v.shape[1] for k, v in unet.items() if k.endswith("attn2.to_k.weight")), 0)
    width, channels = first.shape[:2]
    linear = any(v.ndim == 2 for k, v in unet.items() if k.endswith("proj_in.weight"))
    family = family_of(text_width=text, pooled=label > 0, linear=linear)
    known = (layout.CHANNELS[0], layout.CONTEXT, 0)
    if family != "mini":
        sizes = configuration(family)["unet"]
        extra = sizes.get("projection_class_embeddings_input_dim", 0)
        known = (sizes["block_out_channels"][0], sizes["cross_attention_dim"], extra)
    if (width, text, label) == known:
        if channels != 4:
            raise UserError(f"{name} takes {channels} channels, as inpainting and edit models do: {ADVICE}")
        return family
    if width and text == 1280 and label == 2560:
        raise UserError(f"{name} is the refiner of Stable Diffusion XL, which only finishes images: {ADVICE}")
    raise UserError(f"{name} holds a model that is not supported here: {ADVICE}")


def _unet(family: str, weights: Weights) -> Any:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = layout.build_unet() if family == "mini" else UNet2DConditionModel(**configuration(family)["unet"])
    names = state_dict_keys.unet_names(unet.state_dict(), unet.config.layers_per_block)
    return state_dict_keys.fill(unet, names, weights, "the UNet", ADVICE)


def autoencoder(weights: Mapping[str, Tensor], what: str = "the VAE", advice: str = ADVICE) -> tuple[Any, float]:
    """An AutoencoderKL or AutoencoderTiny of single-file weights, frozen, and the factor its latents carry already.

    The factor is 1.0, or TAESD's own (0.18215 for one of SD 1.x). The sizes are read from the weights. Raises
    UserError, naming `what` and `advice`, for the autoencoder of another family.
    """
    from diffusers import AutoencoderKL, AutoencoderTiny

    weights = {k: v for k, v in weights.items() if not k.startswith(("loss.", "model_ema."))}
    if "taesd_decoder.1.weight" in weights:
        scale, shift = (float(weights.pop(k, torch.tensor(d))) for k, d in (("vae_scale", 1.0), ("vae_shift", 0.0)))
        if weights["taesd_decoder.1.weight"].shape[1] != 4 or shift != 0.0:
            raise UserError(f"{_sentence(what)} is a TAESD of another model family: {advice}")
        with torch.device("meta"):
            tiny = AutoencoderTiny(latent_channels=4)
        tiny_names = state_dict_keys.taesd_names(tiny.state_dict())
        return state_dict_keys.fill(tiny, tiny_names, weights, f"{what} (TAESD)", advice), scale
    if "post_quant_conv.weight" not in weights or weights["decoder.conv_in.weight"].shape[1] != 4:
        raise UserError(f"{_sentence(what)} is not one of Stable Diffusion 1.x, 2.x or XL: {advice}")
    channels: list[int] = []
    blocks = 0
    while (found := weights.get(f"encoder.down.{len(channels)}.block.0.conv1.weight")) is not None:
        channels.append(found.shape[0])
    while f"encoder.down.0.block.{blocks}.conv1.weight" in weights:
        blocks += 1
    with torch.device("meta"):
        full = AutoencoderKL(
            block_out_channels=tuple(channels),
            layers_per_block=blocks,
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            latent_channels=4,
        )
    return state_dict_keys.fill(full, state_dict_keys.vae_names(full.state_dict()), weights, what, advice), 1.0


def _sentence(what: str) -> str:
    return what[:1].upper() + what[1:]


def _schedule(family: str, unet: Weights, names: list[str], prediction: str | None) -> NoiseSchedule:
    if prediction is None:
        bias = unet.get("output_blocks.11.1.transformer_blocks.0.norm1.bias") if family == "sd2" else None
        marked = bias is not None and float(bias.float().std(unbiased=False)) > 0.09  # ComfyUI's own line
        prediction = "v_prediction" if marked or (family == "sdxl" and _MARKS[0] in names) else "epsilon"
    usual = NoiseSchedule.scaled_linear(prediction=prediction)
    zero = family == "sdxl" and prediction == "v_prediction" and _MARKS[1] in names
    return zero_terminal(usual) if zero else usual


def zero_terminal(schedule: NoiseSchedule) -> NoiseSchedule:
    """The schedule with √ᾱ moved and stretched so that its last step is (nearly) all noise (Lin et al. 2024).

    The last ᾱ is 4.9e-8 instead of 0, as in ComfyUI, which needs a finite σ there.
    """
    root = schedule.alphas_cumprod.sqrt()
    table = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    table[-1] = 4.8973451890853435e-08
    return NoiseSchedule(table, schedule.prediction)


__all__ = ["autoencoder", "configuration", "load_base", "text_encoder", "token_ids", "zero_terminal"]
