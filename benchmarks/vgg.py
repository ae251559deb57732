"""The released script's VGG16 distance and augmentations, reimplemented for its loop in released.py."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision import transforms

_LAST = (2, 7, 14, 21, 28)
"""The last convolution of each of VGG16's five stages, by its place in torchvision's `features`."""


class VggFile:
    """A file of VGG16's weights in torchvision's format, created on first use. Random weights: they change no time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "vgg16.pth"

    @property
    def path(self) -> Path:
        if not self._path.is_file():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                torch.save(_whole().state_dict(), self._path)
        return self._path

    def build(self) -> nn.Module:
        """VGG16's convolutions, as the script gets them: it builds the whole network and reads all 138 M weights."""
        network = _whole()
        network.load_state_dict(torch.load(self.path, weights_only=True))
        return network.features.eval().requires_grad_(False)


def _whole() -> nn.Module:
    return torchvision.models.vgg16(weights=None, init_weights=False)


class VggDistance(nn.Module):
    """Channel-normalized activations of VGG16's five stages: squared difference, mean over places, summed."""

    def __init__(self, convolutions: nn.Module) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1))
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B,) for images (B, 3, H, W) in [-1, 1]."""
        pairs = zip(self._stages(a), self._stages(b), strict=True)
        return torch.stack([(x - y).square().sum(1).mean((1, 2)) for x, y in pairs]).sum(0)

    def _stages(self, images: Tensor) -> list[Tensor]:
        x, stages = ((images + 1) / 2 - self.mean) / self.std, []
        for place, layer in enumerate(self.convolutions):
            x = layer(x)
            if place in _LAST:
                stages.append(x)
            if place == _LAST[-1]:
                break
        # Only now: torchvision's ReLUs work in place on the kept tensors, in the released script too.
        return [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in stages]


def resized(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, W) as (B, 3, size, size), bicubic with antialiasing."""
    if images.shape[-2:] == (size, size):
        return images
    return nn.functional.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)


def augmented(images: Tensor, size: int, seed: int) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] under one random perspective and a crop of 0.8 of the area: (B, 3, size, size).

    torchvision uses PyTorch's global generator only, which is seeded for the call and restored.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        shown = transforms.RandomPerspective(distortion_scale=0.5, p=1.0)(images)
        return transforms.RandomResizedCrop(size, scale=(0.8, 0.8), ratio=(1.0, 1.0), antialias=True)(shown)
