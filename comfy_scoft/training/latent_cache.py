"""What is frozen is computed once: latents of both flips, and features of the images and their negatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..data.crop import aligned, bucket
from ..data.images import image_size
from ..data.records import CultureRecord, Dataset
from ..features import FeatureNetwork
from ..models.stable_diffusion import LATENT_CHANNELS, LATENT_FACTOR, BaseModel
from .distributed import Distributed

Sample = tuple[int, bool]
"""A training image: the record's index and whether it is flipped."""


@dataclass
class Cache:
    """Frozen quantities of a dataset's images at one resolution, each computed on first use and kept on the CPU.

    buckets: crops of each image's own aspect, of at most resolution² pixels, instead of squares.
    latents: those known already. images: a sample's pixels (3, H, W) and its negatives' (N, 3, H, W) in [-1, 1];
    None reads them from the dataset's files. An exported job (job.py) fills both from its tensors.
    """

    base: BaseModel
    dataset: Dataset
    resolution: int
    buckets: bool = False
    latents: dict[Sample, tuple[Tensor, Tensor]] = field(default_factory=dict)
    images: Callable[[Sample], tuple[Tensor, Tensor]] | None = None
    _features: dict[tuple[FeatureNetwork, Sample, bool], tuple[Tensor, Tensor]] = field(default_factory=dict)
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    def record(self, sample: Sample) -> CultureRecord:
        return self.dataset.records[sample[0]]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels that a record's image and its negatives are cropped to."""
        if not self.buckets:
            return self.resolution, self.resolution
        if index not in self._sizes:
            self._sizes[index] = bucket(*image_size(self.dataset.records[index].image), self.resolution)
        return self._sizes[index]

    def pixels(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """The image (3, H, W) and its negatives (N, 3, H, W), in [-1, 1], under one crop and one flip."""
        if self.images is not None:
            return self.images(sample)
        return aligned(self.record(sample), self.size(sample[0]), flip=sample[1])

    def captions(self) -> list[str]:
        """Every caption that training may embed, each once; "" first."""
        captions = [caption for r in self.dataset.records for caption in (*r.captions, *r.generic_captions)]
        return list(dict.fromkeys(["", *captions]))

    def samples(self, *, flip: bool = True) -> list[Sample]:
        """Every sample of the dataset, with the flipped ones if those are trained on."""
        flips = (False, True) if flip else (False,)
        return [(index, flipped) for index in range(len(self.dataset)) for flipped in flips]

    def latent_shape(self, sample: Sample) -> tuple[int, ...]:
        """(C, h, w) of an image's latent, without encoding the image."""
        if sample in self.latents:
            return tuple(self.latents[sample][0].shape)
        height, width = self.size(sample[0])
        return LATENT_CHANNELS, height // LATENT_FACTOR, width // LATENT_FACTOR

    def latent(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (4, h, w) of an image's scaled latent."""
        if sample not in self.latents:
            pixels, _ = self.pixels(sample)
            with torch.no_grad(), torch.autocast(self.base.device.type, enabled=False):  # the same whoever asks first
                mean, std = self.base.encode(pixels.unsqueeze(0).to(self.base.device))
            self.latents[sample] = mean[0].float().cpu(), std[0].float().cpu()
        return self.latents[sample]

    def features(self, network: FeatureNetwork, sample: Sample, *, crop: bool = False) -> tuple[Tensor, Tensor]:
        """Features of an image (C, …) and of its N negatives (N, C, …), under one crop and one flip.

        crop: of their central part alone, as `center` cuts it out.
        """
        key = (network, sample, crop)
        if key not in self._features:
            pixels, negatives = self.pixels(sample)
            both = torch.cat([pixels.unsqueeze(0), negatives])
            both = center(both, LATENT_FACTOR) if crop else both
            with torch.no_grad():
                features = network.extract(both.to(self.base.device)).cpu()
            self._features[key] = features[0], features[1:]
        return self._features[key]

    def positive(self, network: FeatureNetwork, samples: Sequence[Sample], *, crop: bool = False) -> Tensor:
        """Features of B images, (B, C, …)."""
        return torch.stack([self.features(network, s, crop=crop)[0] for s in samples]).to(self.base.device)

    def negatives(
        self, network: FeatureNetwork, samples: Sequence[Sample], *, crop: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Features of the negatives of B images, (B, N, C, …) padded with zeros, and the mask (B, N) of real ones."""
        rows = [self.features(network, s, crop=crop)[1] for s in samples]
        padded = pad_sequence(rows, batch_first=True)
        mask = torch.arange(padded.shape[1]) < torch.tensor([[len(row)] for row in rows])
        return padded.to(self.base.device), mask.to(self.base.device)

    def fill(
        self, distributed: Distributed, networks: Sequence[FeatureNetwork], *, flip: bool, crop: bool = False
    ) -> None:
        """Compute what is missing, each process its share of the images, and exchange it.

        A single process does nothing here: it computes each thing on first use.
        """
        if distributed.count == 1:
            return
        mine = distributed.share(self.samples(flip=flip))
        computed = {s: (self.latent(s), [self.features(n, s, crop=crop) for n in networks]) for s in mine}
        for theirs in distributed.gather(computed):
            for sample, (latent, features) in theirs.items():
                self.latents[sample] = latent
                self._features.update({(n, sample, crop): f for n, f in zip(networks, features, strict=True)})


def center(images: Tensor, unit: int = 1) -> Tensor:
    """The middle of images or latents (…, H, W), half as high and wide, on a grid of `unit`."""
    height, width = images.shape[-2] // unit, images.shape[-1] // unit
    top, left = height // 4 * unit, width // 4 * unit
    return images[..., top : top + height // 2 * unit, left : left + width // 2 * unit]
