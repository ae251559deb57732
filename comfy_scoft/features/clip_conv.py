"""Convolutional CLIP features: the paper's default, the fifth layer (the output of layer4 of a ResNet CLIP).

Architecture and weights come through open_clip; the mini CLIP is the same class at 64 px, shipped with the pack.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .network import FeatureNetwork

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def _layer_five(visual: nn.Module, x: Tensor) -> Tensor:
    """Output of layer4, (B, C, H/32, W/32)."""
    return visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(x)))))


def _network(name: str, clip: Any, size: int, mean: tuple, std: tuple) -> FeatureNetwork:
    visual = clip.visual
    return FeatureNetwork(name, visual, size, mean, std, lambda x: _layer_five(visual, x))


def load_mini_clip(checkpoint: Path | None = None) -> FeatureNetwork:
    """The mini world's own tower (64 px, 512 channels on a 2 × 2 grid)."""
    from ..mini.clip import load_mini_clip_model

    clip = load_mini_clip_model(checkpoint)
    return _network("mini CLIP (layer 5)", clip, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def load_clip_rn50(checkpoint: Path | None = None) -> FeatureNetwork:
    """OpenAI's RN50 (224 px, 2048 channels on a 7 × 7 grid), from a local file in open_clip's or OpenAI's form.

    Raises ValueError without a file: this pack does not download anything unasked.
    """
    import open_clip

    if checkpoint is None or not Path(checkpoint).is_file():
        raise ValueError(
            "CLIP RN50 needs a file with its weights; put open_clip's RN50 (openai) file into ComfyUI's "
            "models/clip_vision folder and choose it as the checkpoint."
        )
    clip = open_clip.create_model("RN50-quickgelu", pretrained=str(checkpoint), precision="fp32")
    return _network("CLIP RN50 (layer 5)", clip, 224, OPENAI_MEAN, OPENAI_STD)
