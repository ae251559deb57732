"""Convolutional CLIP features: the paper's default, the fifth layer (the output of layer4 of a ResNet CLIP).

Architecture and weights come through open_clip; the mini CLIP is the same class at 64 px, shipped with the pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
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
    return FeatureNetwork(name, visual, size, mean, std, layers[5], layers=layers, embed=visual, **more)


def load_mini_clip(checkpoint: Path | None = None) -> FeatureNetwork:
    """The mini world's own tower (64 px, 512 channels on a 2 × 2 grid)."""
    from ..models.mini.clip import load_mini_clip_model

    clip = load_mini_clip_model(checkpoint)

    def read(texts: Sequence[str]) -> Tensor:  # loaded again, for training keeps the image side alone
        return clip_texts(load_mini_clip_model(checkpoint), texts)

    return _network("mini CLIP (layer 5)", clip.visual, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), read=read)


def open_clip_visual(
    checkpoint: Path | None, name: str, architecture: str, holds: str = "visual.conv1.weight"
) -> nn.Module:
    """The image side of one of open_clip's models, fp32, from a file in open_clip's form.

    Raises UserError without a file: this pack does not download anything unasked.
    """
    path = local_file(checkpoint, name, f"open_clip's {architecture.removesuffix('-quickgelu')} file", holds)
    import open_clip

    clip: Any = open_clip.create_model(architecture, pretrained=str(path), precision="fp32")
    return clip.visual


def clip_texts(clip: Any, texts: Sequence[str], batch: int = 64) -> Tensor:
    """An open_clip CLIP's projected text vectors (T, D); texts beyond 77 tokens are cut."""
    import open_clip

    tokens = open_clip.SimpleTokenizer()(list(texts))
    with torch.no_grad():
        return torch.cat([clip.encode_text(some) for some in tokens.split(batch)])


def open_clip_texts(checkpoint: Path | None, architecture: str, texts: Sequence[str]) -> Tensor:
    """The same of one of open_clip's models by OpenAI, whose file is read anew for it."""
    import open_clip

    clip: Any = open_clip.create_model(architecture, pretrained=str(checkpoint), precision="fp32")
    return clip_texts(clip.eval(), texts)


def _load(name: str, architecture: str, checkpoint: Path | None = None) -> FeatureNetwork:
    """One of OpenAI's ResNets (224 px, 2048 channels on a 7 × 7 grid)."""
    visual = open_clip_visual(checkpoint, name, architecture)
    read = partial(open_clip_texts, checkpoint, architecture)
    return _network(name, visual, 224, OPENAI_MEAN, OPENAI_STD, fit="crop", clamp=True, read=read)


load_clip_rn50 = partial(_load, "CLIP RN50 (layer 5)", "RN50-quickgelu")
load_clip_rn101 = partial(_load, "CLIP RN101 (layer 5)", "RN101-quickgelu")
