"""The paper's measurements as nodes: each takes a set of images and a chain of figures, and returns it longer."""

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
from ..widgets import default, number
from .evaluate import CATEGORY, compared

CHAINS = 6


def watch(node: Any) -> OnImages:
    """Shows how many images were measured, and obeys the interrupt before each batch."""
    bars: list[Progress] = []

    def observe(done: int, total: int) -> None:
        check_interrupt()
        if not bars:
            bars.append(Progress(total, node.hidden.unique_id if node.hidden else None))
        bars[0].update(done, f"{done} of {total} images measured")

    return observe


def measured(features: str = "The network whose vectors are compared, such as CLIP, DINO or DreamSim.") -> list[Any]:
    """The sockets that all measurements of images begin with; `features`: what the network is for."""
    return [
        ImagesSocket.Input("images", tooltip="The images to measure, from Generate Set."),
        FeaturesSocket.Input("features", tooltip=features),
    ]


def figures() -> Any:
    return ScoresSocket.Output(display_name="scores", tooltip="The figures with their intervals, for Score Table.")


class KID(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        size = "0 takes all images at once, which needs no luck. Another size gives the mean over random subsets of "
        size += "that size, as published figures are made."
        return io.Schema(
            node_id="SCoFT_KID",
            display_name="KID (SCoFT)",
            category=CATEGORY,
            description="How far the generated images are from real ones, or from any others, as a whole: the Kernel "
            "Inception Distance, in thousandths as in the paper's tables. Near 0 is alike; lower is nearer. Connect "
            "exactly one reference: a dataset (its test split), another set, or a batch of images. With few images "
            "the interval is wide.",
            inputs=[
                *measured(),
                DatasetSocket.Input(
                    "dataset", optional=True, tooltip="Real images to compare with, such as a community's test split."
                ),
                ImagesSocket.Input(
                    "other_set", optional=True, tooltip="Or another set, such as one of other places, of any prompts."
                ),
                io.Image.Input(
                    "other_images", optional=True, tooltip="Or a batch of images, such as a generic folder."
                ),
                io.String.Input(
                    "reference_name",
                    default="",
                    tooltip="What the table calls the reference; empty takes its own name.",
                ),
                *compared(),
                number(KidSettings, "subset_size", 0, 100_000, 1, size, True),
                number(KidSettings, "subsets", 1, 10_000, 1, "How many subsets, where they have a size.", True),
                io.Boolean.Input(
                    "normalise",
                    default=default(KidSettings, "normalise"),
                    optional=True,
                    tooltip="Make all vectors equally long first, so that figures of different networks can be read on "
                    "one scale. Off takes them as they are.",
                ),
                number(KidSettings, "seed", 0, 0xFFFF_FFFF, 1, "Of the random subsets and of the interval.", True),
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
        given = [part for part in (dataset, other_set, other_images) if part is not None]
        if len(given) != 1:
            raise UserError(
                f"KID has {len(given)} references connected, but it takes exactly one: dataset, other_set or "
                "other_images."
            )
        network, chosen = features.to(device()), KidSettings(**settings)
        found = kid.measure(images, given[0], network, chosen, compared_with, reference_name, watch(cls))
        return io.NodeOutput(add(scores, found))


class ClipScore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_ClipScore",
            display_name="CLIPScore (SCoFT)",
            category=CATEGORY,
            description="How well images and their prompts agree, by a CLIP, from 0 to 100. " + clip_score.CAUTION,
            inputs=[*measured("A CLIP, which also reads words; other networks cannot do this."), *compared()],
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
        found = clip_score.measure(images, features.to(device()), compared_with, watch(cls))
        return io.NodeOutput(add(scores, found))


class Memorization(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_Memorization",
            display_name="Memorization (SCoFT)",
            category=CATEGORY,
            description="How like their training images the generated ones are: the mean similarity to the training "
            "image of the same caption, and the share that is nearer to a training image than real images are "
            "that were never trained on. Lower is better for both. The image shows the nearest pairs: look at them.",
            inputs=[
                *measured(),
                DatasetSocket.Input(
                    "dataset",
                    tooltip="The images that were trained on (split 'train'). Draw the set from their captions: "
                    "prompts that are no caption of theirs are left out of the similarity.",
                ),
                DatasetSocket.Input(
                    "held_out",
                    optional=True,
                    tooltip="Real images that were not trained on, such as the test split: what is nearer to a "
                    "training image than they are counts as a near copy.",
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
                    tooltip="Near is what so large a share of the held-out images is; without those, of the training "
                    "images to one another.",
                ),
            ],
            outputs=[
                figures(),
                io.Image.Output(
                    display_name="image",
                    tooltip="The nearest images, each beside the training image it is near to.",
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
        found = memorization.measure(images, dataset, network, compared_with, held_out, quantile, watch(cls))
        near = found.copies
        page = copies_page(
            images, found.training, near.nearest.tolist(), near.distances.tolist(), near.threshold
        ).unsqueeze(0)
        return io.NodeOutput(add(scores, found.scores), page, ui=ui.PreviewImage(page, cls=cls))


class Diversity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_Diversity",
            display_name="Diversity (SCoFT)",
            category=CATEGORY,
            description="How different the images of one prompt are from one another: the mean distance over all "
            "pairs, averaged over prompts. Higher is more varied. Each prompt needs at least two images.",
            inputs=[*measured("The network whose distance is taken; the paper's is DreamSim."), *compared()],
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
        found = diversity.measure(images, features.to(device()), compared_with, watch(cls))
        return io.NodeOutput(add(scores, found))


class MergeScores(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_MergeScores",
            display_name="Merge Scores (SCoFT)",
            category=CATEGORY,
            description="Figures of several measurements, one after another, as one. A figure that comes twice is kept "
            "once, the first time.",
            inputs=[
                ScoresSocket.Input(f"scores_{i}", optional=i > 1, tooltip="Figures from a measuring node or a chain.")
                for i in range(1, CHAINS + 1)
            ],
            outputs=[figures()],
        )

    @classmethod
    def execute(cls, scores_1: Scores, **others: Scores | None) -> io.NodeOutput:
        rest = [found for i in range(2, CHAINS + 1) if (found := others.get(f"scores_{i}")) is not None]
        return io.NodeOutput(reduce(add, rest, scores_1))


NODES = [KID, ClipScore, Memorization, Diversity, MergeScores]
