"""Augmented views of an image, the same ones for every image: a fixed bank, so that features can be kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from .weights import require

DISTORTION = 0.5
"""How far a corner moves at most, as a share of half the side (utilities/clipconv_loss.py: RandomPerspective)."""
AREA = 0.8
"""Share of the image's area that the square crop keeps (the same place: RandomResizedCrop)."""


@dataclass(frozen=True)
class Views:
    """`count` views: each a change of perspective with black around it, then a square crop.

    The authors sample new ones at each step and share them between the two images that are compared. Here they are
    sampled once, from `seed`, and shared by all images: features of positives and negatives can then be computed once.
    """

    count: int
    seed: int = 1024

    @cached_property
    def bank(self) -> Tensor:
        """(count, 10) uniform numbers in [0, 1): how far each of 4 corners moves in x and y, and the crop's place."""
        return torch.rand(self.count, 10, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)

    def __call__(self, pixels: Tensor, size: int) -> list[Tensor]:
        """`count` views (B, 3, size, size) of pixels (B, 3, H, W); differentiable."""
        return [self._view(pixels, rand, size) for rand in self.bank]

    def corners(self, rand: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The four corners (4, 2), as x and y in pixels, clockwise from top left, before and after the change."""
        right, bottom = width - 1.0, height - 1.0
        start = torch.tensor([[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]])
        inward = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
        reach = torch.tensor([width, height]) * DISTORTION / 2.0
        return start, start + inward * reach * rand[:8].view(4, 2).float()

    def box(self, rand: Tensor, height: int, width: int) -> tuple[int, int, int]:
        """Top, left and side of the square crop, in pixels."""
        side = min(round((AREA * height * width) ** 0.5), height, width)
        return int(rand[8] * (height - side + 1)), int(rand[9] * (width - side + 1)), side

    def _view(self, pixels: Tensor, rand: Tensor, size: int) -> Tensor:
        transform = require("kornia.geometry.transform", "kornia", "Augmented views")
        height, width = pixels.shape[-2:]
        start, end = (points.unsqueeze(0).to(pixels) for points in self.corners(rand, height, width))
        matrix = transform.get_perspective_transform(start, end).expand(len(pixels), -1, -1)
        turned = transform.warp_perspective(pixels, matrix, (height, width), align_corners=True)
        top, left, side = self.box(rand, height, width)
        cut = turned[..., top : top + side, left : left + side]
        if side == size:
            return cut
        return F.interpolate(cut, (size, size), mode="bilinear", antialias=True, align_corners=False)
