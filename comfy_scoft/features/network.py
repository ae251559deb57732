from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A frozen network f and its distance D.

    name: what a person chose; module: in eval mode, without weight gradients.
    size: side in pixels that pictures are resized to; mean, std: per channel, for pictures in [0, 1].
    forward: (B, 3, size, size) normalised pixels -> features (B, C, …).
    source: the file that its weights came from; None for built-in ones.
    """

    name: str
    module: nn.Module
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    forward: Callable[[Tensor], Tensor]
    source: Path | None = None

    def __post_init__(self) -> None:
        self.module.eval().requires_grad_(False)

    def to(self, device: torch.device) -> FeatureNetwork:
        self.module.to(device)
        return self

    def extract(self, images: Tensor) -> Tensor:
        """Features (B, C, …) fp32 of images (B, 3, H, W) in about [-1, 1]; differentiable.

        Raises ValueError for another shape. The resize is bicubic with antialiasing, as CLIP's own preprocessing.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"{self.name} takes images of shape (B, 3, H, W), but got {tuple(images.shape)}.")
        x = images.float().add(1.0).div(2.0)
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False)
        mean = torch.tensor(self.mean, device=x.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=x.device).view(3, 1, 1)
        return self.forward((x - mean) / std).float()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """D(a, b) in [0, 2], shape (B,): 1 − cosine over channels, mean over positions."""
        return (1.0 - F.cosine_similarity(a.float(), b.float(), dim=1, eps=1e-8)).flatten(1).mean(1)
