"""Frozen feature networks. To add one: write a loader `(checkpoint) -> FeatureNetwork` and put it in FEATURES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..common.errors import UserError
from ..common.text import printable
from .blip2 import load_blip2
from .clip_conv import load_clip_rn50, load_clip_rn101, load_mini_clip
from .clip_vit import load_clip_vit, load_siglip2
from .dino import load_dinov2_large, load_dinov2_small, load_dinov3_large, load_dinov3_small
from .dreamsim import load_dreamsim
from .network import FeatureNetwork
from .options import FeatureOptions, configured, split_name
from .vgg import load_lpips, load_vgg_pre_relu, load_vgg_released
from .weights import HUB, download

FEATURES: dict[str, Callable[[Path | None], FeatureNetwork]] = {
    "mini CLIP (layer 5)": load_mini_clip,
    "CLIP RN50 (layer 5)": load_clip_rn50,
    "CLIP RN101 (layer 5)": load_clip_rn101,
    "CLIP ViT-B/32": load_clip_vit,
    "DreamSim": load_dreamsim,
    "DINOv2 L/14": load_dinov2_large,
    "DINOv2 S/14": load_dinov2_small,
    "DINOv3 L/16": load_dinov3_large,
    "DINOv3 S/16": load_dinov3_small,
    "BLIP-2 Q-Former": load_blip2,
    "SigLIP2 B/16": load_siglip2,
    "LPIPS VGG16": load_lpips,
    "VGG16 (as released)": load_vgg_released,
    "VGG16 (pre-ReLU)": load_vgg_pre_relu,
}


def load_features(
    name: str, checkpoint: Path | None = None, options: FeatureOptions | None = None, *, allow_download: bool = False
) -> FeatureNetwork:
    """The network of that name; `checkpoint` is a local file of weights, where the network needs one.

    name: one of FEATURES, or the `name` of a network that was loaded before, which tells its options too; `options`
    are then to be left out. allow_download: take the weights from Hugging Face, where no file is given.
    Raises UserError, one sentence, for a name that is not known, a file that is not this network's, an option that it
    has not, and a package that is missing.
    """
    menu, told = (name, FeatureOptions()) if name in FEATURES or not name else split_name(name)
    if menu not in FEATURES:
        raise UserError(f"There is no feature network named {printable(name)!r}; choose one of {', '.join(FEATURES)}.")
    if checkpoint is None and allow_download:
        checkpoint = download(menu)
    try:
        network = replace(FEATURES[menu](checkpoint), source=checkpoint)
    except Exception as error:  # torch, safetensors and pickle each have errors of their own for a wrong file
        if checkpoint is None or type(error) is UserError or isinstance(error, MemoryError):
            raise
        raise UserError(
            f"{checkpoint.name} does not hold the weights of {menu}: choose that network's file."
        ) from error
    return configured(network, options or told)


__all__ = ["FEATURES", "HUB", "FeatureNetwork", "FeatureOptions", "load_features"]
