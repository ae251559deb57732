"""Writes the shipped workflows: `workflows/<name>.json` for the editor and `workflows/api/<name>.json` for the queue.

    python tools/build_workflows.py                  write both forms of all workflows
    python tools/build_workflows.py --schemas URL    first save the nodes' schemas from the ComfyUI running there

Needs nothing but Python and the saved schemas; the same source gives the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for place in (ROOT, ROOT / "tools"):
    if str(place) not in sys.path:
        sys.path.append(str(place))

import workflow_correct  # noqa: E402
import workflow_evaluate  # noqa: E402
import workflow_notes as notes  # noqa: E402
import workflow_sd  # noqa: E402
import workflow_survey  # noqa: E402
from workflow_files import OFFERED  # noqa: E402
from workflow_form import Node, Schema, Socket, Workflow, compact, text  # noqa: E402

from comfy_scoft.experiments.comfy_client import ComfyClient  # noqa: E402  (needs the path above)
from comfy_scoft.mini_world.splits import HELD_OUT_KINDS  # noqa: E402

FOLDER = ROOT / "workflows"
SCHEMAS = ROOT / "tests" / "object_info_snapshot.json"
STOCK = ("CheckpointLoaderSimple", "ControlNetLoader", "PrimitiveStringMultiline", "SaveImage")
STOCK += ("CLIPTextEncode", "ControlNetApplyAdvanced", "EmptyLatentImage", "ImageScale", "KSampler")
STOCK += ("LoraLoaderModelOnly", "LoraModelLoader", "PreviewAny", "VAEDecode")

# --- the settings of the mini world, in one place ----------------------------------------------------------------

NEGATIVES = {"per_image": 3, "steps": 12, "cfg": 4.0, "strength": 1.0, "seed": 1}
LOSSES = {
    "SCoFT_DiffusionLoss": {"weight": 0.7},
    "SCoFT_MemorizationLoss": {"weight": 0.3},
    "SCoFT_PerceptualLoss": {"weight": 1.0},
    "SCoFT_ContrastiveLoss": {"weight": 1.0, "margin": 0.05},
}
CAREFUL = "train-cultural-lora-careful"
CAREFUL_LOSSES = {
    "SCoFT_ContrastiveLoss": {"weight": 10.0, "margin": 0.05},
    "SCoFT_PriorLoss": {
        "weight": 36.0,
        "prompts": "\n".join(["{generic}", *(f"{{generic}} in {place}" for place in ("borea", "aria", "caldia"))]),
    },
}
CAREFUL_TRAIN, CAREFUL_OPTIMIZER = {"steps": 900}, {"learning_rate": 3e-3}
CAREFUL_LORA = {"targets": "cross-attention K + V"}
"""What benchmarks/mini_world/page.md calls "careful, K + V alone": chosen on pictures and seeds that its figures do not
rest on, as are LORA_STRENGTH and STRENGTH of workflow_correct.py."""
ROLLOUT = {"every": 5, "steps": 10, "guidance": 4.5}
LORA = {"rank": 16, "alpha": 16.0}
OPTIMIZER = {"learning_rate": 1e-3, "schedule": "cosine", "warmup": 10}
TRAIN = {"steps": 300, "batch_size": 8, "accumulation": 1, "resolution": 64, "seed": 1024}
TRAIN |= {"checkpoint_every": 100, "flip": False}
WATCH = {"validate_every": 50, "preview_every": 50, "preview_prompt": "a teacher in nuvia"}
DRAW = {"width": 64, "height": 64, "steps": 20, "cfg": 3.0, "sampler_name": "ddim", "scheduler": "normal"}
SEEDS_A_PROMPT = {"train-cultural-lora-mini": 9, CAREFUL: 9, "ablation": 4}
"""12 held-out kinds x 9 seeds are 108 pictures a place and model; the ablation's five models make do with 48."""
COLUMNS = 12
CARD = {
    "filename_prefix": "nuvia-mini",
    "title": "Nuvia as its people show it (mini world)",
    "trigger_phrase": "in nuvia",
    "authors": "comfy_scoft contributors",
    "licence": "CC-BY-4.0",
    "consent": "None needed: drawn figures of an invented place; no person is shown.",
}
PLACES = ("nuvia", "borea", "")
BLUE, RED, VIOLET, GREEN, ORANGE, TEAL = "#3f789e", "#8a3b3b", "#6b4a8e", "#4a7a4a", "#a1663a", "#2f7d7d"


def prompts() -> str:
    """Every kind of people that no community picture shows, in the place, in another place, and in no place."""
    things = [f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}" for kind in HELD_OUT_KINDS]
    return "\n".join(f"{thing} in {place}" if place else thing for place in PLACES for thing in things)


# --- workflow 1 --------------------------------------------------------------------------------------------------


def train_cultural_lora_mini(w: Workflow) -> None:
    """The whole paper on the mini model; the careful one holds other places as they are, and corrects while drawing."""
    careful = w.name == CAREFUL
    run = "nuvia-careful" if careful else "nuvia-mini"
    base, dataset = base_and_dataset(w)
    dataset = negatives(w, base, dataset)
    w.group(
        "3 · What training looks at",
        VIOLET,
        notes.LOSSES.replace("Three", "Four") + notes.KEEP if careful else notes.LOSSES,
    )
    w.column()
    features = w.add("SCoFT_LoadFeatures", "Eye that compares pictures", network="mini CLIP (layer 5)")["features"]
    w.column()
    chain = loss(w, "Diffusion", None, "Learn the pictures")
    chain = loss(w, "Memorization", chain, "… but do not copy them")
    chain = loss(w, "Contrastive", chain, "Near them, far from the stereotype", features)
    if careful:
        chain = loss(w, "Prior", chain, "Leave other places as they are")
    w.group("4 · Train and save", GREEN, notes.TRAIN)
    w.column()
    options = train_options(w)
    kept = w.add("SCoFT_LoadDataset", "Pictures kept back", split="test")["dataset"]
    w.column(360)
    trained = train(w, base, dataset, chain, options, run, "Train the LoRA", validation=kept, **WATCH)
    w.column(340)
    w.add("SCoFT_SaveLora", "Save it with its card", lora=trained["lora"], **(CARD | {"filename_prefix": run}))
    both = workflow_correct.beside_a_lora(w, base, dataset, trained["lora"], run) if careful else None
    number = 6 if careful else 5
    w.group(f"{number} · Draw people it was never shown", ORANGE, notes.DRAW)
    w.column(340)
    asked = w.add("PrimitiveStringMultiline", "What all models draw", value=prompts())["STRING"]
    w.column(320)
    before = draw(w, base, base["MODEL"], asked, "before", "Before training")
    drawn = [draw(w, base, trained["model"], asked, "after", "After training")]
    if both:
        drawn.append(draw(w, base, both, asked, "corrected too", "With the correction beside it"))
    w.group(f"{number + 1} · Compare and measure", TEAL, notes.COMPARE)
    w.column()
    rows = {f"set_{i}": images for i, images in enumerate([before, *drawn], 1)}
    grid = w.add("SCoFT_CompareGrid", "Side by side", **rows, max_columns=COLUMNS)["image"]
    figures: dict[str, Socket] = {}
    for images, title in zip(drawn, ("Count what they show", "The same, corrected too"), strict=False):
        counted = w.add("SCoFT_BiasOracle", title, images=images, compared_with=before, **figures)
        figures = {"scores": counted["scores"]}
    w.column(460)
    w.add("SaveImage", "Before and after", images=grid, filename_prefix="scoft/before-after")
    table = w.add("SCoFT_ScoreTable", "The figures", **figures, title="Held-out kinds of people")["image"]
    w.column(460)
    w.add("SaveImage", "The table", images=table, filename_prefix="scoft/figures")


# --- workflow 4 --------------------------------------------------------------------------------------------------


def ablation(w: Workflow) -> None:
    """LDM, +M, +MP, +MPC from one graph: the chain of losses is taken after each link."""
    base, dataset = base_and_dataset(w)
    dataset = negatives(w, base, dataset)
    w.group("3 · One chain of losses, taken at four places", VIOLET, notes.CHAIN)
    w.column()
    features = w.add("SCoFT_LoadFeatures", "Eye that compares pictures", network="mini CLIP (layer 5)")["features"]
    w.column()
    plain = loss(w, "Diffusion", None, "LDM: learn the pictures")
    remembered = loss(w, "Memorization", plain, "+ M: do not copy them")
    w.column()
    perceptual = loss(w, "Perceptual", remembered, "+ P: look like them", features)
    contrastive = loss(w, "Contrastive", remembered, "+ PC: and unlike the stereotype", features)
    chains = {"LDM": plain, "+M": remembered, "+MP": perceptual, "+MPC": contrastive}
    w.group("4 · Four trainings that differ in nothing else", GREEN, notes.FOUR)
    w.column()
    options = train_options(w)
    w.column(360)
    models = {
        label: train(w, base, dataset, chain, options, "ablation-" + label.strip("+").lower(), f"Train {label}")[
            "model"
        ]
        for label, chain in list(chains.items())[:2]
    }
    w.column(360)
    models |= {
        label: train(w, base, dataset, chain, options, "ablation-" + label.strip("+").lower(), f"Train {label}")[
            "model"
        ]
        for label, chain in list(chains.items())[2:]
    }
    w.group("5 · The same prompts and seeds for all", ORANGE, notes.SAME)
    w.column(340)
    asked = w.add("PrimitiveStringMultiline", "What all models draw", value=prompts())["STRING"]
    sets = []
    for part in ({"base": base["MODEL"], "LDM": models["LDM"], "+M": models["+M"]}, ("+MP", "+MPC")):
        w.column(320)
        sets += [draw(w, base, models.get(label, base["MODEL"]), asked, label, f"Draw: {label}") for label in part]
    w.group("6 · Compare and measure", TEAL, notes.STEPS)
    w.column()
    slots = {f"set_{i}": images for i, images in enumerate(sets, 1)}
    grid = w.add("SCoFT_CompareGrid", "Side by side", **slots, max_columns=COLUMNS)["image"]
    figures: dict[str, Socket] = {}
    for images in sets:
        count = w.add("SCoFT_BiasOracle", f"Count: {images.node.given['label']}", images=images, **figures)
        figures = {"scores": count["scores"]}
    w.column(460)
    w.add("SaveImage", "The steps side by side", images=grid, filename_prefix="scoft/ablation")
    table = w.add("SCoFT_ScoreTable", "The figures", title="Ablation: held-out kinds of people", **figures)["image"]
    w.column(460)
    w.add("SaveImage", "The table", images=table, filename_prefix="scoft/ablation-figures")


# --- parts that workflows share ----------------------------------------------------------------------------------


def base_and_dataset(w: Workflow) -> tuple[Node, Socket]:
    w.group("1 · Base model and community set", BLUE, notes.BASE)
    w.column(420)
    base = w.add("CheckpointLoaderSimple", "The base model", ckpt_name="scoft-mini.safetensors")
    dataset = w.add("SCoFT_LoadDataset", "The community's pictures", split="train")["dataset"]
    return base, dataset


def negatives(w: Workflow, base: Node, dataset: Socket) -> Socket:
    w.group("2 · What the base model imagines (negatives)", RED, notes.NEGATIVES)
    w.column()
    control = w.add("ControlNetLoader", "Holds the scene", control_net_name="scoft-mini-depth.safetensors")[
        "CONTROL_NET"
    ]
    deep = w.add("SCoFT_EstimateDepth", "Near and far", dataset=dataset, estimator="relief (mini)")["dataset"]
    w.column(320)
    parts = {"model": base["MODEL"], "clip": base["CLIP"], "vae": base["VAE"], "control_net": control}
    made = w.add("SCoFT_MakeNegatives", "Draw the stereotype", **parts, dataset=deep, **NEGATIVES)["dataset"]
    w.column(460)
    w.add("SCoFT_PreviewDataset", "Pictures, depth and negatives", dataset=made)
    return made


def loss(w: Workflow, name: str, chain: Socket | None, title: str, features: Socket | None = None) -> Socket:
    settings = LOSSES | CAREFUL_LOSSES if w.name == CAREFUL else LOSSES
    given: dict[str, Any] = dict(settings[f"SCoFT_{name}Loss"])
    given |= {"losses": chain} if chain else {}
    given |= {"features": features} if features else {}
    return w.add(f"SCoFT_{name}Loss", title, **given)["losses"]


def train_options(w: Workflow) -> dict[str, Socket]:
    careful = w.name == CAREFUL
    size, optimizer = (LORA | CAREFUL_LORA, OPTIMIZER | CAREFUL_OPTIMIZER) if careful else (LORA, OPTIMIZER)
    return {
        "lora": w.add("SCoFT_LoraOptions", "Size of the LoRA", **size)["options"],
        "optimizer": w.add("SCoFT_OptimizerOptions", "How fast it learns", **optimizer)["options"],
        "rollout": w.add("SCoFT_RolloutOptions", "Pictures drawn while training", **ROLLOUT)["options"],
    }


def train(
    w: Workflow,
    base: Node,
    dataset: Socket,
    chain: Socket,
    options: dict[str, Socket],
    run: str,
    title: str,
    **more: Any,
) -> Node:
    parts = {"model": base["MODEL"], "clip": base["CLIP"], "vae": base["VAE"], "dataset": dataset, "losses": chain}
    settings = TRAIN | CAREFUL_TRAIN if w.name == CAREFUL else TRAIN
    return w.add("SCoFT_TrainLora", title, **parts, **options, **settings, run_name=run, **more)


def draw(w: Workflow, base: Node, model: Socket, asked: Socket, label: str, title: str) -> Socket:
    given = {"clip": base["CLIP"], "vae": base["VAE"], "images_per_prompt": SEEDS_A_PROMPT[w.name]}
    given["seed"] = 1 if SEEDS_A_PROMPT[w.name] > workflow_correct.FEW else workflow_correct.FIRST_OF_FEW
    return w.add("SCoFT_GenerateSet", title, model=model, prompts=asked, label=label, **given, **DRAW)["images"]


WORKFLOWS: dict[str, Callable[[Workflow], None]] = {
    "train-cultural-lora-mini": train_cultural_lora_mini,
    CAREFUL: train_cultural_lora_mini,
    "ablation": ablation,
    **workflow_sd.WORKFLOWS,
    "evaluate": workflow_evaluate.evaluate,
    "survey": workflow_survey.survey,
    "rs-corrector": workflow_correct.rs_corrector,
}


def build(name: str, schemas: dict[str, Schema]) -> Workflow:
    workflow = Workflow(name, schemas, OFFERED)
    WORKFLOWS[name](workflow)
    return workflow


def save_schemas(url: str) -> None:
    info = ComfyClient(url).object_info()
    names = sorted(name for name in info if name.startswith("SCoFT_")) + sorted(STOCK)
    SCHEMAS.write_text(text({name: compact(info[name]) for name in names}), encoding="utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemas", metavar="URL", help="a running ComfyUI with this pack, to save the schemas from")
    options = parser.parse_args(arguments)
    if options.schemas:
        save_schemas(options.schemas)
    schemas = json.loads(SCHEMAS.read_text(encoding="utf-8"))
    (FOLDER / "api").mkdir(parents=True, exist_ok=True)
    for name in WORKFLOWS:
        workflow = build(name, schemas)
        (FOLDER / f"{name}.json").write_text(text(workflow.ui()), encoding="utf-8", newline="\n")
        (FOLDER / "api" / f"{name}.json").write_text(text(workflow.api()), encoding="utf-8", newline="\n")
        print(f"{name}: {len(workflow.nodes)} nodes, {len(workflow.links())} links")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
