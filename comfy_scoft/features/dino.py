"""DINOv2 and DINOv3: tokens of self-supervised transformers, through timm."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError
from .distances import mean_square
from .network import FeatureNetwork
from .weights import local_file, require

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _model(name: str, architecture: str, checkpoint: Path | None, **settings: Any) -> Any:
    """A timm model without its head, from a file in timm's or the authors' form."""
    path = local_file(checkpoint, name, f"timm's {architecture} file", "blocks.0.norm1.weight")
    timm = require("timm", "timm", name)
    if not timm.is_model(architecture.split(".")[0]):
        raise UserError(
            f"{name} needs timm 1.0.20 or newer, but {timm.__version__} is installed: run `pip install -U timm`."
        )
    overlay = {"file": str(path)}
    return timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **settings)


def _load_v2(name: str, architecture: str, checkpoint: Path | None = None) -> FeatureNetwork:
    """All tokens of the last block before its norm, class token first, at 224 px: (B, C, 257).

    As released (utilities/dino_loss.py: `x_prenorm`, mean squared error); at 224 px timm resamples the positions with
    antialiasing, where the authors' own hub code does without.
    """
    model = _model(name, architecture, checkpoint, img_size=224)

    def last_block(x: Tensor) -> Tensor:
        ((patches, prefix),) = model.forward_intermediates(
            x, indices=1, return_prefix_tokens=True, norm=False, output_fmt="NLC", intermediates_only=True
        )
        return torch.cat([prefix, patches], 1).transpose(1, 2)

    more: dict[str, Any] = {"fit": "crop", "clamp": True, "metric": mean_square, "embed": partial(_class_token, model)}
    return FeatureNetwork(name, model, 224, IMAGENET_MEAN, IMAGENET_STD, last_block, **more)


def _load_v3(name: str, architecture: str, checkpoint: Path | None = None) -> FeatureNetwork:
    """All tokens after the last norm, class token and 4 registers first, at 256 px: (B, C, 261); 1 − cosine."""
    model = _model(name, architecture, checkpoint)

    def tokens(x: Tensor) -> Tensor:
        return model.forward_features(x).transpose(1, 2)

    more: dict[str, Any] = {"fit": "crop", "clamp": True, "tokens": True, "embed": partial(_class_token, model)}
    return FeatureNetwork(name, model, 256, IMAGENET_MEAN, IMAGENET_STD, tokens, **more)


def _class_token(model: Any, x: Tensor) -> Tensor:
    """The class token after the last norm, (B, C): the vector that DINO's authors compare images by."""
    return model.forward_features(x)[:, 0]


load_dinov2_large = partial(_load_v2, "DINOv2 L/14", "vit_large_patch14_dinov2.lvd142m")
load_dinov2_small = partial(_load_v2, "DINOv2 S/14", "vit_small_patch14_dinov2.lvd142m")
load_dinov3_large = partial(_load_v3, "DINOv3 L/16", "vit_large_patch16_dinov3.lvd1689m")
load_dinov3_small = partial(_load_v3, "DINOv3 S/16", "vit_small_patch16_dinov3.lvd1689m")
