"""Chains of metrics: joined, and shown as a table."""

from __future__ import annotations

from functools import reduce

from ...metrics.scores import Scores, add
from ...reports.plots import by_model, score_table
from ..compat import io, ui
from ..sockets import ScoresSocket
from ..widgets import Node
from .metrics import CATEGORY, figures

CHAINS = 6


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
