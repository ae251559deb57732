"""The RS-Corrector workflow: a preference learned from two image sets, and four models compared."""

from __future__ import annotations

import workflow_parts as parts
from workflow_form import Node, Socket, Workflow

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

LORA_STRENGTH, STRENGTH = 0.9, 0.5
"""Strength of a LoRA that is corrected too, and of the correction."""


def rs_corrector(w: Workflow) -> None:
    """Base, corrected, LoRA, LoRA and corrected."""
    w.group("The model and the community's pictures", parts.BLUE, MODELS, 420)
    base, dataset = parts.load_checkpoint(w), parts.load_dataset(w)
    w.column(420)
    lora = parts.load_lora(w, base, "A LoRA", strength=LORA_STRENGTH)
    real = w.add("SCoFT_DatasetToLists", "As lists", dataset=dataset)
    w.group("The model's own pictures", parts.RED, OWN, 340)
    own = own_images(w, base, real)
    w.group("Learn a preference", parts.VIOLET, LEARN, 360)
    learned = learn(w, base, real, own)
    w.column(460)
    w.add("SaveImage", "How well it knows", images=learned["chart"], filename_prefix="scoft/preference")
    save(w, learned, "nuvia-mini")
    w.group("Correct", parts.GREEN, CORRECT)
    corrected = correct(w, "Correct the base", base["MODEL"], learned, 3.0)
    both = correct(w, "Correct the LoRA", lora, learned, STRENGTH)
    w.group("Draw people it was never shown", parts.ORANGE, DRAW, 340)
    models = {"base": base["MODEL"], "corrected": corrected, "LoRA": lora, "LoRA + corrected": both}
    column = {label: (f"Draw: {label}", model) for label, model in models.items()}
    given = {"images_per_prompt": 4, "seed": parts.FIRST_OF_FEW, **parts.GENERATE}
    images = parts.generate_sets(w, base, ("What all four draw", parts.unseen_people()), column, **given)
    counted = dict(zip(("Count: Corrected", "Count: LoRA", "Count: LoRA + corrected"), images[1:], strict=True))
    titles, files = ("Four models", "Held-out kinds of people"), ("corrected", "corrected-figures")
    parts.compare(w, COMPARE, images, counted, images[0], titles, files)


def beside_a_lora(w: Workflow, base: Node, dataset: Socket, lora: Socket, name: str) -> Socket:
    """A group that corrects a LoRA that was just trained: the model with a little less of it, and RS-Corrector."""
    w.group("Correct while drawing", parts.OLIVE, BOTH)
    weaker = w.add("LoraModelLoader", "Less of the LoRA", model=base["MODEL"], lora=lora, strength_model=LORA_STRENGTH)
    real = w.add("SCoFT_DatasetToLists", "As lists", dataset=dataset)
    w.column(340)
    own = own_images(w, base, real)
    w.column(360)
    learned = learn(w, base, real, own)
    w.column(340)
    save(w, learned, name)
    return correct(w, "Correct beside it", weaker["model"], learned, STRENGTH)


def own_images(w: Workflow, base: Node, real: Node) -> Socket:
    """Three images of the base model for each of the community's captions."""
    given = {"prompts": real["captions"], "label": "own", "images_per_prompt": 3, "seed": 1000, **parts.GENERATE}
    return parts.generate(w, base, "Draw the community's captions", **given)["batch"]


def learn(w: Workflow, base: Node, real: Node, own: Socket) -> Node:
    sets = {"preferred": real["images"], "stereotyped": own, "resolution": 64}
    prompt_gate = {"place": "nuvia", "captions": real["captions"], "other_places": "borea"}
    return w.add("SCoFT_LearnPreference", "Theirs rather than its own", **parts.models(base), **sets, **prompt_gate)


def save(w: Workflow, learned: Node, name: str) -> None:
    given = {"filename_prefix": name, "title": "Nuvia as its people show it", "licence": "CC-BY-4.0"}
    w.add("SCoFT_SavePreference", "Keep it", preference=learned["preference"], **given)


def correct(w: Workflow, title: str, model: Socket, learned: Node, strength: float) -> Socket:
    given = {"model": model, "preference": learned["preference"], "strength": strength}
    return w.add("SCoFT_RSCorrector", title, **given)["model"]
