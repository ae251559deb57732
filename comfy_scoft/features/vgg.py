"""LPIPS and the plain VGG16 distance. Their features are the images themselves, and D holds the network.

The maps of five VGG layers of one image of 512 × 512 take 128 MB, where the image takes 3: kept for a dataset with
both flips and five negatives they would fill hundreds of gigabytes. Images are compared at their own size, as the
`lpips` package and the authors' script do.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .dino import IMAGENET_MEAN, IMAGENET_STD
from .network import FeatureNetwork
from .weights import local_file, read_weights, require

SIZE = 512
"""Side that images are cut to where no other size is given (filtering negatives); losses use the run's own."""


def _vgg_weights(name: str, checkpoint: Path | None) -> dict[str, Tensor]:
    """VGG16's convolutions: `<number in torchvision's features>.weight` and `.bias`."""
    which = "torchvision's vgg16 file (vgg16-397923af.pth, or timm's vgg16.tv_in1k)"
    found = read_weights(local_file(checkpoint, name, which, "features.28.weight"))
    return {key.removeprefix("features."): v.float() for key, v in found.items() if key.startswith("features.")}


def _unchanged(x: Tensor) -> Tensor:
    return x


def load_lpips(checkpoint: Path | None = None) -> FeatureNetwork:
    """LPIPS (Zhang et al. 2018), version 0.1, VGG16: the `lpips` package with its own learned heads."""
    name = "LPIPS VGG16"
    weights = _vgg_weights(name, checkpoint)
    lpips = require("lpips", "lpips", name)
    model: Any = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)  # heads from the package, VGG from the file
    slices = [getattr(model.net, f"slice{n}") for n in range(1, 6)]
    wanted = {number: part for piece in slices for number, part in piece.named_children()}
    nn.ModuleDict(wanted).load_state_dict(weights)

    def metric(a: Tensor, b: Tensor) -> Tensor:
        weight = next(model.parameters()).dtype
        return model(a.to(weight), b.to(weight)).float().flatten()

    half = (0.5, 0.5, 0.5)  # the package takes images in [-1, 1]
    return FeatureNetwork(name, model, SIZE, half, half, _unchanged, fit="none", metric=metric, viewable=False)


def _vgg(name: str, checkpoint: Path | None = None, *, overwritten: bool) -> FeatureNetwork:
    """The unweighted VGG16 distance of the authors' script (utilities/lpips_loss.py), weight 0.01.

    The script means five maps before their ReLU; torchvision's ReLU works in place, so that the next layer overwrites
    the first four with their values after it, and only the last one is before it. overwritten: as it comes out there.
    """
    weights = _vgg_weights(name, checkpoint)
    model = VGGMaps(overwritten=overwritten)
    model.layers.load_state_dict(weights)
    return FeatureNetwork(
        name, model, SIZE, IMAGENET_MEAN, IMAGENET_STD, _unchanged, fit="none", metric=model.distance, viewable=False
    )


load_vgg_released = partial(_vgg, "VGG16 (as released)", overwritten=True)
load_vgg_pre_relu = partial(_vgg, "VGG16 (pre-ReLU)", overwritten=False)


class VGGMaps(nn.Module):
    """The thirteen convolutions of VGG16, torchvision's numbering; maps are taken at the last one of each of 5 sizes.

    overwritten: take the first four maps after their ReLU, not before.
    """

    TAKEN = (2, 7, 14, 21, 28)
    WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
    """Channels of each convolution; 0 is a halving of the image's sides."""

    def __init__(self, *, overwritten: bool) -> None:
        super().__init__()
        self.overwritten = overwritten
        self.layers = nn.Sequential()
        channels = 3
        for width in self.WIDTHS:
            if width:
                self.layers.extend([nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()])
                channels = width
            else:
                self.layers.append(nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Five maps (B, 64 … 512, H / 1 … 16, W / 1 … 16) of normalized images (B, 3, H, W)."""
        found = []
        after = [n + 1 for n in self.TAKEN[:4]] if self.overwritten else list(self.TAKEN[:4])
        taken = (*after, self.TAKEN[4])
        for number, layer in enumerate(self.layers[: self.TAKEN[4] + 1]):
            x = layer(x)
            if number in taken:
                found.append(x)
        return found

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Σ over maps of the mean over positions of ‖â − b̂‖², each position's channels made one long; (B,)."""
        weight = next(self.parameters()).dtype
        total = torch.zeros(len(a), device=a.device)
        for p, q in zip(self(a.to(weight)), self(b.to(weight)), strict=True):
            total = total + (_unit(p.float()) - _unit(q.float())).square().sum(1).mean((1, 2))
        return total


def _unit(x: Tensor) -> Tensor:
    return x / ((x * x).sum(1, keepdim=True).sqrt() + 1e-10)
