"""The losses and the feature networks they look through.

Each loss node takes the chain so far and returns it longer. `losses` is its only input of that type, so ComfyUI's
bypass (Ctrl+B) passes the chain through: bypassing a node is the ablation.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...features import FEATURES, FeatureOptions, load_features
from ...losses import ContrastiveLoss, DiffusionLoss, Loss, MemorizationLoss, PerceptualLoss, PriorLoss
from ..compat import folder_paths, io
from ..runtime import training_mode
from ..sockets import FeaturesSocket, LossesSocket
from ..widgets import choice, default, number

Chain = tuple[Loss, ...]
BUILT_IN = "built in"
DOWNLOAD = "download from Hugging Face (asks the internet)"
WEIGHTS = "clip_vision"
"""The kind of ComfyUI model folder that feature networks' files lie in."""

_WEIGHT = "How much this term counts. 0 computes and logs it without teaching anything."
_FEATURES = "The frozen network that compares images, from Load Feature Network."


def _schema(name: str, display: str, description: str, inputs: list[Any]) -> io.Schema:
    """Schema of a loss node: its own inputs, then the chain in, and the chain out."""
    chain = LossesSocket.Input("losses", optional=True, tooltip="The losses so far; this one is added to them.")
    out = LossesSocket.Output(display_name="losses", tooltip="The chain with this loss at its end.")
    return io.Schema(
        node_id=f"SCoFT_{name}",
        display_name=f"{display} (SCoFT)",
        category="SCoFT/3 losses",
        description=description,
        inputs=[*inputs, chain],
        outputs=[out],
    )


class DiffusionLossNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        gamma = "Min-SNR weighting of the timesteps: 0 is off, 5 is usual. It evens out what each noise level teaches."
        return _schema(
            "DiffusionLoss",
            "Diffusion Loss",
            "Learns the images themselves: the usual loss of fine-tuning (SCoFT, equation 1).",
            [
                number(DiffusionLoss, "weight", 0.0, 100.0, 0.05, _WEIGHT),
                number(DiffusionLoss, "min_snr_gamma", 0.0, 100.0, 0.5, gamma),
            ],
        )

    @classmethod
    def execute(cls, weight: float, min_snr_gamma: float, losses: Chain = ()) -> io.NodeOutput:
        return io.NodeOutput((*losses, DiffusionLoss(weight, min_snr_gamma)))


class MemorizationLossNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "MemorizationLoss",
            "Memorization Loss",
            "Keeps a caption from becoming the address of one image, by tying it to a generic caption of the same "
            "image (SCoFT, equation 2). The dataset needs generic captions.",
            [
                number(MemorizationLoss, "weight", 0.0, 100.0, 0.05, _WEIGHT),
                choice(
                    MemorizationLoss,
                    "reference",
                    "Whose answer to the generic caption is the target: the network in training (the paper), or the "
                    "base model with the LoRA switched off, which does not move.",
                ),
            ],
        )

    @classmethod
    def execute(cls, weight: float, reference: Any, losses: Chain = ()) -> io.NodeOutput:
        return io.NodeOutput((*losses, MemorizationLoss(weight, reference)))


class PerceptualLossNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "PerceptualLoss",
            "Perceptual Loss",
            "Pulls an image that the model makes during training towards the real one, as a feature network sees them "
            "(SCoFT, equation 3).",
            [
                FeaturesSocket.Input("features", tooltip=_FEATURES),
                number(PerceptualLoss, "weight", 0.0, 100.0, 0.01, _WEIGHT),
            ],
        )

    @classmethod
    def execute(cls, features: Any, weight: float, losses: Chain = ()) -> io.NodeOutput:
        return io.NodeOutput((*losses, PerceptualLoss(features, weight)))


class ContrastiveLossNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = ContrastiveLoss
        return _schema(
            "ContrastiveLoss",
            "Self-Contrastive Loss",
            "Pulls an image that the model makes towards the real one and away from its negatives, the base model's "
            "own idea of the place (SCoFT, equation 4). It contains the Perceptual Loss: use it in its place.",
            [
                FeaturesSocket.Input("features", tooltip=_FEATURES),
                number(own, "weight", 0.0, 100.0, 0.01, _WEIGHT),
                number(
                    own,
                    "margin",
                    0.0,
                    2.0,
                    0.05,
                    "How much nearer the real image must be than the negatives to "
                    "count as good. Only for the triplet form; our choice, for the paper's value is not known.",
                ),
                number(
                    own,
                    "negative_weight",
                    0.0,
                    10.0,
                    0.1,
                    "How hard the negatives push. Only for the triplet form; "
                    "our choice, for the paper's value is not known.",
                ),
                choice(
                    own,
                    "form",
                    "triplet is the paper's equation; difference is the released code: distance to the "
                    "real image minus the mean distance to the negatives, without a limit.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, features: Any, weight: float, margin: float, negative_weight: float, form: Any, losses: Chain = ()
    ) -> io.NodeOutput:
        return io.NodeOutput((*losses, ContrastiveLoss(features, weight, margin, negative_weight, form)))


class PriorLossNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "PriorLoss",
            "Prior Preservation Loss",
            "Keeps what is learned of one place from leaking into prompts of other places and of none: for those "
            "prompts, the base model's own answer is the target. Needs no further images; a step takes about half as "
            "long again. Not part of the SCoFT paper.",
            [
                number(PriorLoss, "weight", 0.0, 100.0, 0.5, _WEIGHT),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default=default(PriorLoss, "prompts"),
                    tooltip="Prompts that should stay as they are, one a line; {generic} stands for the image's "
                    "generic caption. Name some other places: '{generic} in peru'. The empty prompt is always kept.",
                ),
            ],
        )

    @classmethod
    def execute(cls, weight: float, prompts: str, losses: Chain = ()) -> io.NodeOutput:
        return io.NodeOutput((*losses, PriorLoss(weight, prompts)))


class LoadFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = FeatureOptions
        layer = "The layer of a convolutional CLIP: 1 sees edges and colors, 5 sees things. 0 is the one in the name."
        distance = "How features are compared: the network's own way, or by the cosine over a transformer's tokens, as "
        distance += "the authors' code does with CLIP ViT-B/32."
        views = "How many changed views (perspective and crop) of each image are compared beside it. The authors' "
        views += "code takes 10 with CLIP ViT-B/32; each costs one more run of the network."
        return io.Schema(
            node_id="SCoFT_LoadFeatures",
            display_name="Load Feature Network (SCoFT)",
            category="SCoFT/3 losses",
            description="A frozen network that says how alike two images are. The mini CLIP comes with this pack; "
            "others need a file in models/clip_vision. Nothing is downloaded unless you choose so.",
            inputs=[
                io.Combo.Input("network", options=list(FEATURES), tooltip="The paper's is CLIP RN50, fifth layer."),
                io.Combo.Input(
                    "checkpoint",
                    options=[BUILT_IN, DOWNLOAD, *folder_paths.get_filename_list(WEIGHTS)],
                    default=BUILT_IN,
                    tooltip="The file with the network's weights (models/clip_vision), what comes with this pack, or "
                    "the network's own file on Hugging Face: only that choice asks the internet.",
                ),
                number(own, "layer", 0, 5, 1, layer, True),
                choice(own, "distance", distance, True),
                number(own, "views", 0, 64, 1, views, True),
            ],
            outputs=[FeaturesSocket.Output(display_name="features", tooltip="The network, for losses and figures.")],
        )

    @classmethod
    def fingerprint_inputs(cls, network: str, checkpoint: str, **options: Any) -> Any:
        return changed(_weights_file(checkpoint))

    @classmethod
    def execute(cls, network: str, checkpoint: str, **options: Any) -> io.NodeOutput:
        chosen, allowed = FeatureOptions(**options), checkpoint == DOWNLOAD
        with training_mode():  # weights made in inference mode could not pass a gradient on
            return io.NodeOutput(load_features(network, _weights_file(checkpoint), chosen, allowed))


def _weights_file(checkpoint: str) -> Path | None:
    if checkpoint in (BUILT_IN, DOWNLOAD):
        return None
    if checkpoint not in folder_paths.get_filename_list(WEIGHTS):
        raise UserError(f"There is no file {checkpoint!r} in models/{WEIGHTS}: choose one from the list.")
    return Path(folder_paths.get_full_path_or_raise(WEIGHTS, checkpoint))


def changed(path: Path | None) -> tuple[int, int] | None:
    """Size and time of a file, so that a node runs again when it was replaced."""
    if path is None:
        return None
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns


NODES = [
    DiffusionLossNode,
    MemorizationLossNode,
    PerceptualLossNode,
    ContrastiveLossNode,
    PriorLossNode,
    LoadFeatures,
]
