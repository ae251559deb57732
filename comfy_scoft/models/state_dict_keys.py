"""Names of weights: diffusers and transformers on one side, the single-file (LDM) format on the other.

ComfyUI's own modules carry the single-file names too, so this one map serves the conversion of native sockets, the
loading of single files and the writing of the mini checkpoint. Nothing here touches a weight except to view it in
another shape or to drop and restore the rows of the vocabulary that are never used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..common.errors import UserError

Module = TypeVar("Module", bound=nn.Module)

VOCABULARY = 49408
"""Rows of the token embedding of every Stable Diffusion 1.x text encoder."""

_BASIC = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def unet_names(names: Iterable[str], layers: int) -> dict[str, str]:
    """Single-file name of each weight of a UNet2DConditionModel or ControlNetModel with `layers` blocks a level.

    `names` are the keys of its state dict. The result maps them, in order, to names without "model.diffusion_model."
    or "control_model.". Raises KeyError for a name that the format has no place for.
    """
    names = list(names)
    attended = {m[2] for n in names if (m := _BLOCK.match(n)) and m[1] == "up" and m[3] == "attentions"}
    hints = sum(n.startswith("controlnet_cond_embedding.blocks.") and n.endswith(".weight") for n in names)
    return {name: _unet_name(name, layers, attended, hints) for name in names}


def _unet_name(name: str, layers: int, attended: set[str], hints: int) -> str:
    if found := _BLOCK.match(name):
        side, level, kind, index, rest = found.groups()
        i, j = int(level), int(index)
        start = i * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{start + layers + 1}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"output_blocks.{start + layers}.{2 if level in attended else 1}.{rest}"
        place = f"input_blocks.{1 + start + j}" if side == "down" else f"output_blocks.{start + j}"
        return f"{place}.{_resnet(rest, '0')}" if kind == "resnets" else f"{place}.1.{rest}"
    if found := re.match(r"controlnet_down_blocks\.(\d+)\.(.+)", name):
        return f"zero_convs.{found[1]}.0.{found[2]}"
    if found := re.match(r"controlnet_cond_embedding\.blocks\.(\d+)\.(.+)", name):
        return f"input_hint_block.{2 * (int(found[1]) + 1)}.{found[2]}"
    if name.startswith("controlnet_cond_embedding.conv_out."):
        return f"input_hint_block.{2 * (hints + 1)}.{name.rsplit('.', 1)[1]}"
    for ours, theirs in _BASIC.items():
        if name.startswith(ours + "."):
            rest = name[len(ours) + 1 :]
            return _resnet(rest, theirs) if ".resnets." in ours else f"{theirs}.{rest}"
    raise KeyError(name)


def _resnet(rest: str, place: str) -> str:
    part, leaf = rest.split(".")
    return f"{place}.{_RESNET[part]}.{leaf}"


def vae_names(names: Iterable[str]) -> dict[str, str]:
    """Single-file name of each weight of an AutoencoderKL, without "first_stage_model."."""
    names = list(names)
    levels = 1 + max(int(m[1]) for n in names if (m := re.match(r"encoder\.down_blocks\.(\d+)\.", n)))
    return {name: _vae_name(name, levels) for name in names}


def _vae_name(name: str, levels: int) -> str:
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm", name)
    name = re.sub(r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1", name)
    name = re.sub(r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out", name)
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def taesd_names(names: Iterable[str]) -> dict[str, str]:
    """Single-file name of each weight of an AutoencoderTiny; the file counts the decoder's clamp as its layer 0."""
    found = {}
    for name in names:
        part, _, index, rest = name.split(".", 3)
        found[name] = f"taesd_{part}.{int(index) + (part == 'decoder')}.{rest}"
    return found


def latent_scaling(expected: float, carried: float) -> float:
    """What raw latents are multiplied by: `expected` by the UNet, `carried` by the autoencoder already.

    The file holds TAESD's factor in float32; where the two are the same number, the result is exactly 1.
    """
    return 1.0 if math.isclose(expected, carried, rel_tol=1e-6) else expected / carried


def clip_text_weights(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower of an open_clip `CLIP` state dict under the names of transformers' CLIPTextModel ("text_model.…").

    The fused query-key-value weight (3C, C) is split in three views; the projection into the shared space and the
    image tower are left out, because Stable Diffusion reads the hidden states.
    """
    found = {
        "text_model.embeddings.token_embedding.weight": tower["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": tower["positional_embedding"],
        "text_model.final_layer_norm.weight": tower["ln_final.weight"],
        "text_model.final_layer_norm.bias": tower["ln_final.bias"],
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    parts["attn.out_proj"] = "self_attn.out_proj"
    layer = 0
    while f"transformer.resblocks.{layer}.ln_1.weight" in tower:
        theirs, ours = f"transformer.resblocks.{layer}.", f"text_model.encoder.layers.{layer}."
        for leaf in ("weight", "bias"):
            for part, name in parts.items():
                found[f"{ours}{name}.{leaf}"] = tower[f"{theirs}{part}.{leaf}"]
            fused = tower[f"{theirs}attn.in_proj_{leaf}"].chunk(3)
            for letter, value in zip("qkv", fused, strict=True):
                found[f"{ours}self_attn.{letter}_proj.{leaf}"] = value
        layer += 1
    return found


def prune_rows(weights: Mapping[str, Tensor], name: str, rows: Iterable[int]) -> dict[str, Tensor]:
    """A copy of `weights` whose embedding `name` keeps only the given rows, beside their numbers as "….ids" (int32)."""
    ids = torch.tensor(sorted(set(rows)), dtype=torch.int32)
    found = dict(weights)
    found[name] = weights[name][ids.long()].clone()
    found[name.removesuffix("weight") + "ids"] = ids
    return found


def expand_rows(weights: Mapping[str, Tensor], name: str, rows: int = VOCABULARY) -> dict[str, Tensor]:
    """The inverse of `prune_rows`: an embedding of `rows` rows, zero where none was kept. Unpruned weights pass."""
    found = dict(weights)
    ids = found.pop(name.removesuffix("weight") + "ids", None)
    if ids is not None:
        kept = found[name]
        full = kept.new_zeros(rows, kept.shape[1])
        full[ids.long().to(kept.device)] = kept
        found[name] = full
    return found


def fill(module: Module, names: Mapping[str, str], weights: Mapping[str, Tensor], what: str, advice: str) -> Module:
    """Put `weights` (single-file names) into `module` without copying them; frozen and in eval mode.

    `names` is a map of this file for the module's state dict. Each weight must be used exactly once and have the size
    of its place (1×1 convolutions and linear layers are one another's views), else UserError with `what` and `advice`.
    """
    missing = [n for n in names.values() if n not in weights]
    unused = sorted(set(weights) - set(names.values()))
    if missing or unused:
        raise UserError(
            f"The weights of {what} do not fit: {len(missing)} missing and {len(unused)} unknown, for example "
            f"{(missing + unused)[0]!r}: {advice}"
        )
    shapes = {k: v.shape for k, v in module.state_dict().items()}
    wrong = [n for k, n in names.items() if math.prod(shapes[k]) != weights[n].numel()]
    if wrong:
        raise UserError(f"The weight {wrong[0]!r} of {what} has an unexpected size: {advice}")
    with torch.inference_mode(False), torch.no_grad():
        state = {k: weights[n].view(shapes[k]) for k, n in names.items()}
        module.load_state_dict(state, strict=True, assign=True)
    return module.requires_grad_(False).eval()
