"""ComfyUI's native sockets -> diffusers modules on the same storage.

A weight without patches is aliased: the module reads the same bytes as ComfyUI, and nothing in the pack writes to them.
A weight with patches (a LoRA on the MODEL) is computed once in float32. The converted modules are frozen.
Call `runtime.free_memory()` before converting: ComfyUI then keeps one copy of the weights, the one that is aliased.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..models import state_dict_keys
from ..models.noise_schedule import NoiseSchedule
from ..models.single_file import autoencoder
from ..models.stable_diffusion import BaseModel, TextEmbedding, family_of
from ..models.text_encoder import LongCaptions
from .compat import comfy

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

WHOLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SUPPORTED = "SCoFT trains Stable Diffusion 1.x, 2.x and XL base models: choose one of these."


def base_model(
    model: Any, clip: Any, vae: Any, name: str = "base", long_captions: LongCaptions = LongCaptions.ALL
) -> BaseModel:
    """MODEL, CLIP and VAE as one BaseModel, on ComfyUI's storage and device.

    Raises UserError for a model that cannot be trained, or parts that do not belong together.
    """
    unet = unet_from_model(model)
    autoencoder, own_scale = vae_from_vae(vae)
    scale = float(model.get_model_object("latent_format").scale_factor)
    width, pooled = unet.config.cross_attention_dim, unet.config.addition_embed_type is not None
    return BaseModel(
        unet=unet,
        vae=autoencoder,
        schedule=schedule_from_model(model),
        embed=embedder(clip, pooled=pooled, width=width, long_captions=long_captions),
        family=family_of(text_width=width, pooled=pooled, linear=unet.config.use_linear_projection),
        name=name,
        vae_scaling=state_dict_keys.latent_scaling(scale, own_scale),
    )


def unet_from_model(model: Any) -> UNet2DConditionModel:
    """MODEL (a ModelPatcher) -> UNet2DConditionModel, frozen, in eval mode; LoRAs in the graph are applied."""
    from diffusers import UNet2DConditionModel

    kind = type(model.model).__name__
    config = getattr(model.model.model_config, "unet_config", {})
    base = (comfy.model_base.BaseModel, comfy.model_base.SDXL)
    if type(model.model) not in base or "model_channels" not in config or not hasattr(model.model, "diffusion_model"):
        raise UserError(f"This MODEL is a {kind} and cannot be trained here: {SUPPORTED}")
    if config.get("in_channels") != 4 or config.get("out_channels", 4) != 4 or model.model.concat_keys:
        count = config.get("in_channels")
        raise UserError(f"This MODEL takes {count} channels, as inpainting and edit models do: {SUPPORTED}")
    patches = model.model_options.get("transformer_options", {})
    if any(patches.get(k) for k in ("patches", "patches_replace")) or "model_function_wrapper" in model.model_options:
        raise UserError(
            "This MODEL carries patches that change how its UNet runs (such as IP-Adapter or FreeU), which training "
            "cannot follow: connect the MODEL from before that node."
        )
    arguments = unet_arguments(config)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**arguments)
    names = state_dict_keys.unet_names(unet.state_dict(), arguments["layers_per_block"])
    upcast = getattr(model.model, "manual_cast_dtype", None) or torch.float32
    weights = _weights(model, "diffusion_model.", upcast)
    return state_dict_keys.fill(unet, names, weights, f"the MODEL ({kind})", SUPPORTED)


def unet_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of UNet2DConditionModel for ComfyUI's `unet_config`; UserError for a layout diffusers cannot build."""
    layers, channels = config["num_res_blocks"], [config["model_channels"] * m for m in config["channel_mult"]]
    odd = [k for k in ("disable_self_attentions", "use_temporal_attention", "use_temporal_resblock") if config.get(k)]
    if odd or len(set(layers)) != 1:
        raise UserError(f"This MODEL has an unusual layout ({', '.join(odd) or 'uneven levels'}): {SUPPORTED}")
    count, levels = layers[0], len(channels)
    down = [tuple(config["transformer_depth"][i * count : (i + 1) * count]) for i in range(levels)]
    backwards = list(config["transformer_depth_output"])[::-1]
    up = [tuple(backwards[i * (count + 1) : (i + 1) * (count + 1)]) for i in range(levels)]
    middle = config["transformer_depth_middle"]
    if any(0 < sum(map(bool, d)) < len(d) for d in down + up):
        raise UserError(f"This MODEL mixes blocks with and without attention in one level: {SUPPORTED}")
    attended = [any(d) for d in down]
    if not attended[-1]:  # diffusers reads the depth of the middle block here
        down[-1] = (middle if middle >= 0 else 1,) * count
    if middle > 0 and set(down[-1]) != {middle}:
        raise UserError(f"This MODEL's middle block and its last level differ in depth: {SUPPORTED}")
    heads = config.get("num_heads", -1)
    per_head = config.get("num_head_channels", -1)
    extra = config.get("adm_in_channels")
    return {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": tuple(channels),
        "layers_per_block": count,
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended),
        "up_block_types": tuple("CrossAttnUpBlock2D" if any(d) else "UpBlock2D" for d in up),
        "mid_block_type": {-1: "UNetMidBlock2D", -2: None}.get(middle, "UNetMidBlock2DCrossAttn"),
        "transformer_layers_per_block": [d[0] if len(set(d)) == 1 else d for d in down],
        "reverse_transformer_layers_per_block": [d[0] if len(set(d)) == 1 else d for d in up],
        "attention_head_dim": tuple(c // per_head for c in channels) if per_head > 0 else heads,
        "cross_attention_dim": config["context_dim"],
        "use_linear_projection": bool(config["use_linear_in_transformer"]),
        "upcast_attention": config.get("attn_precision") == torch.float32,
        **({"addition_embed_type": "text_time", "addition_time_embed_dim": 256} if extra else {}),
        **({"projection_class_embeddings_input_dim": extra} if extra else {}),
    }


def vae_from_vae(vae: Any) -> tuple[AutoencoderKL | AutoencoderTiny, float]:
    """VAE -> (AutoencoderKL, 1.0) or (AutoencoderTiny, its own latent scale), frozen and in eval mode.

    The second value is the factor that the module's latents already have, 0.18215 for a TAESD of SD 1.x. The dtype is
    the file's: `placement.to_device` converts it to float32 before use, since that of SD XL overflows in float16.
    """
    if not hasattr(vae, "patcher"):  # ComfyUI's VAE for a file without one
        raise UserError("This VAE holds no weights: connect the VAE of the checkpoint, or Load VAE.")
    return autoencoder(_weights(vae.patcher, "", torch.float32), "this VAE", "connect the checkpoint's own VAE.")


def schedule_from_model(model: Any) -> NoiseSchedule:
    """The MODEL's own noise schedule: ᾱ = 1 / (1 + σ²), with the prediction type of its sampling object.

    Zero-terminal-SNR and v-prediction models (set by the checkpoint or a ModelSampling node) are supported. ComfyUI
    keeps σ in float32; a table that equals the usual one at that precision is replaced by the float64 original.
    """
    sampling, kinds = model.get_model_object("model_sampling"), comfy.model_sampling
    predictions = {kinds.V_PREDICTION: "v_prediction", kinds.EPS: "epsilon"}
    denoise, timestep = type(sampling).calculate_denoised, type(sampling).timestep
    prediction = next((p for kind, p in predictions.items() if denoise is kind.calculate_denoised), None)
    if prediction is None or timestep is not kinds.ModelSamplingDiscrete.timestep:  # LCM, x0, EDM, flow, …
        name = "/".join(kind.__name__ for kind in type(sampling).__bases__)
        raise UserError(f"This MODEL is sampled as {name}, not with noise or v prediction: {SUPPORTED}")
    sigmas = sampling.sigmas.detach().to("cpu", torch.float64)
    table = 1.0 / (1.0 + sigmas.square())
    usual = NoiseSchedule.scaled_linear(len(table), prediction=prediction)
    if torch.allclose(table, usual.alphas_cumprod, rtol=1e-6, atol=0.0):
        return usual
    return NoiseSchedule(table, prediction)


def embedder(
    clip: Any, *, pooled: bool, width: int | None = None, long_captions: LongCaptions = LongCaptions.ALL
) -> Callable[[str], TextEmbedding]:
    """CLIP -> a function from one caption to its TextEmbedding, as ComfyUI itself encodes it.

    Parentheses are text, not weights. pooled: also the pooled embedding, for SD XL. width: the width that the UNet
    expects; the first caption raises UserError for a CLIP of another width.
    """
    if clip is None:  # ComfyUI's CLIP for a file without a text encoder
        raise UserError("There is no CLIP: the file holds no text encoder; connect Load CLIP, or another checkpoint.")

    def embed(caption: str) -> TextEmbedding:
        with torch.inference_mode():
            tokens = clip.tokenize(caption, disable_weights=True)
            if long_captions is LongCaptions.FIRST:
                tokens = {k: v[:1] for k, v in tokens.items()}
            hidden, summary = clip.encode_from_tokens(tokens, return_pooled=True)
        if width is not None and hidden.shape[-1] != width:
            raise UserError(
                f"The CLIP gives {hidden.shape[-1]} numbers per token, but the MODEL reads {width}: "
                "connect MODEL and CLIP of the same checkpoint."
            )
        with torch.inference_mode(False):
            return TextEmbedding(hidden.clone(), summary.clone() if pooled else None)

    return embed


def _weights(patcher: Any, prefix: str, upcast: torch.dtype) -> dict[str, Tensor]:
    """Every weight under `prefix`, patches applied, as ordinary tensors; 8-bit and mixed ones are cast to `upcast`."""
    rows = patcher.get_key_patches(prefix)
    hidden = (".scale_weight", ".scale_input", "scaled_fp8", ".comfy_quant", "logit_scale")
    rows = {k: v for k, v in rows.items() if not k.endswith(hidden)}
    kinds = {row[0][0].dtype for row in rows.values() if row[0][0].ndim}
    weights = {}
    for key, ((weight, convert), *patches) in rows.items():
        with torch.inference_mode():
            value, own = convert(weight), weight.dtype
            if len(kinds) > 1 or own not in WHOLE:
                own = upcast
            if patches:
                value = value.to(torch.float32, copy=True)
                value = comfy.lora.calculate_weight(patches, value, key, torch.float32, original_weights=rows)
            value = value.to(own)
        if type(value) not in (Tensor, nn.Parameter):
            raise UserError("The model's weights are quantized and cannot be trained: load it in another precision.")
        weights[key[len(prefix) :]] = _ordinary(value)
    return weights


def _ordinary(value: Tensor) -> Tensor:
    """A new tensor on the same storage: tensors created in inference mode do not allow autograd, this one does."""
    with torch.inference_mode(False), torch.no_grad():
        fresh = torch.empty(0, dtype=value.dtype, device=value.device)
        return fresh.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())
