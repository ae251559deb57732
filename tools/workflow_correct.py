"""The RS-Corrector workflow: a preference learned from two sets, and four models side by side, none of them trained."""

from __future__ import annotations

from workflow_form import Node, Socket, Workflow

from comfy_scoft.mini_world.splits import HELD_OUT_KINDS

BLUE, RED, VIOLET, GREEN, ORANGE, TEAL = "#3f789e", "#8a3b3b", "#6b4a8e", "#4a7a4a", "#a1663a", "#2f7d7d"
OLIVE = "#7d7a2f"

MODELS = """## Correct a model without training it
The base model, and the LoRA that `train-cultural-lora-mini` saves as *nuvia-mini*: run that first. The community's \
pictures say how the place should look. **With a model and pictures of your own** change the size and CFG of all nodes \
that draw (Stable Diffusion 1.5: 512 and 7.5), the *resolution*, *place* and *other_places* of the learning node, and \
the prompts. Mute the three nodes that count, *The figures* and *The table* (Ctrl+M): they read the mini world \
alone."""

OWN = """## How the model sees the same things
The base model draws the community's own captions. So both sets show the same scenes, and what differs between them is \
the stereotype. This runs once for each caption; look at the pictures."""

LEARN = """## Learn the difference
A small network learns to tell the two sets apart in the latent space, at every level of noise: seconds, no GPU \
needed. **Look at the chart**: is it right on pictures kept back? Does colour alone do as well? With *clip*, *place* \
and *captions* it also learns which prompts ask for the place, so that others are left alone. Name the other places \
that you draw under *other_places*."""

CORRECT = """## Move what is being drawn
Nothing in the model changes: while any sampler runs, each step is moved a little towards the preference, never \
further than *strength* times what the prompt itself moves it. Too much harms the picture. With a LoRA that corrects \
already take less of both: here the LoRA at 0.9, and strength 0.5."""

BOTH = """## A little less of the LoRA, and a correction beside it
A LoRA at full strength overshoots: some faces come out darker than anyone's. At 0.9 it harms less, and corrects less. \
**RS-Corrector** makes up for that: while a picture is drawn it moves each step a little towards the community's \
pictures, where the prompt asks for the place. Both strengths were chosen on other people and seeds than the figures \
they are reported with."""

DRAW = """## Four models, the same prompts and seeds
People whom no community picture shows: in nuvia, in *borea*, and without a place. Only nuvia should change."""

COMPARE = """## What it can do, and what it cannot
The corrector chooses among what the model knows: skin tones it draws elsewhere come back. The gold and teal of nuvia \
the base model has *never seen*; only the LoRA can paint with them. In borea and without a place the figures should \
stay as they were."""

CHECKPOINT, LORA = "scoft-mini.safetensors", "nuvia-mini_00001.safetensors"
LORA_STRENGTH, STRENGTH = 0.9, 0.5
"""Of a LoRA that is corrected, and of the correction beside it."""
DRAWING = {"width": 64, "height": 64, "steps": 20, "cfg": 3.0, "sampler_name": "ddim", "scheduler": "normal"}
OWN_EACH, EACH, COLUMNS = 3, 4, 12
FEW, FIRST_OF_FEW = 4, 5
"""In the mini world noise decides a person's tone as much as the prompt does: of the base's pictures of borea those of
seeds 1 to 4 are dark in 83 %, those of 5 to 8 in 48 %. So few seeds are those from 5 on: leakage needs room to show."""
PLACES = ("nuvia", "borea", "")


def prompts() -> str:
    """Every kind of people that no community picture shows, in each of PLACES."""
    things = [f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}" for kind in HELD_OUT_KINDS]
    return "\n".join(f"{thing} in {place}" if place else thing for place in PLACES for thing in things)


def rs_corrector(w: Workflow) -> None:
    """Base, corrected, LoRA, LoRA and corrected."""
    w.group("1 · The model and the community's pictures", BLUE, MODELS)
    w.column(420)
    base = w.add("CheckpointLoaderSimple", "The base model", ckpt_name=CHECKPOINT)
    dataset = w.add("SCoFT_LoadDataset", "The community's pictures", split="train")["dataset"]
    w.column(420)
    lora = w.add("LoraLoaderModelOnly", "A LoRA", model=base["MODEL"], lora_name=LORA, strength_model=LORA_STRENGTH)[
        "MODEL"
    ]
    real = w.add("SCoFT_DatasetToLists", "As lists", dataset=dataset)
    w.group("2 · The model's own pictures", RED, OWN)
    w.column(340)
    own = _draw(w, base, base["MODEL"], real["captions"], "own", "Draw the community's captions", OWN_EACH, 1000)[
        "batch"
    ]
    w.group("3 · Learn a preference", VIOLET, LEARN)
    w.column(360)
    learned = _learn(w, base, real, own)
    w.column(460)
    w.add("SaveImage", "How well it knows", images=learned["chart"], filename_prefix="scoft/preference")
    _keep(w, learned, "nuvia-mini")
    w.group("4 · Correct", GREEN, CORRECT)
    w.column()
    corrected = [
        w.add("SCoFT_RSCorrector", title, model=model, preference=learned["preference"], strength=strength)["model"]
        for title, model, strength in (("Correct the base", base["MODEL"], 3.0), ("Correct the LoRA", lora, STRENGTH))
    ]
    w.group("5 · Draw people it was never shown", ORANGE, DRAW)
    w.column(340)
    asked = w.add("PrimitiveStringMultiline", "What all four draw", value=prompts())["STRING"]
    w.column(320)
    labels = {"base": base["MODEL"], "corrected": corrected[0], "LoRA": lora, "LoRA + corrected": corrected[1]}
    drawn = [
        _draw(w, base, model, asked, name, f"Draw: {name}", EACH, FIRST_OF_FEW)["images"]
        for name, model in labels.items()
    ]
    w.group("6 · Compare and measure", TEAL, COMPARE)
    w.column()
    rows = {f"set_{i}": images for i, images in enumerate(drawn, 1)}
    grid = w.add("SCoFT_CompareGrid", "Side by side", **rows, max_columns=COLUMNS)["image"]
    figures: dict[str, Socket] = {}
    for images, title in zip(drawn[1:], ("Corrected", "LoRA", "LoRA + corrected"), strict=True):
        counted = w.add("SCoFT_BiasOracle", f"Count: {title}", images=images, compared_with=drawn[0], **figures)
        figures = {"scores": counted["scores"]}
    w.column(460)
    w.add("SaveImage", "Four models", images=grid, filename_prefix="scoft/corrected")
    table = w.add("SCoFT_ScoreTable", "The figures", title="Held-out kinds of people", **figures)["image"]
    w.column(460)
    w.add("SaveImage", "The table", images=table, filename_prefix="scoft/corrected-figures")


def beside_a_lora(w: Workflow, base: Node, dataset: Socket, lora: Socket, name: str) -> Socket:
    """A group of its own for a LoRA that was just trained: the model with a little less of it, and corrected."""
    w.group("5 · Correct while drawing", OLIVE, BOTH)
    w.column()
    weaker = w.add("LoraModelLoader", "Less of the LoRA", model=base["MODEL"], lora=lora, strength_model=LORA_STRENGTH)
    real = w.add("SCoFT_DatasetToLists", "As lists", dataset=dataset)
    w.column(340)
    own = _draw(w, base, base["MODEL"], real["captions"], "own", "Draw the community's captions", OWN_EACH, 1000)
    w.column(360)
    learned = _learn(w, base, real, own["batch"])
    w.column(340)
    _keep(w, learned, name)
    parts = {"model": weaker["model"], "preference": learned["preference"], "strength": STRENGTH}
    return w.add("SCoFT_RSCorrector", "Correct beside it", **parts)["model"]


def _learn(w: Workflow, base: Node, real: Node, own: Socket) -> Node:
    parts = {"model": base["MODEL"], "vae": base["VAE"], "clip": base["CLIP"], "resolution": 64}
    asking = {"place": "nuvia", "captions": real["captions"], "other_places": "borea"}
    sets = {"preferred": real["images"], "stereotyped": own}
    return w.add("SCoFT_LearnPreference", "Theirs rather than its own", **parts, **sets, **asking)


def _keep(w: Workflow, learned: Node, name: str) -> None:
    kept = {"filename_prefix": name, "title": "Nuvia as its people show it", "licence": "CC-BY-4.0"}
    w.add("SCoFT_SavePreference", "Keep it", preference=learned["preference"], **kept)


def _draw(w: Workflow, base: Node, model: Socket, asked: Socket, label: str, title: str, each: int, seed: int) -> Node:
    given = {"model": model, "clip": base["CLIP"], "vae": base["VAE"], "prompts": asked, "label": label}
    return w.add("SCoFT_GenerateSet", title, **given, images_per_prompt=each, seed=seed, **DRAWING)
