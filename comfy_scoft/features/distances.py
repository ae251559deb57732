"""Distances between two batches of features of one shape (B, C, …), fp32: one value per sample, shape (B,)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """1 − cosine over channels, mean over positions, in [0, 2]."""
    distances = 1.0 - F.cosine_similarity(a, b, dim=1, eps=1e-8)
    return distances.flatten(1).mean(1) if distances.ndim > 1 else distances


def cosine_over_tokens(a: Tensor, b: Tensor) -> Tensor:
    """1 − cosine over the last axis, that of tokens, mean over channels and views, in [0, 2].

    What the authors' code computes for CLIP's ViT-B/32 (utilities/clipconv_loss.py, `cos_layers`): it compares where
    in the image each channel answers, not what each place holds.
    """
    return (1.0 - F.cosine_similarity(a, b, dim=-1, eps=1e-8)).flatten(1).mean(1)


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference over everything but the batch, ≥ 0 (released for DINOv2 and BLIP-2)."""
    return (a - b).square().flatten(1).mean(1)
