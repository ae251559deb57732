"""From answer files to results: read the files, analyze them, and plot them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ...common.errors import UserError
from ...common.files import write_atomically
from ...reports.plots.survey import agreement_heatmap, rank_counts, rank_violins, win_matrix
from ...survey.aggregate import Analysis, aggregate
from ...survey.build import file_name
from ...survey.findings import report_text
from ...survey.report import report_page
from ...survey.responses import load_responses
from ...survey.spec import ANSWER_FORMAT, KEY_ENDING, Survey
from ..compat import io, ui
from ..dataset_folders import files_fingerprint
from ..runtime import folders, in_output, input_folder, inside, output_folder
from ..sockets import ScoresSocket, SurveySocket
from ..widgets import Node

CATEGORY = "SCoFT/7 survey"
SHIPPED = "synthetic example (shipped)"
EXAMPLE = Path(__file__).resolve().parents[2] / "survey" / "example"
LOOKED_AT = 20
"""At most this many files of a folder are opened to see whether it holds answers."""


def surveys_folder() -> Path:
    """Where surveys, their keys and their reports are written."""
    return output_folder() / "scoft" / "surveys"


def answer_folders() -> list[str]:
    """The menu: the shipped example, then the folders in ComfyUI's input folder that hold answers."""
    root = input_folder()
    return [SHIPPED, *(name for name in (folders(root) if root.is_dir() else []) if _holds_answers(root / name))]


def _holds_answers(folder: Path) -> bool:
    """Whether one of the first JSON files is an answer file."""
    paths = [p for p in sorted(folder.glob("*.json")) if not p.is_symlink() and not p.name.endswith(KEY_ENDING)]
    return any(ANSWER_FORMAT.encode() in _head(path) for path in paths[:LOOKED_AT])


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError:
        return b""


def answer_folder(name: str) -> Path:
    """The folder of a menu entry. Raises UserError for a name that leads out of the input folder."""
    if name == SHIPPED:
        return EXAMPLE
    folder = inside(input_folder(), name)
    if not folder.is_dir():
        raise UserError(f"There is no folder {name!r} in ComfyUI's input folder: put it there, or choose another one.")
    return folder


class LoadResponses(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_LoadResponses",
            display_name="Load Responses (SCoFT)",
            category=CATEGORY,
            description="Loads the answer files of participants from a folder in ComfyUI's input folder. Files that "
            "are damaged, forged, from another survey or sent twice are left out, and the report says why.",
            inputs=[
                io.Combo.Input(
                    "folder", options=answer_folders(), default=SHIPPED, tooltip="Folder with the answer files."
                ),
                SurveySocket.Input(
                    "survey",
                    optional=True,
                    tooltip="The survey, from Build Survey. Not connected: its key file is used, from the folder or "
                    "from where Build Survey saved it, and answers of several surveys are joined.",
                ),
            ],
            outputs=[
                SurveySocket.Output(display_name="survey", tooltip="The survey with its answers."),
                io.String.Output(
                    display_name="report", tooltip="How many answers were loaded, and what was left out and why."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        """Reject a bad folder before anything runs. None: the name comes from another node."""
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
        answered, report = load_responses(survey, answer_folder(folder), surveys_folder())
        return io.NodeOutput(answered, report, ui={"text": (report,)})


class AggregateSurvey(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_AggregateSurvey",
            display_name="Aggregate Survey (SCoFT)",
            category=CATEGORY,
            description="Analyzes the answers: average ranks and win rates with intervals, the consensus ranking (MMSR "
            "+ Vote), and noisy Bradley–Terry as a check; overall, by item and by country. The report also says how "
            "far participants agree, what is undecided, and which groups differ.",
            inputs=[SurveySocket.Input("survey", tooltip="A survey with answers, from Load Responses.")],
            outputs=[
                ScoresSocket.Output(display_name="scores", tooltip="All results, for Score Table."),
                io.String.Output(display_name="report", tooltip="Findings and warnings in plain sentences."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, survey: Survey) -> io.NodeOutput:
        analysis = aggregate(survey)
        report = report_text(analysis)
        return io.NodeOutput(analysis.scores(), report, ui={"text": (report,)})


class PlotSurvey(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCoFT_PlotSurvey",
            display_name="Plot Survey (SCoFT)",
            category=CATEGORY,
            description="Plots the results of a survey, and saves a report page with plots and findings to "
            "output/scoft/surveys. The page names no participant.",
            inputs=[SurveySocket.Input("survey", tooltip="A survey with answers, from Load Responses.")],
            outputs=[
                io.Image.Output(display_name="violin", tooltip="Distribution of ranks, by item and country."),
                io.Image.Output(display_name="heatmap", tooltip="Agreement between each two participants."),
                io.Image.Output(display_name="counts", tooltip="Counts of each rank, by item."),
                io.Image.Output(display_name="win_rates", tooltip="How often each model is ranked above another."),
                io.String.Output(display_name="path", tooltip="Path of the report page (HTML)."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, survey: Survey) -> io.NodeOutput:
        analysis = aggregate(survey)
        plots = _plots(analysis)
        path = surveys_folder() / f"{file_name(survey.title)}-{survey.hash[:8]}.report.html"
        write_atomically(path, report_page(analysis, plots).encode("utf-8"))
        images = [image[None] for _, _, image in plots]
        shown = [entry for image in images for entry in ui.PreviewImage(image, cls=cls).as_dict()["images"]]
        return io.NodeOutput(*images, str(path), ui={"images": shown, "text": (in_output(path),)})


def _plots(analysis: Analysis) -> list[tuple[str, str, Tensor]]:
    """(heading, caption, image) of every plot."""
    return [
        (
            "Ranks by item and country",
            "Distribution of the ranks of each model. The dot is the average rank with its 95% interval.",
            rank_violins(analysis),
        ),
        (
            "Agreement between participants",
            "Agreement of each two participants above chance, and each one's weight in the consensus.",
            agreement_heatmap(analysis),
        ),
        ("Counts of ranks", "How often each model was given each rank, by item.", rank_counts(analysis)),
        ("Win rates", "How often each model is ranked above each other one.", win_matrix(analysis)),
    ]
