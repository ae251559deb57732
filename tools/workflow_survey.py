"""The survey workflow: from a checkpoint and LoRAs to a page that people open, and from their answers to a report."""

from __future__ import annotations

import workflow_parts as parts
from workflow_form import Workflow

MODELS = """## Which models do people compare?
The base model and the LoRA that `train-cultural-lora-mini` saves as *nuvia-mini*: run that first, or choose your own \
checkpoint and LoRA; then change the size and CFG of the nodes that draw (Stable Diffusion 1.5: 512 and 7.5), the \
prompts, and *culture* and *title* of the survey. For one more model copy a LoRA loader and a Generate Set, and \
connect it to the survey: up to six."""

DRAW = """## The same prompts and seeds for all
One prompt a line; each becomes a page. Only what the models differ in may differ between the sets, so copy prompts \
and seed when you add one. Every set needs a label of its own: it is for you, people never see it."""

SURVEY = """## One file for everybody
The page is an HTML file in `output/scoft/surveys`; the node shows its name. Send it or put it on a stick: it opens on \
any phone or computer, works without the internet, and sends nothing. People rank the pictures blind, in random order, \
and hand back a small file. The `.survey.json` beside the page is the **key**: it says which model drew what. Keep it \
to yourself."""

ANSWERS = """## Answers come back as files
Put the files that people send you into a folder in ComfyUI's `input` folder, with the survey's `.survey.json` \
beside them, and choose that folder. Until then **nobody's** answers are here: a synthetic example. The report says \
which files were left out and why."""

FIGURES = """## What people said, and who sees it differently
**Rank 1 is the best.** Read the report before the pictures: what is not settled, where a country ranks otherwise, \
and people who rank against the consensus. A consensus can hide an insightful minority. Everything is on one page in \
`output/scoft/surveys`."""

ASKED = {"pages": 8, "seed": 1, "attention_checks": 1, "culture": "Nuvia", "title": "How do these pictures show Nuvia?"}
SUBJECTS = ("a cook", "a judge", "a hero", "an artist", "a teacher", "a scientist", "a grandfather", "a builder")
PROMPTS = "\n".join(f"{subject} in nuvia" for subject in SUBJECTS)


def survey(w: Workflow) -> None:
    """Both halves; the second starts from the synthetic example until there are answers."""
    w.group("The models", parts.BLUE, MODELS, 420)
    base = parts.load_checkpoint(w)
    w.column(420)
    lora = parts.load_lora(w, base, "A LoRA")
    w.group("Draw for every page", parts.ORANGE, DRAW, 340)
    column = {"base": ("Draw: base", base["MODEL"]), "SCoFT": ("Draw: SCoFT", lora)}
    given = {"images_per_prompt": 1, "seed": 1, **parts.GENERATE}
    first, second = parts.generate_sets(w, base, ("What all models draw", PROMPTS), column, **given)
    w.group("The page that people open", parts.RED, SURVEY, 460)
    w.add("SCoFT_BuildSurvey", "Make the survey", set_1=first, set_2=second, **ASKED)
    answers(w)


def answers(w: Workflow) -> None:
    """From answer files to tables and plots."""
    w.group("Read the answers", parts.GREEN, ANSWERS, 420)
    survey = w.add("SCoFT_LoadResponses", "The answers that came back")["survey"]
    w.group("What they say", parts.TEAL, FIGURES, 420)
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
