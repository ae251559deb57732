"""Figures of what models draw, and the table that shows them."""

from __future__ import annotations

from typing import Any

from ...metrics import bias
from ...metrics.image_set import ImageSet
from ...metrics.scores import Scores, add
from ...reports.plots import by_model, score_table
from ..compat import io, ui
from ..runtime import Progress, check_interrupt
from ..sockets import ImagesSocket, ScoresSocket

CATEGORY = "SCoFT/6 evaluate"


def so_far() -> Any:
    """The chain of figures that a measuring node takes, and returns longer."""
    return ScoresSocket.Input("scores", optional=True, tooltip="The figures so far; these are added to them.")


def compared(such_as: str = "the base model's") -> list[Any]:
    """What every measurement of a set of images may take beside it: a set to compare with, and the chain."""
    tooltip = f"A set of the same prompts and seeds, such as {such_as}: its figures and the change, with the interval "
    tooltip += "of paired images, are given too."
    return [ImagesSocket.Input("compared_with", optional=True, tooltip=tooltip), so_far()]


class BiasOracle(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_BiasOracle",
            display_name="Bias Oracle, mini world only (SCoFT)",
            category=CATEGORY,
            description="Reads from the pixels of mini-world images whom and what they show: how many people have "
            "dark skin, how many images have the gold palette of nuvia's own people, how many of other places kept "
            "their palette, how many houses are sound, and how many images show what was asked for. Each with its "
            "95 % interval, by the place in the prompt.",
            inputs=[
                ImagesSocket.Input("images", tooltip="Images of the mini model from Generate Set."),
                *compared("the one before training"),
            ],
            outputs=[ScoresSocket.Output(display_name="scores", tooltip="The figures, for Score Table.")],
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
            progress.update(done, f"{done} of {total} images read")

        return io.NodeOutput(add(scores, bias.measure(images, compared_with, observe)))


class ScoreTable(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_ScoreTable",
            display_name="Score Table (SCoFT)",
            category=CATEGORY,
            description="Figures with their 95 % intervals as an image, and as text for a spreadsheet. Cautions and "
            "how each figure was measured stand below.",
            inputs=[
                ScoresSocket.Input("scores", tooltip="Figures from a measuring node, or from a chain of them."),
                io.String.Input("title", default="Scores", tooltip="The heading of the image."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The table as an image."),
                io.String.Output(display_name="csv", tooltip="The table as comma-separated text, one figure a line."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, scores: Scores, title: str) -> io.NodeOutput:
        notes = [f"{name}: {said}." for name, said in scores.methods().items()]
        image, csv = score_table(by_model(scores.rows), title, notes)[None], scores.csv()
        shown = ui.PreviewImage(image, cls=cls).as_dict()
        return io.NodeOutput(image, csv, ui={**shown, "text": (csv,)})


NODES = [BiasOracle, ScoreTable]
