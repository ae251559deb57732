"""The paper's metrics as nodes: each takes an image set and a chain of metrics, and returns the chain longer."""

from __future__ import annotations

from functools import reduce
from typing import Any

from torch import Tensor

from ...common.errors import UserError
from ...data.records import Dataset
from ...features import FeatureNetwork
from ...metrics import clip_score, diversity, kid, memorization
from ...metrics.image_set import ImageSet
from ...metrics.inputs import OnImages
from ...metrics.kid import KidSettings
from ...metrics.scores import Scores, add
from ...reports.plots import copies_page
from ..compat import io, ui
from ..runtime import Progress, check_interrupt, device
from ..sockets import DatasetSocket, FeaturesSocket, ImagesSocket, ScoresSocket
from ..widgets import Node, widgets
from .evaluate import CATEGORY, compared

CHAINS = 6


def watch(node: Any) -> OnImages:
    """An observer that shows how many images were measured, and checks for an interrupt before each batch."""
    bars: list[Progress] = []

    def observe(done: int, total: int) -> None:
        check_interrupt()
        if not bars:
            bars.append(Progress(total, node.hidden.unique_id if node.hidden else None))
        bars[0].update(done, f"{done} of {total} images measured")

    return observe


def measured(features: str = "The feature network, such as CLIP, DINO or DreamSim.") -> list[Any]:
    """The first sockets of every metric of images. features: tooltip of the network."""
    return [
        ImagesSocket.Input("images", tooltip="The images to measure, from Generate Set."),
        FeaturesSocket.Input("features", tooltip=features),
    ]


def figures() -> Any:
    return ScoresSocket.Output(display_name="scores", tooltip="The metrics with their intervals, for Score Table.")


class KID(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_KID",
            display_name="KID (SCoFT)",
            category=CATEGORY,
            description="Kernel Inception Distance: how far the generated images as a whole are from real or other "
            "images, × 1000 as in the paper's tables. Lower is closer. Connect exactly one reference: a dataset (its "
            "test split), another set, or a batch of images. With few images the interval is wide.",
            inputs=[
                *measured(),
                DatasetSocket.Input(
                    "dataset", optional=True, tooltip="Reference: real images, such as a community's test split."
                ),
                ImagesSocket.Input(
                    "other_set", optional=True, tooltip="Or another image set, such as one of other places."
                ),
                io.Image.Input("other_images", optional=True, tooltip="Or an image batch, such as generic images."),
                io.String.Input(
                    "reference_name",
                    default="",
                    tooltip="Name of the reference in the table. Empty: its own name.",
                ),
                *compared(),
                *widgets(KidSettings, "subset_size", "subsets", "normalise", "seed", optional=True),
            ],
            outputs=[figures()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        images: ImageSet,
        features: FeatureNetwork,
        reference_name: str,
        dataset: Dataset | None = None,
        other_set: ImageSet | None = None,
        other_images: Tensor | None = None,
        compared_with: ImageSet | None = None,
        scores: Scores | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        references = [part for part in (dataset, other_set, other_images) if part is not None]
        if len(references) != 1:
            raise UserError(
                f"KID has {len(references)} references connected, but it takes exactly one: dataset, other_set or "
                "other_images."
            )
        network, chosen = features.to(device()), KidSettings(**settings)
        result = kid.measure(images, references[0], network, chosen, compared_with, reference_name, watch(cls))
        return io.NodeOutput(add(scores, result))


class ClipScore(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_ClipScore",
            display_name="CLIPScore (SCoFT)",
            category=CATEGORY,
            description="How well images match their prompts according to a CLIP, from 0 to 100. " + clip_score.CAUTION,
            inputs=[*measured("A CLIP network. Networks without a text encoder do not work."), *compared()],
            outputs=[figures()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        images: ImageSet,
        features: FeatureNetwork,
        compared_with: ImageSet | None = None,
        scores: Scores | None = None,
    ) -> io.NodeOutput:
        result = clip_score.measure(images, features.to(device()), compared_with, watch(cls))
        return io.NodeOutput(add(scores, result))


class Memorization(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_Memorization",
            display_name="Memorization (SCoFT)",
            category=CATEGORY,
            description="How similar generated images are to the training images: the mean similarity to the training "
            "image of the same caption, and the share of near copies. Lower is better for both. The image shows the "
            "closest pairs: look at them.",
            inputs=[
                *measured(),
                DatasetSocket.Input(
                    "dataset",
                    tooltip="The training images (split 'train'). Generate the set from their captions: other prompts "
                    "do not count for the similarity.",
                ),
                DatasetSocket.Input(
                    "held_out",
                    optional=True,
                    tooltip="Real images that were not trained on, such as the test split. Generated images closer to "
                    "a training image than these count as near copies.",
                ),
                *compared(),
                io.Float.Input(
                    "quantile",
                    default=memorization.QUANTILE,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    round=False,
                    optional=True,
                    tooltip="Threshold for near copies: this quantile of the held-out images' distances to the "
                    "training images (without held-out images: of the distances among training images).",
                ),
            ],
            outputs=[
                figures(),
                io.Image.Output(
                    display_name="image",
                    tooltip="The closest images, each beside its training image.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        images: ImageSet,
        features: FeatureNetwork,
        dataset: Dataset,
        held_out: Dataset | None = None,
        compared_with: ImageSet | None = None,
        scores: Scores | None = None,
        quantile: float = memorization.QUANTILE,
    ) -> io.NodeOutput:
        network = features.to(device())
        result = memorization.measure(images, dataset, network, compared_with, held_out, quantile, watch(cls))
        near = result.copies
        page = copies_page(
            images, result.training, near.nearest.tolist(), near.distances.tolist(), near.threshold
        ).unsqueeze(0)
        return io.NodeOutput(add(scores, result.scores), page, ui=ui.PreviewImage(page, cls=cls))


class Diversity(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_Diversity",
            display_name="Diversity (SCoFT)",
            category=CATEGORY,
            description="How different the images of one prompt are from each other: the mean distance over all pairs, "
            "averaged over prompts. Higher is more diverse. Needs at least two images per prompt.",
            inputs=[*measured("The feature network that measures distance. Paper: DreamSim."), *compared()],
            outputs=[figures()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        images: ImageSet,
        features: FeatureNetwork,
        compared_with: ImageSet | None = None,
        scores: Scores | None = None,
    ) -> io.NodeOutput:
        result = diversity.measure(images, features.to(device()), compared_with, watch(cls))
        return io.NodeOutput(add(scores, result))


class MergeScores(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_MergeScores",
            display_name="Merge Scores (SCoFT)",
            category=CATEGORY,
            description="Joins the metrics of up to six chains. Duplicate metrics are kept once.",
            inputs=[
                ScoresSocket.Input(f"scores_{i}", optional=i > 1, tooltip="Metrics from one chain of metric nodes.")
                for i in range(1, CHAINS + 1)
            ],
            outputs=[figures()],
        )

    @classmethod
    def execute(cls, scores_1: Scores, **others: Scores | None) -> io.NodeOutput:
        rest = [chain for i in range(2, CHAINS + 1) if (chain := others.get(f"scores_{i}")) is not None]
        return io.NodeOutput(reduce(add, rest, scores_1))
