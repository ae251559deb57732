"""A frozen feature network f and its distance D: what the perceptual losses look through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.errors import UserError
from .distances import cosine
from .views import Views

LEAST = 32
"""Images that are taken at their own size need this many pixels a side: VGG halves them four times."""


@dataclass(frozen=True, eq=False, repr=False)
class FeatureNetwork:
    """A frozen network f and its distance D.

    name: what `load_features` takes to make it again, options included; module: in eval mode, without weight gradients.
    size: side in pixels that images are brought to; mean, std: per channel, for images in [0, 1].
    forward: (B, 3, size, size) normalized pixels, in the module's precision -> features (B, C, …): channels second,
    then positions or tokens.
    source: the file that its weights came from; None for built-in ones.
    fit: how an image that is no square of `size` is brought to it: `stretch` changes its shape, `crop` resizes its
    short side and cuts the middle out, `none` takes it as it is.
    clamp: cut resized values to [0, 1], as 8-bit preprocessing does; there an image has no gradient.
    metric: D on two batches of features (B, C, …), fp32 -> (B,).
    layers: forwards of the layers that can be chosen in place of `forward`, by number.
    tokens: whether the last axis of the features is one of tokens, so that cosines can be taken over it.
    views: augmented views of the image, whose features stand beside those of the image itself; None is none.
    viewable: whether views make sense; where features are images they do not.
    embed: normalized pixels as for `forward` -> one vector an image (B, D); None is the mean of `forward` over
    positions or tokens.
    read: texts -> vectors (T, D) in the space of `embed`; None for a network without a text encoder.
    """

    name: str
    module: nn.Module
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    forward: Callable[[Tensor], Tensor]
    source: Path | None = None
    fit: Literal["stretch", "crop", "none"] = "stretch"
    clamp: bool = False
    metric: Callable[[Tensor, Tensor], Tensor] = cosine
    layers: Mapping[int, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    tokens: bool = False
    views: Views | None = None
    viewable: bool = True
    embed: Callable[[Tensor], Tensor] | None = None
    read: Callable[[Sequence[str]], Tensor] | None = None

    def __post_init__(self) -> None:
        self.module.eval().requires_grad_(False)

    def __repr__(self) -> str:
        """Short and without its file's path: ComfyUI shows with an error what the node was given."""
        return f"{type(self).__name__}({self.name!r})"

    def to(self, device: torch.device) -> FeatureNetwork:
        self.module.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where its weights are; the CPU for a network without any."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    def extract(self, images: Tensor) -> Tensor:
        """Features (B, C, …) fp32 of images (B, 3, H, W) in about [-1, 1]; differentiable.

        With V views the features are (B, C, V + 1, …), the image itself first. The network computes in its weights'
        precision, under autocast too. Raises UserError for another shape.
        """
        self._require_images(images)
        if self.fit == "none" and min(images.shape[-2:]) < LEAST:
            raise UserError(
                f"{self.name} needs images of at least {LEAST} × {LEAST} pixels, but got "
                f"{images.shape[-1]} × {images.shape[-2]}: raise the resolution."
            )
        with torch.autocast(images.device.type, enabled=False):
            x = images.float().add(1.0).div(2.0)
            if self.views is None:
                return self._run(self._fitted(x), self.forward)
            seen = [self._fitted(x), *self.views(x.clamp(0, 1) if self.clamp else x, self.size)]
            features = self._run(torch.cat(seen), self.forward)
            return torch.stack(features.chunk(len(seen)), dim=2)

    def embedding(self, images: Tensor) -> Tensor:
        """One vector an image, (B, D) fp32, of images (B, 3, H, W) in about [-1, 1]; views are left out.

        CLIP's is in the space of its texts, DINO's is the class token after the last norm; others, and a layer that
        was chosen, give the mean of their features over positions. Raises UserError for a network that compares whole
        images, and for another shape.
        """
        self._require_images(images)
        if not self.viewable:
            raise UserError(
                f"{self.name} compares whole images and gives no vector for one: choose a network such as CLIP, DINO "
                "or DreamSim in Load Feature Network."
            )
        with torch.autocast(images.device.type, enabled=False):
            found = self._run(self._fitted(images.float().add(1.0).div(2.0)), self.embed or self.forward)
        return found.flatten(2).mean(2) if found.ndim > 2 else found

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """Vectors (T, D) fp32 on the CPU of texts, in the space of `embedding`. UserError where there are none."""
        if self.read is None:
            raise UserError(
                f"{self.name} does not compare images with words: choose a CLIP in Load Feature Network, with layer 0 "
                "(its own)."
            )
        with torch.no_grad():
            return self.read(texts).float().cpu()

    def preprocess(self, images: Tensor) -> Tensor:
        """What the network sees of images (B, 3, H, W) in about [-1, 1]: (B, 3, size, size), normalized, fp32."""
        return self._normalized(self._fitted(images.float().add(1.0).div(2.0)))

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """D(a, b), shape (B,), of two batches of this network's features. Raises UserError where shapes differ."""
        if a.shape != b.shape:
            raise UserError(
                f"{self.name} compares features of one shape, but got {tuple(a.shape)} and {tuple(b.shape)}: "
                "give it features of this network, from images of one size."
            )
        with torch.autocast(a.device.type, enabled=False):
            return self.metric(a.float(), b.float())

    def _require_images(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise UserError(
                f"{self.name} takes images of shape (B, 3, H, W) as floating point numbers, "
                f"but got {tuple(images.shape)} of {images.dtype}."
            )

    def _run(self, pixels: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        weights = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)
        return function(self._normalized(pixels).to(weights)).float()

    def _normalized(self, pixels: Tensor) -> Tensor:
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return (pixels - mean) / std

    def _fitted(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, size, size), resized by cubics with antialiasing, as the networks' preprocessing."""
        height, width = pixels.shape[-2:]
        target = (self.size, self.size)
        if self.fit == "crop" and height != width:
            long = int(self.size * max(height, width) / min(height, width))
            target = (long, self.size) if height > width else (self.size, long)
        if self.fit != "none" and (height, width) != target:
            if self.clamp:  # Pillow resizes the width first, and cuts off what goes over between the two
                pixels = _resized(pixels, (height, target[1])).clamp(0.0, 1.0)
            pixels = _resized(pixels, target)
        if self.fit == "crop":
            top, left = (int(round((side - self.size) / 2.0)) for side in pixels.shape[-2:])
            pixels = pixels[..., top : top + self.size, left : left + self.size]
        return pixels.clamp(0.0, 1.0) if self.clamp else pixels


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
