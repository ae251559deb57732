"""The second half of the survey workflow: from answer files to the figures. It starts from the synthetic example."""

from __future__ import annotations

from workflow_form import Workflow

GREEN, TEAL = "#4a7a4a", "#2f7d7d"

ANSWERS = """## Answers come back as files
Put the files that people send you into a folder in ComfyUI's `input` folder, with the survey's `.survey.json` \
beside them, and choose that folder. Until then **nobody's** answers are here: a synthetic example. The report says \
which files were left out and why."""

FIGURES = """## What people said, and who sees it differently
**Rank 1 is the best.** Read the report before the pictures: what is not settled, where a country ranks otherwise, \
and people who rank against the consensus. A consensus can hide an insightful minority. Everything is on one page in \
`output/scoft/surveys`."""


def figures(w: Workflow, first: int = 1) -> None:
    """Two groups, numbered from `first`: the answers, and what they say."""
    w.group(f"{first} · Read the answers", GREEN, ANSWERS)
    w.column(420)
    survey = w.add("SCoFT_LoadResponses", "The answers that came back")["survey"]
    w.group(f"{first + 1} · What they say", TEAL, FIGURES)
    w.column(420)
    scores = w.add("SCoFT_AggregateSurvey", "Consensus, ranks and warnings", survey=survey)["scores"]
    table = w.add("SCoFT_ScoreTable", "All figures", scores=scores, title="Survey")["image"]
    w.column(460)
    plots = w.add("SCoFT_PlotSurvey", "Pictures and the report page", survey=survey)
    w.column(460)
    w.add("SaveImage", "The figures", images=table, filename_prefix="scoft/survey-figures")
    w.add("SaveImage", "Ranks by item and country", images=plots["violin"], filename_prefix="scoft/survey-ranks")
    w.column(460)
    w.add("SaveImage", "Who agrees with whom", images=plots["heatmap"], filename_prefix="scoft/survey-agreement")
    w.add("SaveImage", "Counts of ranks", images=plots["counts"], filename_prefix="scoft/survey-counts")
