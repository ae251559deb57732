"""The mini world's depth estimator: a small U-Net with 0.2 M parameters.

tools/mini_world/build_depth.py trains it on rendered images with known depth.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...common.errors import UserError
from .layout import WEIGHTS

FILE = "scoft-mini-depth-estimator.safetensors"
SIZE = 64
WIDTHS = (24, 48, 64)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(4, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.SiLU(),
    )


class DepthNet(nn.Module):
    """Image (B, 3, 64, 64) in [-1, 1] -> depth (B, 1, 64, 64) in [0, 1], near is bright.

    Blocks of 2 × 2 pixels are unshuffled into channels and shuffled back, at a quarter of the cost. One more input
    channel is the vertical position, since the ground gets nearer towards the lower edge.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(a, b) for a, b in zip((13, *WIDTHS), WIDTHS, strict=False))
        self.up = nn.ModuleList(_block(a + b, b) for a, b in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.out = nn.Conv2d(WIDTHS[0], 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = F.pixel_unshuffle(images, 2)
        height = torch.linspace(-1, 1, x.shape[-2]).to(x).view(1, 1, -1, 1)
        x = torch.cat([x, height.expand_as(x[:, :1])], 1)
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), skip], 1))
        return F.pixel_shuffle(self.out(x), 2).sigmoid()


@lru_cache(maxsize=1)
def load() -> DepthNet:
    """The trained network, float32 on the CPU, frozen. Raises UserError if its file is missing."""
    from safetensors.torch import load_file

    path = WEIGHTS / FILE
    if not path.is_file():
        raise UserError(f"The weights file {FILE} is missing from the pack: install the pack again.")
    with torch.inference_mode(False):
        net = DepthNet()
        net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return net.eval().requires_grad_(False)
