"""The bias metrics of the mini world, and the table of all metrics."""

from __future__ import annotations

from typing import Any

from ...metrics import bias
from ...metrics.image_set import ImageSet
from ...metrics.scores import Scores, add
from ...reports.plots import by_model, score_table
from ..compat import io, ui
from ..runtime import Progress, check_interrupt
from ..sockets import ImagesSocket, ScoresSocket
from ..widgets import Node

CATEGORY = "SCoFT/6 evaluate"


def so_far() -> Any:
    """The chain of metrics that a metric node takes, and returns longer."""
    return ScoresSocket.Input("scores", optional=True, tooltip="Previous metrics. These are added to them.")


def compared(such_as: str = "the base model's") -> list[Any]:
    """The optional sockets of every metric of images: a set to compare with, and the chain."""
    tooltip = (
        f"An image set of the same prompts and seeds, such as {such_as}. Adds its metrics and the change, with an "
    )
    tooltip += "interval over image pairs."
    return [ImagesSocket.Input("compared_with", optional=True, tooltip=tooltip), so_far()]


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
        count = len(images.prompts) * (1 if compared_with is None else 2)
        progress = Progress(count, cls.hidden.unique_id if cls.hidden else None)

        def observe(done: int, total: int) -> None:
            check_interrupt()
            progress.update(done, f"{done} of {total} images measured")

        return io.NodeOutput(add(scores, bias.measure(images, compared_with, observe)))


class ScoreTable(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_ScoreTable",
            display_name="Score Table (SCoFT)",
            category=CATEGORY,
            description="Shows metrics with their 95% intervals as a table image, and as CSV text. Cautions and how "
            "each metric was measured are listed below the table.",
            inputs=[
                ScoresSocket.Input("scores", tooltip="Metrics from a metric node, or from a chain of them."),
                io.String.Input("title", default="Scores", tooltip="Title of the table."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The table as an image."),
                io.String.Output(display_name="csv", tooltip="The table as comma-separated text, one metric per line."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, scores: Scores, title: str) -> io.NodeOutput:
        notes = [f"{name}: {method}." for name, method in scores.methods().items()]
        image, csv = score_table(by_model(scores.rows), title, notes)[None], scores.csv()
        shown = ui.PreviewImage(image, cls=cls).as_dict()
        return io.NodeOutput(image, csv, ui={**shown, "text": (csv,)})
