"""Convolutional CLIP features: the paper's default, the fifth layer (the output of layer4 of a ResNet CLIP).

Architecture and weights come through open_clip; the mini CLIP is the same class at 64 px, shipped with the pack.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .network import FeatureNetwork
from .weights import local_file

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
LAYERS = (1, 2, 3, 4, 5)


def conv_layer(visual: nn.Module, layer: int, x: Tensor) -> Tensor:
    """Layer 1 is the stem's output (H/4), 2 to 5 those of layer1 to layer4 (H/4, H/8, H/16, H/32): (B, C, h, w)."""
    x = visual.stem(x)
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4)[: layer - 1]:
        x = stage(x)
    return x


def _network(name: str, visual: Any, size: int, mean: tuple, std: tuple, **more: Any) -> FeatureNetwork:
    layers = {layer: partial(conv_layer, visual, layer) for layer in LAYERS}
    return FeatureNetwork(name, visual, size, mean, std, layers[5], layers=layers, **more)


def load_mini_clip(checkpoint: Path | None = None) -> FeatureNetwork:
    """The mini world's own tower (64 px, 512 channels on a 2 × 2 grid)."""
    from ..mini.clip import load_mini_clip_model

    clip = load_mini_clip_model(checkpoint)
    return _network("mini CLIP (layer 5)", clip.visual, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def open_clip_visual(
    checkpoint: Path | None, name: str, architecture: str, holds: str = "visual.conv1.weight"
) -> nn.Module:
    """The picture side of one of open_clip's models, fp32, from a file in open_clip's form.

    Raises ValueError without a file: this pack does not download anything unasked.
    """
    path = local_file(checkpoint, name, f"open_clip's {architecture.removesuffix('-quickgelu')} file", holds)
    import open_clip

    clip: Any = open_clip.create_model(architecture, pretrained=str(path), precision="fp32")
    return clip.visual


def _load(name: str, architecture: str, checkpoint: Path | None) -> FeatureNetwork:
    visual = open_clip_visual(checkpoint, name, architecture)
    return _network(name, visual, 224, OPENAI_MEAN, OPENAI_STD, fit="crop", clamp=True)


def load_clip_rn50(checkpoint: Path | None = None) -> FeatureNetwork:
    """OpenAI's RN50 (224 px, 2048 channels on a 7 × 7 grid)."""
    return _load("CLIP RN50 (layer 5)", "RN50-quickgelu", checkpoint)


def load_clip_rn101(checkpoint: Path | None = None) -> FeatureNetwork:
    """OpenAI's RN101 (224 px, 2048 channels on a 7 × 7 grid)."""
    return _load("CLIP RN101 (layer 5)", "RN101-quickgelu", checkpoint)
