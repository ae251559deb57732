"""From answer files to figures: whose files to read, what they say, and the images and the page of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ...common.errors import UserError
from ...reports.plots.survey import agreement_heatmap, rank_counts, rank_violins, win_matrix
from ...survey.aggregate import Analysis, aggregate
from ...survey.build import file_name
from ...survey.findings import report_text
from ...survey.report import report_page
from ...survey.responses import load_responses
from ...survey.spec import ANSWER_FORMAT, KEY_ENDING, Survey
from ...training.checkpoint import write_atomically
from ..compat import io, ui
from ..dataset_folders import files_fingerprint
from ..runtime import folders, in_output, input_folder, inside, output_folder
from ..sockets import ScoresSocket, SurveySocket

CATEGORY = "SCoFT/7 survey"
SHIPPED = "synthetic example (shipped)"
EXAMPLE = Path(__file__).resolve().parents[2] / "survey" / "example"
LOOKED_AT = 20
"""Files of a folder that are opened to see whether it holds answers."""


def surveys_folder() -> Path:
    """Where surveys, their keys and their reports are written."""
    return output_folder() / "scoft" / "surveys"


def answer_folders() -> list[str]:
    """What the menu offers: the shipped example, then the folders under ComfyUI's input folder that hold answers."""
    root = input_folder()
    found = [name for name in folders(root) if _holds_answers(root / name)] if root.is_dir() else []
    return [SHIPPED, *found]


def _holds_answers(folder: Path) -> bool:
    """Whether one of the first JSON files says that it is an answer file."""
    paths = [p for p in sorted(folder.glob("*.json")) if not p.is_symlink() and not p.name.endswith(KEY_ENDING)]
    return any(ANSWER_FORMAT.encode() in _head(path) for path in paths[:LOOKED_AT])


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError:
        return b""


def answer_folder(name: str) -> Path:
    """The folder that a name of the menu stands for. Raises UserError for one that leads anywhere else."""
    if name == SHIPPED:
        return EXAMPLE
    folder = inside(input_folder(), name)
    if not folder.is_dir():
        raise UserError(f"There is no folder {name!r} in ComfyUI's input folder: put it there, or choose another one.")
    return folder


class LoadResponses(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_LoadResponses",
            display_name="Load Responses (SCoFT)",
            category=CATEGORY,
            description="Reads the answer files that participants sent you. Put them into a folder in ComfyUI's input "
            "folder. Files that are damaged, forged, of another survey or sent twice are left out, and the report says "
            "which and why.",
            inputs=[
                io.Combo.Input(
                    "folder", options=answer_folders(), default=SHIPPED, tooltip="The folder with the answer files."
                ),
                SurveySocket.Input(
                    "survey",
                    optional=True,
                    tooltip="The survey from Build Survey. Without it its key file is used, from the folder or from "
                    "where Build Survey wrote it; answers of several surveys are then joined.",
                ),
            ],
            outputs=[
                SurveySocket.Output(display_name="survey", tooltip="The survey with its answers."),
                io.String.Output(display_name="report", tooltip="What was read, and what was left out and why."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        """Refuse a bad folder before anything runs; None stands for a name that another node will give."""
        try:
            return folder is None or bool(answer_folder(folder))
        except UserError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, **_: Any) -> str:
        """Changes when any file under the folder does."""
        return files_fingerprint(answer_folder(folder)) if folder is not None else ""

    @classmethod
    def execute(cls, folder: str, survey: Survey | None = None) -> io.NodeOutput:
        found, report = load_responses(survey, answer_folder(folder), surveys_folder())
        return io.NodeOutput(found, report, ui={"text": (report,)})


class AggregateSurvey(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_AggregateSurvey",
            display_name="Aggregate Survey (SCoFT)",
            category=CATEGORY,
            description="What the answers say: average ranks and win rates with their intervals, the consensus ranking "
            "(MMSR + Vote) and noisy Bradley–Terry as its check, for all, by item and by country. The report also says "
            "how far people agree, what is not settled, and who sees it differently.",
            inputs=[SurveySocket.Input("survey", tooltip="A survey with answers, from Load Responses.")],
            outputs=[
                ScoresSocket.Output(display_name="scores", tooltip="All figures, for Score Table."),
                io.String.Output(display_name="report", tooltip="The findings and warnings in plain sentences."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, survey: Survey) -> io.NodeOutput:
        found = aggregate(survey)
        report = report_text(found)
        return io.NodeOutput(found.scores(), report, ui={"text": (report,)})


class PlotSurvey(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_PlotSurvey",
            display_name="Plot Survey (SCoFT)",
            category=CATEGORY,
            description="The figures of a survey as images, and a report page that joins them with the findings, "
            "written to scoft/surveys in ComfyUI's output folder. The page names no participant.",
            inputs=[SurveySocket.Input("survey", tooltip="A survey with answers, from Load Responses.")],
            outputs=[
                io.Image.Output(display_name="violin", tooltip="How the ranks spread, by item and country."),
                io.Image.Output(display_name="heatmap", tooltip="How much each two participants agree."),
                io.Image.Output(display_name="counts", tooltip="How often each rank was given, by item."),
                io.Image.Output(display_name="win_rates", tooltip="How often each generator is ranked above another."),
                io.String.Output(display_name="path", tooltip="The report page (HTML), with everything in it."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, survey: Survey) -> io.NodeOutput:
        found = aggregate(survey)
        pictures = _images(found)
        path = surveys_folder() / f"{file_name(survey.title)}-{survey.hash[:8]}.report.html"
        write_atomically(path, report_page(found, pictures).encode("utf-8"))
        images = [image[None] for _, _, image in pictures]
        shown = [entry for image in images for entry in ui.PreviewImage(image, cls=cls).as_dict()["images"]]
        return io.NodeOutput(*images, str(path), ui={"images": shown, "text": (in_output(path),)})


def _images(found: Analysis) -> list[tuple[str, str, Tensor]]:
    """(heading, what it shows, image) of every figure."""
    return [
        (
            "Ranks by item and country",
            "How the ranks spread for each generator; the dot is the average rank with its 95 % interval.",
            rank_violins(found),
        ),
        (
            "Agreement between participants",
            "How much each two participants agree above chance, and each one's weight in the consensus.",
            agreement_heatmap(found),
        ),
        ("Counts of ranks", "How often each generator was given each rank, by item.", rank_counts(found)),
        ("Win rates", "How often each generator is ranked above each other one.", win_matrix(found)),
    ]


NODES = [LoadResponses, AggregateSurvey, PlotSurvey]
