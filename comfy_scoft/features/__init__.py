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
    """The network of that name; `checkpoint` is a local file of weights, where the network needs one.

    Raises ValueError, one sentence, for a name that is not known and a file that is not this network's.
    """
    if name not in FEATURES:
        raise ValueError(f"There is no feature network named {name!r}; choose one of {', '.join(FEATURES)}.")
    try:
        return replace(FEATURES[name](checkpoint), source=checkpoint)
    except ValueError:
        raise
    except Exception as error:  # torch, safetensors and pickle each have errors of their own for a wrong file
        if checkpoint is None:
            raise
        raise ValueError(
            f"{checkpoint.name} does not hold the weights of {name}: choose that network's file."
        ) from error


__all__ = ["FEATURES", "FeatureNetwork", "load_features"]
