"""The workflows that train on the mini world: the whole method in one graph, and the ablation of its losses."""

from __future__ import annotations

from typing import Any

import workflow_notes as notes
import workflow_parts as parts
from workflow_correct import beside_a_lora
from workflow_form import Node, Socket, Workflow

NEGATIVES = {"per_image": 3, "steps": 12, "cfg": 4.0, "strength": 1.0, "seed": 1}
LOSSES = {
    "SCoFT_DiffusionLoss": {"weight": 0.7},
    "SCoFT_MemorizationLoss": {"weight": 0.3},
    "SCoFT_PerceptualLoss": {"weight": 1.0},
    "SCoFT_ContrastiveLoss": {"weight": 1.0, "margin": 0.05},
}
ROLLOUT = {"every": 5, "steps": 10, "guidance": 4.5}
LORA = {"rank": 16, "alpha": 16.0}
OPTIMIZER = {"learning_rate": 1e-3, "schedule": "cosine", "warmup": 10}
TRAIN = {"steps": 300, "batch_size": 8, "accumulation": 1, "resolution": 64, "seed": 1024}
TRAIN |= {"checkpoint_every": 100, "flip": False}
CAREFUL_LOSSES = {
    "SCoFT_ContrastiveLoss": {"weight": 10.0, "margin": 0.05},
    "SCoFT_PriorLoss": {
        "weight": 36.0,
        "prompts": "\n".join(["{generic}", *(f"{{generic}} in {place}" for place in ("borea", "aria", "caldia"))]),
    },
}
CAREFUL_TRAIN, CAREFUL_OPTIMIZER = {"steps": 900}, {"learning_rate": 3e-3}
CAREFUL_LORA = {"targets": "cross-attention K + V"}
CAREFUL_GENERATE = {"cfg": 1.5}
"""The CAREFUL settings are those of "preset, guidance 1.5" in benchmarks/mini_world/page.md. They were chosen on images
and seeds other than those of the reported metrics, as were LORA_STRENGTH and STRENGTH of workflow_correct.py."""
PREVIEW = {"validate_every": 50, "preview_every": 50, "preview_prompt": "a teacher in nuvia"}
SEEDS_PER_PROMPT, SEEDS_PER_PROMPT_OF_ABLATION = 9, 4
"""12 held-out kinds x 9 seeds are 108 images per place and model; the ablation's five models make do with 48."""
CARD = {
    "title": "Nuvia as its people show it (mini world)",
    "trigger_phrase": "in nuvia",
    "authors": "comfy_scoft contributors",
    "licence": "CC-BY-4.0",
    "consent": "None needed: drawn figures of an invented place; no person is shown.",
}


def train_and_measure(w: Workflow, run: str, *, careful: bool) -> None:
    """The paper's losses on the mini model, at the mini world's settings and without a filter of negatives.

    careful: with Prior Preservation, which keeps other places as they are, and with RS-Corrector. run: also the
    LoRA's name.
    """
    base, dataset = base_and_negatives(w)
    losses = LOSSES | CAREFUL_LOSSES if careful else LOSSES
    note = notes.LOSSES.replace("Three", "Four") + notes.KEEP if careful else notes.LOSSES
    w.group("What training looks at", parts.VIOLET, note)
    features = parts.load_features(w)
    w.column()
    chain = loss(w, losses, "Diffusion", None, "Learn the pictures")
    chain = loss(w, losses, "Memorization", chain, "… but do not copy them")
    chain = loss(w, losses, "Contrastive", chain, "Near them, far from the stereotype", features=features)
    if careful:
        chain = loss(w, losses, "Prior", chain, "Leave other places as they are")
    w.group("Train and save", parts.GREEN, notes.TRAIN)
    lora, optimizer = (LORA | CAREFUL_LORA, OPTIMIZER | CAREFUL_OPTIMIZER) if careful else (LORA, OPTIMIZER)
    options = parts.train_options(w, lora, optimizer, ROLLOUT)
    held_out = parts.load_dataset(w, "Pictures kept back", "test")
    w.column(360)
    given = {**parts.models(base), **options, **PREVIEW, **(TRAIN | CAREFUL_TRAIN if careful else TRAIN)}
    given |= {"dataset": dataset, "losses": chain, "validation": held_out, "run_name": run}
    trained = w.add("SCoFT_TrainLora", "Train the LoRA", **given)
    w.column(340)
    w.add("SCoFT_SaveLora", "Save it with its card", lora=trained["lora"], **CARD, filename_prefix=run)
    sets = {"before": ("Before training", base["MODEL"]), "after": ("After training", trained["model"])}
    if careful:
        corrected = beside_a_lora(w, base, dataset, trained["lora"], run)
        sets["corrected too"] = ("With the correction beside it", corrected)
    w.group("Draw people it was never shown", parts.ORANGE, notes.DRAW + (notes.LOW_CFG if careful else ""), 340)
    given = {"images_per_prompt": SEEDS_PER_PROMPT, "seed": 1} | parts.GENERATE | (CAREFUL_GENERATE if careful else {})
    images = parts.generate_sets(w, base, ("What all models draw", parts.unseen_people()), sets, **given)
    counted = dict(zip(("Count what they show", "The same, corrected too"), images[1:], strict=False))
    titles, files = ("Before and after", "Held-out kinds of people"), ("before-after", "figures")
    parts.compare(w, notes.COMPARE, images, counted, images[0], titles, files)


def ablation(w: Workflow) -> None:
    """LDM, +M, +MP, +MPC from one graph: the chain of losses is taken after each link."""
    base, dataset = base_and_negatives(w)
    w.group("One chain of losses, taken at four places", parts.VIOLET, notes.CHAIN)
    features = parts.load_features(w)
    w.column()
    plain = loss(w, LOSSES, "Diffusion", None, "LDM: learn the pictures")
    guarded = loss(w, LOSSES, "Memorization", plain, "+ M: do not copy them")
    w.column()
    perceptual = loss(w, LOSSES, "Perceptual", guarded, "+ P: look like them", features=features)
    contrastive = loss(w, LOSSES, "Contrastive", guarded, "+ PC: and unlike the stereotype", features=features)
    w.group("Four trainings that differ in nothing else", parts.GREEN, notes.FOUR)
    given: dict[str, Any] = {**parts.models(base), "dataset": dataset, **TRAIN}
    given |= parts.train_options(w, LORA, OPTIMIZER, ROLLOUT)
    models = {"base": base["MODEL"]}
    for chains in ({"LDM": plain, "+M": guarded}, {"+MP": perceptual, "+MPC": contrastive}):
        w.column(360)
        for label, chain in chains.items():
            run = "ablation-" + label.strip("+").lower()
            node = w.add("SCoFT_TrainLora", f"Train {label}", **given, losses=chain, run_name=run)
            models[label] = node["model"]
    w.group("The same prompts and seeds for all", parts.ORANGE, notes.SAME, 340)
    given = {"images_per_prompt": SEEDS_PER_PROMPT_OF_ABLATION, "seed": parts.FIRST_OF_FEW, **parts.GENERATE}
    columns = [{k: (f"Draw: {k}", models[k]) for k in labels} for labels in (("base", "LDM", "+M"), ("+MP", "+MPC"))]
    images = parts.generate_sets(w, base, ("What all models draw", parts.unseen_people()), *columns, **given)
    counted = {f"Count: {label}": image for label, image in zip(models, images, strict=True)}
    titles = ("The steps side by side", "Ablation: held-out kinds of people")
    parts.compare(w, notes.STEPS, images, counted, None, titles, ("ablation", "ablation-figures"))


def base_and_negatives(w: Workflow) -> tuple[Node, Socket]:
    """Two groups: the base model, and the community's dataset with the negatives that the base model generates."""
    w.group("Base model and community set", parts.BLUE, notes.BASE, 420)
    base, dataset = parts.load_checkpoint(w), parts.load_dataset(w)
    w.group("What the base model imagines (negatives)", parts.RED, notes.NEGATIVES)
    control = parts.load_control_net(w)
    deep = w.add("SCoFT_EstimateDepth", "Near and far", dataset=dataset, estimator="relief (mini)")["dataset"]
    w.column(320)
    given = {**parts.models(base), "control_net": control, "dataset": deep, **NEGATIVES}
    dataset = w.add("SCoFT_MakeNegatives", "Draw the stereotype", **given)["dataset"]
    w.column(460)
    w.add("SCoFT_PreviewDataset", "Pictures, depth and negatives", dataset=dataset)
    return base, dataset


def loss(
    w: Workflow, settings: dict[str, dict[str, Any]], name: str, chain: Socket | None, title: str, **given: Socket
) -> Socket:
    """The chain of losses with one more at its end."""
    given |= {"losses": chain} if chain else {}
    return w.add(f"SCoFT_{name}Loss", title, **settings[f"SCoFT_{name}Loss"], **given)["losses"]
