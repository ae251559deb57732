"""What can be chosen of a feature network beside its name: its layer, its distance, and augmented views."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ..common.errors import UserError
from ..common.settings import Choice, check, setting
from .distances import cosine_over_tokens
from .network import FeatureNetwork
from .views import Views

_NAME = re.compile(r"(?P<menu>.+?)(?P<tokens>, over tokens)?(, (?P<views>\d{1,4}) views?)?", re.DOTALL)
_LAYER = re.compile(r"\(layer (\d+)\)")


class Distance(Choice):
    OWN = "own"
    OVER_TOKENS = "over tokens"


@dataclass(frozen=True)
class FeatureOptions:
    """Options of a feature network. Raises UserError for a bad value."""

    layer: int = setting(
        0,
        "Layer of a convolutional CLIP: 1 sees edges and colors, 5 objects. 0: the one in its name.",
        min=0,
        max=5,
        step=1,
    )
    distance: Distance = setting(
        Distance.OWN,
        "How features are compared. own: the network's own distance. over tokens: cosine over a transformer's tokens, "
        "as the authors' code does with CLIP ViT-B/32.",
    )
    views: int = setting(
        0,
        "Augmented views (perspective and crop) of each image that are compared too. The authors use 10 with CLIP "
        "ViT-B/32. Each view runs the network once more.",
        min=0,
        max=64,
        step=1,
    )

    def __post_init__(self) -> None:
        check(self)


def split_name(name: str) -> tuple[str, FeatureOptions]:
    """A network's name as its name on the menu, and the options that it tells: the inverse of `configured`.

    "CLIP RN50 (layer 3), 10 views" -> "CLIP RN50 (layer 5)", FeatureOptions(layer=3, views=10).
    """
    found = _NAME.fullmatch(name)
    assert found is not None, "names are not empty"
    layer = _LAYER.search(found["menu"])
    options = FeatureOptions(
        layer=int(layer[1]) if layer and layer[1] != "5" else 0,  # the fifth is the menu's
        distance=Distance.OVER_TOKENS if found["tokens"] else Distance.OWN,
        views=int(found["views"] or 0),
    )
    return _LAYER.sub("(layer 5)", found["menu"]), options


def configured(network: FeatureNetwork, options: FeatureOptions) -> FeatureNetwork:
    """The network with these options, and a name that tells them. Raises UserError for one that it has not."""
    if options.layer:
        if options.layer not in network.layers:
            known = f"choose one of {', '.join(map(str, network.layers))}" if network.layers else "set layer to 0"
            raise UserError(f"{network.name} has no layer {options.layer} to choose: {known}.")
        name = _LAYER.sub(f"(layer {options.layer})", network.name)
        chosen = network.layers[options.layer]
        if chosen is not network.forward:  # the network's own vectors and words are of its last layer
            network = replace(network, embed=None, read=None)
        network = replace(network, forward=chosen, name=name)
    if options.distance is Distance.OVER_TOKENS:
        if not network.tokens:
            raise UserError(f"{network.name} has no tokens to take a cosine over: set its distance to 'own'.")
        network = replace(network, metric=cosine_over_tokens, name=f"{network.name}, over tokens")
    if options.views:
        if not network.viewable:
            raise UserError(f"{network.name} compares whole images and takes no augmented views: set views to 0.")
        name = f"{network.name}, {options.views} view{'' if options.views == 1 else 's'}"
        network = replace(network, views=Views(options.views), name=name)
    return network
