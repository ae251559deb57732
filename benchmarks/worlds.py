"""What the benchmarks train: a base model with its text encoder, a feature network, and images with negatives."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

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
"""Negatives per image, as in the paper."""
WORLDS = ("mini", "sd15", "sd15-256", "sd15-tiny")


@dataclass(frozen=True, eq=False)
class World:
    """A base model, a feature network and a dataset of matching size.

    base: returns a new BaseModel, so that two variants in one process never share a LoRA. encoder, tokens: the text
    encoder and its input, (1, 77) int64. features: returns a new feature network with the given number of augmented
    views. taesd: a small autoencoder, where the model's own is a large one.
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
    """The world of one of the names in WORLDS. images: how many of the community's to use; 0 for all."""
    return _mini(images) if name == "mini" else _sd15(name, images)


def community(limit: int = 0) -> Dataset:
    """The shipped community dataset; the negatives of an image are the five images after it.

    Time and counts depend on the number and size of the images, not on what they show.
    """
    dataset, _ = load_folder(COMMUNITY, split="train", limit=limit)
    images = [record.image for record in dataset.records]
    assert len(images) > NEGATIVES
    return dataset.replace(
        dataclasses.replace(record, negatives=tuple(images[(i + k) % len(images)] for k in range(1, NEGATIVES + 1)))
        for i, record in enumerate(dataset.records)
    )


def _mini(images: int) -> World:
    path = layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT
    prefix = "cond_stage_model.transformer."
    state = {k.removeprefix(prefix): v for k, v in load_file(path).items() if k.startswith(prefix)}
    encoder = text_encoder(layout.TEXT, {k: v.float() if v.is_floating_point() else v for k, v in state.items()})
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
    """Stable Diffusion 1.5 with random weights, or the same structure about a tenth as wide."""
    small, resolution = name == "sd15-tiny", {"sd15": 512, "sd15-256": 256, "sd15-tiny": 64}[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision: Precision = "bf16" if device.type == "cuda" else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    encoder = _random(lambda: _text(small=small), 3).to(device, dtype)

    def embed(caption: str) -> TextEmbedding:
        with torch.no_grad():
            return TextEmbedding(encoder(token_ids(caption).to(device))[0])

    unet = _random(lambda: _unet(small=small), 1).to(device, dtype)
    vae = _random(lambda: _vae(small=small), 2).to(device)

    def base() -> BaseModel:
        return BaseModel(_twin(unet), _twin(vae), NoiseSchedule.scaled_linear(), embed, "sd1", name)

    return World(
        name=name,
        shape="the structure of Stable Diffusion 1.5, random weights, "
        f"{'about a tenth as wide' if small else 'full size'}, {resolution} px",
        base=base,
        encoder=encoder,
        tokens=lambda caption: token_ids(caption).to(device),
        features=_mini_clip if small else _rn50,
        dataset=community(images),
        resolution=resolution,
        device=device,
        precision=precision,
        taesd=lambda: _random(lambda: AutoencoderTiny(latent_channels=4), 4).to(device),
    )


def _random(make: Callable[[], Any], seed: int) -> Any:
    """A frozen module with its class's random initial weights, from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval().requires_grad_(False)


def _twin(module: nn.Module) -> Any:
    """A copy of a module that shares its weights, so that several LoRAs need one model's memory."""
    return copy.deepcopy(module, {id(t): t for t in (*module.parameters(), *module.buffers())})


def stable_diffusion() -> tuple[Any, Any, Any]:
    """UNet, autoencoder and text encoder of Stable Diffusion 1.5 with random weights."""
    return _unet(small=False), _vae(small=False), _text(small=False)


def _unet(*, small: bool) -> nn.Module:
    """diffusers' defaults are Stable Diffusion 1.x, except for these."""
    sizes: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768}
    if small:
        sizes = {"sample_size": 8, "cross_attention_dim": layout.CONTEXT, "block_out_channels": (32, 64, 128, 128)}
    return UNet2DConditionModel(**sizes, attention_head_dim=8)


def _vae(*, small: bool) -> nn.Module:
    return AutoencoderKL(
        block_out_channels=(32, 32, 64, 64) if small else (128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
    )


def _text(*, small: bool) -> nn.Module:
    large = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return CLIPTextModel(CLIPTextConfig(**(layout.TEXT if small else {**layout.TEXT, **large})))


def _mini_clip(views: int = 0) -> FeatureNetwork:
    return load_features("mini CLIP (layer 5)", options=FeatureOptions(views=views))


def _rn50(views: int = 0) -> FeatureNetwork:
    """CLIP RN50's fifth layer with random weights, loaded from a file as a user's weights are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rn50.pt"
        network = _random(lambda: open_clip.create_model("RN50-quickgelu", precision="fp32"), 5)
        torch.save(network.state_dict(), path)
        return load_features("CLIP RN50 (layer 5)", path, FeatureOptions(views=views))
