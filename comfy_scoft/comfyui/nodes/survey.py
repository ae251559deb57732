"""A survey: the page that people of the culture open on any phone, their answer files, and their analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...common.folders import names_in
from ...metrics.image_set import ImageSet
from ...reports.plots.survey import survey_plots
from ...survey.aggregate import aggregate
from ...survey.build import MOST, SurveySettings, build, save
from ...survey.findings import report_text
from ...survey.items import one_line
from ...survey.languages import languages
from ...survey.preferences import result, who_answered
from ...survey.report import save_report
from ...survey.responses import holds_answers, load_responses, may_be_answers
from ...survey.spec import Survey
from ..compat import io, ui
from ..dataset_folders import FolderNode, given_folder
from ..own_files import LastSaved
from ..runtime import folders, in_output, input_folder, output_folder, view_of
from ..sockets import ImagesSocket, ScoresSocket, SurveySocket
from ..widgets import Node, widget, widgets

CATEGORY = "SCoFT/7 survey"
PAGES, REPORTS = LastSaved(), LastSaved()
SHIPPED = "synthetic example (shipped)"
EXAMPLE = Path(__file__).resolve().parents[2] / "survey" / "example"
LOOKED_AT = 20
"""At most this many files of a folder are opened to see whether it holds answers."""


def surveys_folder() -> Path:
    """Where surveys, their keys and their reports are written."""
    return output_folder() / "scoft" / "surveys"


def answer_folders() -> list[str]:
    """The menu: the shipped example, then the folders in ComfyUI's input folder that hold answers."""
    return [SHIPPED, *(name for name in folders(input_folder()) if _holds_answers(input_folder() / name))]


def _holds_answers(folder: Path) -> bool:
    """Whether one of the first files of an answer file's name is one; of .txt only those that the page names so."""
    names = [n for n in names_in(folder).files if may_be_answers(n) and (n[-4:] != ".txt" or "answers" in n)]
    return any(holds_answers(folder / name) for name in names[:LOOKED_AT])


def answer_folder(name: str) -> Path:
    """The folder of a menu entry. Raises UserError for a name that leads out of the input folder."""
    return EXAMPLE if name == SHIPPED else given_folder(name)


class BuildSurvey(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = SurveySettings
        tooltip = "An image set from Generate Set, one per model. Participants never see its label."
        sets = [ImagesSocket.Input(f"set_{i}", optional=i > 2, tooltip=tooltip) for i in range(1, MOST + 1)]
        return io.Schema(
            node_id="SCoFT_BuildSurvey",
            display_name="Build Survey (SCoFT)",
            category=CATEGORY,
            description="Builds an HTML page on which people rank the models' images, blind and in random order. It "
            "works offline on any phone or computer, and saves answers as a file. The key file with the models' names "
            "is saved next to it: keep it to yourself.",
            inputs=[
                *sets[:2],
                *widgets(own, "items", "pages", "seed", "title", multiline=("items",)),
                widget(own, "language", options=languages()),
                *sets[2:],
                *widgets(own, "culture", "consent", optional=True, multiline=("consent",)),
                *widgets(own, "attention_checks", "image_size", "quality", optional=True),
            ],
            outputs=[
                SurveySocket.Output(display_name="survey", tooltip="The survey with its key, for Load Responses."),
                io.String.Output(display_name="path", tooltip="Path of the HTML file to share."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, title: str | None = None) -> bool | str:
        """Reject a bad title before anything runs. None: it comes from another node."""
        return title is None or bool(SurveySettings(title=title))

    @classmethod
    def fingerprint_inputs(cls, title: str | None = None, **_: Any) -> int:
        """Changes when the page that it saved is gone."""
        return PAGES.times_gone(title and one_line(title))

    @classmethod
    def execute(cls, set_1: ImageSet, set_2: ImageSet, **settings: Any) -> io.NodeOutput:
        others = [settings.pop(f"set_{i}", None) for i in range(3, MOST + 1)]
        sets = [each for each in (set_1, set_2, *others) if each is not None]
        survey, page = build(sets, SurveySettings(**settings))
        path = save(survey, page, surveys_folder())
        PAGES.saved(survey.title, path)
        megabytes = len(page) / 1e6
        text = f"{in_output(path)}\n{len(survey.pages)} pages, {len(survey.items)} items, {megabytes:.1f} MB"
        return io.NodeOutput(survey, str(path), ui={"text": (text,), "page": (view_of(path),)})


class LoadResponses(FolderNode):
    find = staticmethod(answer_folder)

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
    def execute(cls, folder: str, survey: Survey | None = None) -> io.NodeOutput:
        return io.NodeOutput(*load_responses(survey, answer_folder(folder), surveys_folder()))


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
        return io.NodeOutput(analysis.scores(), report_text(analysis))


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
    def fingerprint_inputs(cls, **_: Any) -> int:
        """Changes when the page that it saved is gone."""
        return REPORTS.times_gone("")

    @classmethod
    def execute(cls, survey: Survey) -> io.NodeOutput:
        analysis = aggregate(survey)
        plots = survey_plots(analysis)
        path = save_report(analysis, plots, surveys_folder())
        REPORTS.saved("", path)
        images = [image[None] for _, _, image in plots]
        shown = [entry for image in images for entry in ui.PreviewImage(image, cls=cls).as_dict()["images"]]
        text = f"{in_output(path)}\n{who_answered(analysis)} {result(analysis)}"
        return io.NodeOutput(*images, str(path), ui={"images": shown, "text": (text,), "page": (view_of(path),)})
