"""Frozen feature networks. To add one: write a loader `(checkpoint) -> FeatureNetwork` and put it in FEATURES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .clip_conv import load_clip_rn50, load_mini_clip
from .network import FeatureNetwork

FEATURES: dict[str, Callable[[Path | None], FeatureNetwork]] = {
    "mini CLIP (layer 5)": load_mini_clip,
    "CLIP RN50 (layer 5)": load_clip_rn50,
}


def load_features(name: str, checkpoint: Path | None = None) -> FeatureNetwork:
    """The network of that name; `checkpoint` is a local file of weights, where the network needs one."""
    if name not in FEATURES:
        raise ValueError(f"There is no feature network named {name!r}; choose one of {', '.join(FEATURES)}.")
    return replace(FEATURES[name](checkpoint), source=checkpoint)


__all__ = ["FEATURES", "FeatureNetwork", "load_features"]
