"""The part of Table 1 that only people can answer: a survey page for each culture, and the ranks from their answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...common.errors import UserError
from ...data.images import read_pixels
from ...metrics.image_set import ImageSet
from ...metrics.intervals import Interval
from ...survey.aggregate import ALL, aggregate
from ...survey.build import SurveySettings, build, save
from ...survey.responses import load_responses
from ...survey.spec import KEY_ENDING
from . import paper
from .measure import Figure, figure
from .results import WORDS
from .study import Study
from .train import ImageFiles

FOLDER = "survey"
HOW = WORDS["survey"]["how"].format(folder=FOLDER, key=KEY_ENDING)
"""What to do with the pages."""


def write_page(study: Study, culture: str, sets: Mapping[str, ImageFiles]) -> str:
    """The culture's survey page below --out, its key beside it; or a sentence that says why there is none.

    sets: the images of Tables 1 and 4, by the arm's name. A page is one prompt with one image of each model.
    """
    spec = next(iter(sets.values())).spec
    firsts = [i for i, prompt in enumerate(spec.prompts) if prompt not in spec.prompts[:i]][: study.scale.pages]
    prompts, seeds = tuple(spec.prompts[i] for i in firsts), tuple(spec.seeds[i] for i in firsts)
    shown = []
    for name, files in sets.items():
        pixels = torch.stack([read_pixels(files.paths[i]) for i in firsts])
        shown.append(ImageSet(pixels.add(1.0).div(2.0).permute(0, 2, 3, 1), prompts, seeds, name))
    question = WORDS["survey"]["question"].format(culture=culture)
    settings = SurveySettings(question, pages=len(firsts), seed=study.seed, culture=culture)
    try:
        path = save(*build(shown, settings), study.out / FOLDER)
    except UserError as error:  # such as models that generate the same images, after too short a training
        return str(error)
    return path.relative_to(study.out).as_posix()


def ranks(study: Study, answers: Path) -> dict[str, Any]:
    """Average ranks from a folder of participants' files: {"people", "report", "ranks": arm's name -> item -> figure}.

    Raises UserError, one sentence, for a folder without answers to this study's pages.
    """
    survey, report = load_responses(None, answers, study.out / FOLDER)
    found = aggregate(survey)
    table: dict[str, dict[str, Figure]] = {name: {} for name in survey.generators}
    for item in (item.id for item in survey.items if item.id in paper.ITEMS):
        figures = found.figures[ALL, item]
        for name, average in zip(survey.generators, figures.average.T, strict=True):
            table[name][item] = figure(Interval(*average), figures.rankings)
    return {"people": found.whole.people, "report": report, "ranks": table}
