"""What the benchmarks train: a base model with its text encoder, a feature network, and images with negatives."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from comfy_scoft.data.dataset import load_folder
from comfy_scoft.data.records import Dataset
from comfy_scoft.features import FeatureNetwork, FeatureOptions, load_features
from comfy_scoft.mini_world import COMMUNITY
from comfy_scoft.models.mini import layout
from comfy_scoft.models.noise_schedule import NoiseSchedule
from comfy_scoft.models.single_file import load_base, text_encoder, token_ids
from comfy_scoft.models.stable_diffusion import BaseModel, TextEmbedding
from comfy_scoft.training.settings import Precision

NEGATIVES = 5
"""Negatives of each image, as in the paper."""
WORLDS = ("mini", "sd15", "sd15-256", "sd15-tiny")


@dataclass(frozen=True)
class World:
    """One size of everything.

    base: a fresh BaseModel at each call, so that two variants in one process never share a LoRA. encoder, tokens: the
    text encoder and what it reads, (1, 77) int64. features: a fresh feature network at each call, with as many
    augmented views as it is given. taesd: a small autoencoder, where the model's own is a large one.
    """

    name: str
    shape: str
    base: Callable[[], BaseModel]
    encoder: nn.Module
    tokens: Callable[[str], Tensor]
    features: Callable[..., FeatureNetwork]
    dataset: Dataset
    resolution: int
    device: torch.device
    precision: Precision
    taesd: Callable[[], nn.Module] | None = None


def build(name: str, images: int = 0) -> World:
    """A world by name. images: take only that many of the community's; 0 takes all.

    Raises ValueError for a name that is not known.
    """
    if name not in WORLDS:
        raise ValueError(f"There is no benchmark model named {name!r}: choose one of {', '.join(WORLDS)}.")
    return _mini(images) if name == "mini" else _sd15(name, images)


def community(pictures: int = 0) -> Dataset:
    """The shipped community set, its other images standing in for each one's five negatives.

    Time and counts depend on how many images there are and how large, not on what they show.
    """
    found, _ = load_folder(COMMUNITY, split="train", limit=pictures)
    images = [record.image for record in found.records]
    assert len(images) > NEGATIVES
    return found.replace(
        dataclasses.replace(record, negatives=tuple(images[(i + k) % len(images)] for k in range(1, NEGATIVES + 1)))
        for i, record in enumerate(found.records)
    )


def _mini(images: int) -> World:
    from safetensors.torch import load_file

    path = layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT
    prefix = "cond_stage_model.transformer."
    words = {k.removeprefix(prefix): v for k, v in load_file(path).items() if k.startswith(prefix)}
    encoder = text_encoder(layout.TEXT, {k: v.float() if v.is_floating_point() else v for k, v in words.items()})
    return World(
        name="mini",
        shape="the pack's own mini model (UNet 4.2 M parameters, TAESD, text encoder of 2 layers), 64 px",
        base=lambda: load_base(path),
        encoder=encoder,
        tokens=token_ids,
        features=_mini_clip,
        dataset=community(images),
        resolution=64,
        device=torch.device("cpu"),
        precision="fp32",
    )


def _sd15(name: str, images: int) -> World:
    """Stable Diffusion 1.5 with random weights, or the same structure 10 times narrower."""
    small, resolution = name == "sd15-tiny", {"sd15": 512, "sd15-256": 256, "sd15-tiny": 64}[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision: Precision = "bf16" if device.type == "cuda" else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    encoder = _random(lambda: _text(small), 3).to(device, dtype)

    def embed(caption: str) -> TextEmbedding:
        with torch.no_grad():
            return TextEmbedding(encoder(token_ids(caption).to(device))[0])

    unet, vae = _random(lambda: _unet(small), 1).to(device, dtype), _random(lambda: _vae(small), 2).to(device)

    def base() -> BaseModel:
        return BaseModel(_twin(unet), _twin(vae), NoiseSchedule.scaled_linear(), embed, "sd1", name)

    return World(
        name=name,
        shape="the structure of Stable Diffusion 1.5, random weights, "
        + f"{'about a tenth as wide' if small else 'full size'}, {resolution} px",
        base=base,
        encoder=encoder,
        tokens=lambda caption: token_ids(caption).to(device),
        features=_mini_clip if small else _rn50,
        dataset=community(images),
        resolution=resolution,
        device=device,
        precision=precision,
        taesd=lambda: _random(_taesd, 4).to(device),
    )


def _random(make: Callable[[], Any], seed: int) -> Any:
    """A module as its class starts it, from a seed, frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval().requires_grad_(False)


def _twin(module: nn.Module) -> Any:
    """A copy of a module's structure on the same weights, so that several LoRAs cost one model's memory."""
    return copy.deepcopy(module, {id(t): t for t in (*module.parameters(), *module.buffers())})


def stable_diffusion(small: bool) -> tuple[Any, Any, Any]:
    """UNet, autoencoder and text encoder of Stable Diffusion 1.5, or about a tenth as wide, as their classes start."""
    return _unet(small), _vae(small), _text(small)


def _unet(small: bool) -> nn.Module:
    from diffusers import UNet2DConditionModel

    if not small:  # diffusers' defaults are Stable Diffusion 1.x, but for these three
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    channels = (32, 64, 128, 128)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=channels, cross_attention_dim=layout.CONTEXT, attention_head_dim=8
    )


def _vae(small: bool) -> nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 32, 64, 64) if small else (128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
    )


def _taesd() -> nn.Module:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(latent_channels=4)


def _text(small: bool) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    large = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return CLIPTextModel(CLIPTextConfig(**(layout.TEXT if small else {**layout.TEXT, **large})))


def _mini_clip(views: int = 0) -> FeatureNetwork:
    return load_features("mini CLIP (layer 5)", options=FeatureOptions(views=views))


def _rn50(views: int = 0) -> FeatureNetwork:
    """CLIP RN50's fifth layer, random weights, through the file that a person would give."""
    import tempfile

    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rn50.pt"
        made = _random(lambda: open_clip.create_model("RN50-quickgelu", precision="fp32"), 5)
        torch.save(made.state_dict(), path)
        return load_features("CLIP RN50 (layer 5)", path, FeatureOptions(views=views))
