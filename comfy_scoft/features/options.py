"""What can be chosen of a feature network beside its name: its layer, its distance, and augmented views."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from ..common.errors import UserError
from .distances import cosine_over_tokens
from .network import FeatureNetwork
from .views import Views

_NAME = re.compile(r"(?P<menu>.+?)(?P<tokens>, over tokens)?(, (?P<views>\d+) views?)?")
_LAYER = re.compile(r"\(layer (\d+)\)")


@dataclass(frozen=True)
class FeatureOptions:
    """Choices of a network's features. Raises UserError, one sentence, for what cannot be.

    layer: 1 to 5 of a convolutional CLIP; 0 is the one that its menu name says.
    distance: `own` is the network's; `over tokens` takes the cosine over tokens, as the authors' code for ViT-B/32.
    views: how many augmented views of each image are compared beside it (the authors: 10).
    """

    layer: int = 0
    distance: Literal["own", "over tokens"] = "own"
    views: int = 0

    def __post_init__(self) -> None:
        if self.distance not in ("own", "over tokens"):
            raise UserError(f"The distance is {self.distance!r}, but it must be 'own' or 'over tokens'.")
        if self.views < 0:
            raise UserError(f"views is {self.views}, but it must be 0 (the image alone) or above; the authors take 10.")


def split_name(name: str) -> tuple[str, FeatureOptions]:
    """A network's name as its name on the menu, and the options that it tells: the inverse of `configured`.

    "CLIP RN50 (layer 3), 10 views" -> "CLIP RN50 (layer 5)", FeatureOptions(layer=3, views=10).
    """
    found = _NAME.fullmatch(name)
    assert found is not None, "names are not empty"
    layer = _LAYER.search(found["menu"])
    options = FeatureOptions(
        layer=int(layer[1]) if layer and layer[1] != "5" else 0,  # the fifth is the menu's
        distance="over tokens" if found["tokens"] else "own",
        views=int(found["views"] or 0),
    )
    return _LAYER.sub("(layer 5)", found["menu"]), options


def configured(network: FeatureNetwork, options: FeatureOptions) -> FeatureNetwork:
    """The network with these options, and a name that tells them. Raises UserError for one that it has not."""
    if options.layer:
        if options.layer not in network.layers:
            known = f"choose one of {_listed(network.layers)}" if network.layers else "set layer to 0"
            raise UserError(f"{network.name} has no layer {options.layer} to choose: {known}.")
        name = _LAYER.sub(f"(layer {options.layer})", network.name)
        chosen = network.layers[options.layer]
        if chosen is not network.forward:  # the network's own vectors and words are of its last layer
            network = replace(network, embed=None, read=None)
        network = replace(network, forward=chosen, name=name)
    if options.distance == "over tokens":
        if not network.tokens:
            raise UserError(f"{network.name} has no tokens to take a cosine over: set its distance to 'own'.")
        network = replace(network, metric=cosine_over_tokens, name=f"{network.name}, over tokens")
    if options.views:
        if not network.viewable:
            raise UserError(f"{network.name} compares whole images and takes no augmented views: set views to 0.")
        name = f"{network.name}, {options.views} view{'' if options.views == 1 else 's'}"
        network = replace(network, views=Views(options.views), name=name)
    return network


def _listed(layers: object) -> str:
    return ", ".join(str(layer) for layer in layers)  # type: ignore[attr-defined]
