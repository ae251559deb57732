"""Tokens of transformer CLIPs: OpenAI's ViT-B/32, which the authors' code uses, and SigLIP2."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .clip_conv import OPENAI_MEAN, OPENAI_STD, open_clip_texts, open_clip_visual
from .network import FeatureNetwork

VIT = "ViT-B-32-quickgelu"  # OpenAI trained with the quick GELU


def load_clip_vit(checkpoint: Path | None = None) -> FeatureNetwork:
    """OpenAI's ViT-B/32 at 224 px: the last block's output, class token first, (B, 768, 50).

    The released form (utilities/clipconv_loss.py) is the distance over tokens with 10 views; the default here is the
    cosine over channels of the image alone.
    """
    name = "CLIP ViT-B/32"
    visual: Any = open_clip_visual(checkpoint, name, VIT)

    def last_block(x: Tensor) -> Tensor:
        found = visual.forward_intermediates(
            x, indices=1, output_fmt="NLC", output_extra_tokens=True, intermediates_only=True
        )
        return torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], 1).transpose(1, 2)

    read = partial(open_clip_texts, checkpoint, VIT)
    more: dict[str, Any] = {"fit": "crop", "clamp": True, "tokens": True, "embed": visual, "read": read}
    return FeatureNetwork(name, visual, 224, OPENAI_MEAN, OPENAI_STD, last_block, **more)


def load_siglip2(checkpoint: Path | None = None) -> FeatureNetwork:
    """SigLIP2 ViT-B/16 at 224 px: the normalized output of its last block, (B, 768, 196); images are stretched."""
    name = "SigLIP2 B/16"
    visual: Any = open_clip_visual(checkpoint, name, "ViT-B-16-SigLIP2", "visual.trunk.norm.weight")

    def tokens(x: Tensor) -> Tensor:
        return visual.trunk.forward_features(x).transpose(1, 2)

    half = (0.5, 0.5, 0.5)
    return FeatureNetwork(name, visual, 224, half, half, tokens, clamp=True, tokens=True, embed=visual)
