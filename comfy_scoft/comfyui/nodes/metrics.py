"""The paper's metrics as nodes: each takes an image set and a chain of metrics, and returns the chain longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from ...common.errors import UserError
from ...data.records import Dataset
from ...features import FeatureNetwork
from ...metrics import bias, clip_score, diversity, kid, memorization
from ...metrics.image_set import ImageSet
from ...metrics.kid import KidSettings
from ...metrics.scores import Scores, add
from ...reports.plots import copies_page
from ..compat import io, ui
from ..runtime import device
from ..sockets import DatasetSocket, FeaturesSocket, ImagesSocket, ScoresSocket
from ..widgets import Node, widgets

CATEGORY = "SCoFT/6 evaluate"
MEASURED = "measured: {done} of {total}"


def so_far() -> Any:
    """The chain of metrics that a metric node takes, and returns longer."""
    return ScoresSocket.Input("scores", optional=True, tooltip="Previous metrics. These are added to them.")


def compared(such_as: str = "the base model's") -> list[Any]:
    """The optional sockets of every metric of images: a set to compare with, and the chain."""
    tooltip = f"An image set of the same prompts and seeds, such as {such_as}. Adds its metrics and the change, "
    tooltip += "with an interval over image pairs."
    return [ImagesSocket.Input("compared_with", optional=True, tooltip=tooltip), so_far()]


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
                    "reference_name", default="", tooltip="Name of the reference in the table. Empty: its own name."
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
        result = kid.measure(images, references[0], network, chosen, compared_with, reference_name, cls.watch(MEASURED))
        return io.NodeOutput(add(scores, result))


class _NetworkMetric(Node):
    """A metric of an image set that needs only a feature network. network: the tooltip of its socket."""

    node_id: ClassVar[str]
    display_name: ClassVar[str]
    description: ClassVar[str]
    network: ClassVar[str]
    measure: ClassVar[Callable[..., Scores]]

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=cls.node_id,
            display_name=cls.display_name,
            category=CATEGORY,
            description=cls.description,
            inputs=[*measured(cls.network), *compared()],
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
        return io.NodeOutput(
            add(scores, cls.measure(images, features.to(device()), compared_with, cls.watch(MEASURED)))
        )


class ClipScore(_NetworkMetric):
    node_id = "SCoFT_ClipScore"
    display_name = "CLIPScore (SCoFT)"
    description = (
        "How well images match their prompts according to a CLIP: 100 max(cos, 0), from 0 to 100 (published values are "
        "2.5 max(cos, 0)). " + clip_score.CAUTION
    )
    network = "A CLIP network. Networks without a text encoder do not work."
    measure = staticmethod(clip_score.measure)


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
                io.Image.Output(display_name="image", tooltip="The closest images, each beside its training image."),
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
        result = memorization.measure(images, dataset, network, compared_with, held_out, quantile, cls.watch(MEASURED))
        near = result.copies
        nearest, distances = near.nearest.tolist(), near.distances.tolist()
        page = copies_page(images, result.training, nearest, distances, near.threshold)[None]
        return io.NodeOutput(add(scores, result.scores), page, ui=ui.PreviewImage(page, cls=cls))


class Diversity(_NetworkMetric):
    node_id = "SCoFT_Diversity"
    display_name = "Diversity (SCoFT)"
    description = (
        "How different the images of one prompt are from each other: the mean distance over all pairs, averaged over "
        "prompts. Higher is more diverse. Needs at least two images per prompt."
    )
    network = "The feature network that measures distance. Paper: DreamSim."
    measure = staticmethod(diversity.measure)


class BiasOracle(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_BiasOracle",
            display_name="Bias Oracle, mini world only (SCoFT)",
            category=CATEGORY,
            description="Reads from the pixels of mini-world images what they show: the share of people with dark "
            "skin, of images in nuvia's own gold palette, of other places that kept their palette, of intact houses, "
            "and of images that match their prompt. Each by the place in the prompt, with its 95% interval.",
            inputs=[
                ImagesSocket.Input("images", tooltip="Images of the mini model, from Generate Set."),
                *compared("the one before training"),
            ],
            outputs=[ScoresSocket.Output(display_name="scores", tooltip="The metrics, for Score Table.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, images: ImageSet, compared_with: ImageSet | None = None, scores: Scores | None = None
    ) -> io.NodeOutput:
        return io.NodeOutput(add(scores, bias.measure(images, compared_with, cls.watch(MEASURED))))
