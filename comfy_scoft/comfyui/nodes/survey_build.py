"""From image sets to a survey that people of the culture can open on any phone."""

from __future__ import annotations

from typing import Any

from ...metrics.image_set import ImageSet
from ...survey.build import MOST, SurveySettings, build, save
from ...survey.languages import languages
from .. import widgets
from ..compat import io
from ..runtime import in_output
from ..sockets import ImagesSocket, SurveySocket
from .survey import surveys_folder

CATEGORY = "SCoFT/7 survey"


class BuildSurvey(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sets = [
            ImagesSocket.Input(
                f"set_{i}",
                optional=i > 2,
                tooltip="A set from Generate Set, one for each model. People see its images, never its label.",
            )
            for i in range(1, MOST + 1)
        ]
        return io.Schema(
            node_id="SCoFT_BuildSurvey",
            display_name="Build Survey (SCoFT)",
            category=CATEGORY,
            description="Makes one HTML file in which people rank the models' images, blind and in random order. It "
            "works offline on any phone or computer; answers leave as a file. The key to it, with the models' names, "
            "is written beside it and stays with you.",
            inputs=[*sets[:2], *_widgets(), *sets[2:], *_optional()],
            outputs=[
                SurveySocket.Output(display_name="survey", tooltip="The survey with its key, for Load Responses."),
                io.String.Output(display_name="path", tooltip="The HTML file to hand out."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, set_1: ImageSet, set_2: ImageSet, **given: Any) -> io.NodeOutput:
        others = [given.pop(f"set_{i}", None) for i in range(3, MOST + 1)]
        sets = [found for found in (set_1, set_2, *others) if found is not None]
        survey, page = build(sets, SurveySettings(**given))
        path = save(survey, page, surveys_folder())
        megabytes = len(page) / 1e6
        text = f"{in_output(path)}\n{len(survey.pages)} pages, {len(survey.items)} items, {megabytes:.1f} MB"
        return io.NodeOutput(survey, str(path), ui={"text": (text,)})


def _widgets() -> list[Any]:
    return [
        io.String.Input(
            "items",
            multiline=True,
            default=widgets.default(SurveySettings, "items"),
            tooltip="One question a line, as 'title | question | instructions'; rank 1 is the best for the culture. "
            "{culture} and {n} (the number of images) are filled in. Left as they are, these are the paper's four "
            "items, asked in the survey's language.",
        ),
        widgets.number(SurveySettings, "pages", 1, 500, 1, "Pages: one prompt each, with one image of each model."),
        widgets.number(SurveySettings, "seed", 0, 0xFFFF_FFFF_FFFF, 1, "Decides which prompts and seeds are shown."),
        io.String.Input(
            "title", default=widgets.default(SurveySettings, "title"), tooltip="What people read first, and the name."
        ),
        io.Combo.Input(
            "language",
            options=list(languages()),
            default=widgets.default(SurveySettings, "language"),
            tooltip="The language of the page. Prompts are shown as they are.",
        ),
    ]


def _optional() -> list[Any]:
    default = widgets.default
    return [
        io.String.Input(
            "culture",
            default=default(SurveySettings, "culture"),
            optional=True,
            tooltip="How the questions name the culture, for example 'Korean culture'. Empty: 'your culture'.",
        ),
        io.String.Input(
            "consent",
            multiline=True,
            default=default(SurveySettings, "consent"),
            optional=True,
            tooltip="What people agree to before they begin, one paragraph a line. Empty: a plain text that says what "
            "is kept and that taking part is free.",
        ),
        io.Int.Input(
            "attention_checks",
            default=default(SurveySettings, "attention_checks"),
            min=0,
            max=20,
            optional=True,
            tooltip="Pages that are shown a second time, later and in another order, to see who ranks with care.",
        ),
        io.Int.Input(
            "image_size",
            default=default(SurveySettings, "image_size"),
            min=64,
            max=2048,
            optional=True,
            tooltip="Longer side of the images in pixels, at most. Smaller makes a smaller file.",
        ),
        io.Int.Input(
            "quality",
            default=default(SurveySettings, "quality"),
            min=1,
            max=95,
            optional=True,
            tooltip="Quality of the JPEG images. Lower makes a smaller file.",
        ),
    ]


NODES = [BuildSurvey]
