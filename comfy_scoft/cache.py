"""What is frozen is computed once: latents of both flips, and features of the pictures and their negatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .base_model import BaseModel
from .dataset import aligned
from .features import FeatureNetwork
from .records import CultureRecord, Dataset

Sample = tuple[int, bool]
"""A training picture: the record's index and whether it is flipped."""


@dataclass
class Cache:
    """Frozen quantities of a dataset's pictures at one resolution, each computed on first use and kept on the CPU.

    latents: those known already. pictures: a sample's pixels (3, H, W) and its negatives' (N, 3, H, W) in [-1, 1];
    None reads them from the dataset's files. An exported job (job.py) fills both from its tensors.
    """

    base: BaseModel
    dataset: Dataset
    resolution: int
    latents: dict[Sample, tuple[Tensor, Tensor]] = field(default_factory=dict)
    pictures: Callable[[Sample], tuple[Tensor, Tensor]] | None = None
    _features: dict[tuple[FeatureNetwork, Sample], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def record(self, sample: Sample) -> CultureRecord:
        return self.dataset.records[sample[0]]

    def pixels(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """The picture (3, H, W) and its negatives (N, 3, H, W), in [-1, 1], under one crop and one flip."""
        if self.pictures is not None:
            return self.pictures(sample)
        return aligned(self.record(sample), self.resolution, sample[1])

    def captions(self) -> list[str]:
        """Every text that training may embed, each once; "" first."""
        texts = [text for r in self.dataset.records for text in (r.caption, *r.generic_captions)]
        return list(dict.fromkeys(["", *texts]))

    def samples(self, flip: bool = True) -> list[Sample]:
        """Every sample of the dataset, with the flipped ones if those are trained on."""
        flips = (False, True) if flip else (False,)
        return [(index, flipped) for index in range(len(self.dataset)) for flipped in flips]

    def latent(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (4, h, w) of a picture's scaled latent."""
        if sample not in self.latents:
            pixels, _ = self.pixels(sample)
            with torch.no_grad():
                mean, std = self.base.encode(pixels.unsqueeze(0).to(self.base.device))
            self.latents[sample] = mean[0].float().cpu(), std[0].float().cpu()
        return self.latents[sample]

    def features(self, network: FeatureNetwork, sample: Sample) -> tuple[Tensor, Tensor]:
        """Features of a picture (C, …) and of its N negatives (N, C, …), under one crop and one flip."""
        key = (network, sample)
        if key not in self._features:
            pixels, negatives = self.pixels(sample)
            with torch.no_grad():
                found = network.extract(torch.cat([pixels.unsqueeze(0), negatives]).to(self.base.device)).cpu()
            self._features[key] = found[0], found[1:]
        return self._features[key]

    def positive(self, network: FeatureNetwork, samples: list[Sample]) -> Tensor:
        """Features of B pictures, (B, C, …)."""
        return torch.stack([self.features(network, s)[0] for s in samples]).to(self.base.device)

    def negatives(self, network: FeatureNetwork, samples: list[Sample]) -> tuple[Tensor, Tensor]:
        """Features of the negatives of B pictures, (B, N, C, …) padded with zeros, and the mask (B, N) of real ones."""
        rows = [self.features(network, s)[1] for s in samples]
        most = max(len(row) for row in rows)
        padded = torch.zeros(len(rows), most, *rows[0].shape[1:])
        mask = torch.zeros(len(rows), most, dtype=torch.bool)
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row
            mask[i, : len(row)] = True
        return padded.to(self.base.device), mask.to(self.base.device)
