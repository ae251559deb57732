"""From image sets to a survey page that people of the culture can open on any phone."""

from __future__ import annotations

from typing import Any

from ...common.settings import declaration
from ...metrics.image_set import ImageSet
from ...survey.build import MOST, SurveySettings, build, save
from ...survey.languages import languages
from ..compat import io
from ..runtime import in_output
from ..sockets import ImagesSocket, SurveySocket
from ..widgets import Node, widget, widgets
from .survey import surveys_folder

CATEGORY = "SCoFT/7 survey"


class BuildSurvey(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sets = [
            ImagesSocket.Input(
                f"set_{i}",
                optional=i > 2,
                tooltip="An image set from Generate Set, one per model. Participants never see its label.",
            )
            for i in range(1, MOST + 1)
        ]
        return io.Schema(
            node_id="SCoFT_BuildSurvey",
            display_name="Build Survey (SCoFT)",
            category=CATEGORY,
            description="Builds an HTML page on which people rank the models' images, blind and in random order. It "
            "works offline on any phone or computer, and saves answers as a file. The key file with the models' names "
            "is saved next to it: keep it to yourself.",
            inputs=[*sets[:2], *_widgets(), *sets[2:], *_optional()],
            outputs=[
                SurveySocket.Output(display_name="survey", tooltip="The survey with its key, for Load Responses."),
                io.String.Output(display_name="path", tooltip="Path of the HTML file to share."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, set_1: ImageSet, set_2: ImageSet, **settings: Any) -> io.NodeOutput:
        others = [settings.pop(f"set_{i}", None) for i in range(3, MOST + 1)]
        sets = [each for each in (set_1, set_2, *others) if each is not None]
        survey, page = build(sets, SurveySettings(**settings))
        path = save(survey, page, surveys_folder())
        megabytes = len(page) / 1e6
        text = f"{in_output(path)}\n{len(survey.pages)} pages, {len(survey.items)} items, {megabytes:.1f} MB"
        return io.NodeOutput(survey, str(path), ui={"text": (text,)})


def _widgets() -> list[Any]:
    own = SurveySettings
    language, explained = declaration(own, "language")
    return [
        widget(own, "items", multiline=True),
        *widgets(own, "pages", "seed", "title"),
        io.Combo.Input("language", options=list(languages()), default=language, tooltip=explained.help),
    ]


def _optional() -> list[Any]:
    own = SurveySettings
    return [
        widget(own, "culture", optional=True),
        widget(own, "consent", optional=True, multiline=True),
        *widgets(own, "attention_checks", "image_size", "quality", optional=True),
    ]
