"""The training losses. To add one: write a file here, import its class and put it in LOSSES, by which jobs find it."""

from __future__ import annotations

from .context import Calls, Loss, LossContext, feature_networks, from_json, named
from .contrastive import ContrastiveLoss
from .diffusion import DiffusionLoss
from .memorization import MemorizationLoss
from .perceptual import PerceptualLoss
from .prior import PriorLoss

LOSSES: dict[str, type[Loss]] = {
    "diffusion": DiffusionLoss,
    "memorization": MemorizationLoss,
    "perceptual": PerceptualLoss,
    "contrastive": ContrastiveLoss,
    "prior": PriorLoss,
}

__all__ = [
    "LOSSES",
    "Calls",
    "ContrastiveLoss",
    "DiffusionLoss",
    "Loss",
    "LossContext",
    "MemorizationLoss",
    "PerceptualLoss",
    "PriorLoss",
    "feature_networks",
    "from_json",
    "named",
]
