"""The survey workflow: from a checkpoint and LoRAs to a page that people open, and from answers to the figures."""

from __future__ import annotations

import workflow_survey_figures
from workflow_form import Socket, Workflow

BLUE, ORANGE, RED = "#3f789e", "#a1663a", "#8a3b3b"

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

CHECKPOINT, LORA = "scoft-mini.safetensors", "nuvia-mini_00001.safetensors"
DRAWING = {"width": 64, "height": 64, "steps": 20, "cfg": 3.0, "sampler_name": "ddim", "scheduler": "normal", "seed": 1}
ASKED = {"pages": 8, "seed": 1, "attention_checks": 1, "culture": "Nuvia", "title": "How do these pictures show Nuvia?"}
THINGS = ("a cook", "a judge", "a hero", "an artist", "a teacher", "a scientist", "a grandfather", "a builder")
PROMPTS = "\n".join(f"{thing} in nuvia" for thing in THINGS)


def survey(w: Workflow) -> None:
    """Both halves; the second starts from the synthetic example until there are answers."""
    w.group("1 · The models", BLUE, MODELS)
    w.column(420)
    base = w.add("CheckpointLoaderSimple", "The base model", ckpt_name=CHECKPOINT)
    w.column(420)
    lora = w.add("LoraLoaderModelOnly", "A LoRA", model=base["MODEL"], lora_name=LORA, strength_model=1.0)
    w.group("2 · Draw for every page", ORANGE, DRAW)
    w.column(340)
    asked = w.add("PrimitiveStringMultiline", "What all models draw", value=PROMPTS)["STRING"]
    w.column(320)
    sets: dict[str, Socket] = {}
    for number, (label, model) in enumerate({"base": base["MODEL"], "SCoFT": lora["MODEL"]}.items(), 1):
        given = {"model": model, "clip": base["CLIP"], "vae": base["VAE"], "prompts": asked, "label": label}
        drawn = w.add("SCoFT_GenerateSet", f"Draw: {label}", **given, images_per_prompt=1, **DRAWING)
        sets[f"set_{number}"] = drawn["images"]
    w.group("3 · The page that people open", RED, SURVEY)
    w.column(460)
    w.add("SCoFT_BuildSurvey", "Make the survey", **sets, **ASKED)
    workflow_survey_figures.figures(w, 4)
