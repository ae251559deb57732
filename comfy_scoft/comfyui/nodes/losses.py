"""The losses and the feature networks they compare images with.

Each loss node takes the chain so far and returns it longer. `losses` is its only input of that type, so ComfyUI's
bypass (Ctrl+B) passes the chain through: bypassing a node is the ablation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ...common.text import printable
from ...features import FEATURES, FeatureOptions, load_features
from ...losses import ContrastiveLoss, DiffusionLoss, Loss, MemorizationLoss, PerceptualLoss, PriorLoss
from ..compat import folder_paths, io
from ..listed_files import changed, listed_file
from ..runtime import training_mode
from ..sockets import FeaturesSocket, LossesSocket
from ..widgets import Node, widgets

CATEGORY = "SCoFT/3 losses"
BUILT_IN = "built in"
DOWNLOAD = "download from Hugging Face (asks the internet)"
WEIGHTS = "clip_vision"
"""The kind of ComfyUI model folder that holds the files of feature networks."""


class _LossNode(Node):
    """A node that adds a loss to the chain. Its widgets are the loss's settings."""

    loss: ClassVar[type[Loss]]
    node_id: ClassVar[str]
    display_name: ClassVar[str]
    description: ClassVar[str]

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = widgets(cls.loss, multiline=("prompts",))
        if "features" in cls.loss.__annotations__:
            tooltip = "The frozen network that compares images, from Load Feature Network."
            inputs.insert(0, FeaturesSocket.Input("features", tooltip=tooltip))
        chain = LossesSocket.Input("losses", optional=True, tooltip="Previous losses. This loss is added to them.")
        return io.Schema(
            node_id=cls.node_id,
            display_name=cls.display_name,
            category=CATEGORY,
            description=cls.description,
            inputs=[*inputs, chain],
            outputs=[LossesSocket.Output(display_name="losses", tooltip="The losses with this one added.")],
        )

    @classmethod
    def execute(cls, losses: tuple[Loss, ...] = (), **settings: Any) -> io.NodeOutput:
        return io.NodeOutput((*losses, cls.loss(**settings)))


class DiffusionLossNode(_LossNode):
    loss = DiffusionLoss
    node_id = "SCoFT_DiffusionLoss"
    display_name = "Diffusion Loss (SCoFT)"
    description = "The standard fine-tuning loss: learns the training images (SCoFT, equation 1)."


class MemorizationLossNode(_LossNode):
    loss = MemorizationLoss
    node_id = "SCoFT_MemorizationLoss"
    display_name = "Memorization Loss (SCoFT)"
    description = (
        "Reduces memorization of single images: the caption's prediction stays close to that of a generic caption of "
        "the same image (SCoFT, equation 2). Needs generic captions in the dataset."
    )


class PerceptualLossNode(_LossNode):
    loss = PerceptualLoss
    node_id = "SCoFT_PerceptualLoss"
    display_name = "Perceptual Loss (SCoFT)"
    description = (
        "Moves images generated during training closer to the training image, as a feature network compares them "
        "(SCoFT, equation 3)."
    )


class ContrastiveLossNode(_LossNode):
    loss = ContrastiveLoss
    node_id = "SCoFT_ContrastiveLoss"
    display_name = "Self-Contrastive Loss (SCoFT)"
    description = (
        "Moves images generated during training closer to the training image and away from its negatives, the base "
        "model's own idea of the place (SCoFT, equation 4). It includes the Perceptual Loss: use one of the two."
    )


class PriorLossNode(_LossNode):
    loss = PriorLoss
    node_id = "SCoFT_PriorLoss"
    display_name = "Prior Preservation Loss (SCoFT)"
    description = (
        "Keeps predictions for other places, and for prompts without a place, close to the base model's, so that what "
        "is learned does not leak into them. Needs no extra images; a step takes about 1.5 times as long. Not part of "
        "the SCoFT paper."
    )


class LoadFeatures(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_LoadFeatures",
            display_name="Load Feature Network (SCoFT)",
            category=CATEGORY,
            description="Loads a frozen network that measures how similar two images are. The mini CLIP is built in; "
            "the others need a file in models/clip_vision. Nothing is downloaded unless you choose it.",
            inputs=[
                io.Combo.Input(
                    "network",
                    options=list(FEATURES),
                    tooltip='The feature network. Paper: "CLIPConv, fifth layer", which is CLIP RN50 (layer 5) here.',
                ),
                io.Combo.Input(
                    "checkpoint",
                    options=[BUILT_IN, DOWNLOAD, *folder_paths.get_filename_list(WEIGHTS)],
                    default=BUILT_IN,
                    tooltip="The network's weights: built in, a file in models/clip_vision, or a download from Hugging "
                    "Face (the only choice that uses the internet).",
                ),
                *widgets(FeatureOptions, "layer", "distance", "views", optional=True),
            ],
            outputs=[
                FeaturesSocket.Output(display_name="features", tooltip="The feature network, for losses and metrics.")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, network: str, checkpoint: str, **options: Any) -> Any:
        return changed(_weights_file(checkpoint))

    @classmethod
    def execute(cls, network: str, checkpoint: str, **options: Any) -> io.NodeOutput:
        own, path = FeatureOptions(**options), _weights_file(checkpoint)
        with training_mode():  # weights made in inference mode could not pass a gradient on
            return io.NodeOutput(load_features(network, path, own, allow_download=checkpoint == DOWNLOAD))


def _weights_file(checkpoint: str) -> Path | None:
    if checkpoint in (BUILT_IN, DOWNLOAD):
        return None
    missing = f"There is no file {printable(checkpoint)!r} in models/{WEIGHTS}"
    return listed_file(WEIGHTS, checkpoint, folder_paths.get_filename_list(WEIGHTS), missing)
