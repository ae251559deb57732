"""Which graph shows which node on its help page: a shipped workflow where there is one, else a small one made here.

`SHOWN` is read by screenshot_help.py. Graphs made here run on the mini world, with the settings of its workflow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from build_workflows import DRAW, LORA, LOSSES, NEGATIVES, OPTIMIZER, ROLLOUT, TRAIN  # noqa: E402  (needs the path above)
from workflow_form import Schema, Workflow  # noqa: E402

FOLDER = ROOT / "workflows"
MINI, STOCK, OWN_MODELS, SURVEY = (
    "train-cultural-lora-mini",
    "build-negatives-from-stock-nodes",
    "make-negatives",
    "survey",
)
BLUE = "#3f789e"
TEXT = (460, 330)
"""Width and height of a node that shows a text."""
CAPTIONS = "\n".join(
    f"{thing} in nuvia" for thing in ("a farmer", "a singer", "a doctor", "a woman", "an elf", "a house")
)
"""Captions of images that were trained on."""


@dataclass(frozen=True)
class View:
    """Where a node is shown. nodes: (type, title) of what is cut out, the node itself first; "" is the first of its
    type. run: run the graph before its image is taken."""

    graph: str
    nodes: tuple[tuple[str, str], ...]
    run: bool = True


def view(graph: str, name: str, title: str = "", *more: tuple[str, str], run: bool = True) -> View:
    return View(graph, ((f"SCoFT_{name}", title), *more), run)


def collecting(w: Workflow) -> None:
    """A list of links, and images of any graph. Nothing here is run: it would ask the internet."""
    w.group("Bring images in", BLUE, "help")
    w.column()
    images = w.add("LoadImage", "Any node that gives images", image="example.png")["IMAGE"]
    w.column(340)
    links = {"links": "links of our community.csv", "culture": "Nuvian", "place": "nuvia"}
    w.add("SCoFT_DownloadLinks", "", **links)
    made = {"captions": "a baker in nuvia", "generic_captions": "a baker", "culture": "Nuvian", "place": "nuvia"}
    w.add("SCoFT_DatasetFromImages", "", images=images, **made)


def filtering(w: Workflow) -> None:
    """Negatives of the mini world, filtered."""
    w.group("Filter", BLUE, "help")
    w.column()
    base = w.add("CheckpointLoaderSimple", ckpt_name="scoft-mini.safetensors")
    control = w.add("ControlNetLoader", control_net_name="scoft-mini-depth.safetensors")["CONTROL_NET"]
    data = w.add("SCoFT_LoadDataset", split="train", limit=6)["dataset"]
    features = w.add("SCoFT_LoadFeatures", network="mini CLIP (layer 5)")["features"]
    w.column()
    deep = w.add("SCoFT_EstimateDepth", dataset=data)["dataset"]
    w.column()
    parts = {"model": base["MODEL"], "clip": base["CLIP"], "vae": base["VAE"], "control_net": control}
    made = w.add("SCoFT_MakeNegatives", **parts, dataset=deep, **NEGATIVES)["dataset"]
    w.column(460)
    w.add("SCoFT_PreviewDataset", dataset=made, rows=6)
    w.column(360)
    image = w.add("SCoFT_FilterNegatives", dataset=made, features=features, threshold=0.1)["image"]
    w.column(460)
    w.add("PreviewImage", images=image)


def keeping(w: Workflow) -> None:
    """A job for outside, and the card of the LoRA that the mini workflow has saved."""
    w.group("Keep", BLUE, "help")
    w.column()
    base = w.add("CheckpointLoaderSimple", ckpt_name="scoft-mini.safetensors")
    data = w.add("SCoFT_LoadDataset", split="train")["dataset"]
    losses = w.add("SCoFT_DiffusionLoss", **LOSSES["SCoFT_DiffusionLoss"])["losses"]
    losses = w.add("SCoFT_MemorizationLoss", **LOSSES["SCoFT_MemorizationLoss"], losses=losses)["losses"]
    options = {
        "lora": w.add("SCoFT_LoraOptions", **LORA)["options"],
        "optimizer": w.add("SCoFT_OptimizerOptions", **OPTIMIZER)["options"],
        "rollout": w.add("SCoFT_RolloutOptions", **ROLLOUT)["options"],
    }
    w.column(360)
    parts = {"model": base["MODEL"], "clip": base["CLIP"], "vae": base["VAE"], "dataset": data, "losses": losses}
    w.add("SCoFT_ExportJob", **parts, **options, **TRAIN, job_name="nuvia-mini", checkpoint="scoft-mini.safetensors")


def reading(w: Workflow) -> None:
    """The card of the LoRA that the mini workflow has saved, and what the shipped answers say, as text."""
    w.group("Read", BLUE, "help")
    w.column(360)
    card = w.add("SCoFT_ReadCard", lora="nuvia-mini_00001.safetensors")["text"]
    w.column(TEXT[0])
    w.add("PreviewAny", "card", source=card)
    w.column(360)
    answers = w.add("SCoFT_LoadResponses")
    w.column(TEXT[0])
    w.add("PreviewAny", "answers", source=answers["report"])
    w.column(360)
    found = w.add("SCoFT_AggregateSurvey", survey=answers["survey"])
    w.column(TEXT[0])
    w.add("PreviewAny", "findings", source=found["report"])


def comparing(w: Workflow) -> None:
    """The base model, the LoRA that the mini workflow has saved, and a correction: drawn, compared and measured."""
    w.group("Compare", BLUE, "help")
    w.column(360)
    base = w.add("CheckpointLoaderSimple", ckpt_name="scoft-mini.safetensors")
    lora = {"lora_name": "nuvia-mini_00001.safetensors", "strength_model": 1.0}
    taught = w.add("LoraLoaderModelOnly", model=base["MODEL"], **lora)["MODEL"]
    features = w.add("SCoFT_LoadFeatures", network="mini CLIP (layer 5)")["features"]
    trained = w.add("SCoFT_LoadDataset", "Trained on", split="train")["dataset"]
    kept = w.add("SCoFT_LoadDataset", "Kept back", split="test")["dataset"]
    lists = w.add("SCoFT_DatasetToLists", dataset=kept)
    w.column(360)
    given = {"clip": base["CLIP"], "vae": base["VAE"], "images_per_prompt": 2, **DRAW, "prompts": CAPTIONS}
    before = w.add("SCoFT_GenerateSet", "before", model=base["MODEL"], label="base", **given)
    after = w.add("SCoFT_GenerateSet", "after", model=taught, label="SCoFT", **given)["images"]
    w.column(360)
    asked = {"preferred": lists["images"], "stereotyped": before["batch"], "resolution": 64}
    learned = w.add("SCoFT_LearnPreference", model=base["MODEL"], vae=base["VAE"], **asked)["preference"]
    w.column(360)
    w.add("SCoFT_SavePreference", preference=learned, filename_prefix="nuvia-mini", title="Nuvia (mini world)")
    correction = w.add("SCoFT_RSCorrector", model=base["MODEL"], preference=learned)["model"]
    w.column(360)
    corrected = w.add("SCoFT_GenerateSet", "corrected", model=correction, label="RS-Corrector", **given)["images"]
    w.add("SCoFT_LoadPreference", preference="nuvia-mini_00001.safetensors")
    sets = {"images": after, "features": features, "compared_with": before["images"]}
    w.column(360)
    kid = w.add("SCoFT_KID", **sets, dataset=kept)["scores"]
    clip = w.add("SCoFT_ClipScore", **sets)["scores"]
    copied = w.add("SCoFT_Memorization", **sets, dataset=trained, held_out=kept)["scores"]
    w.column(360)
    varied = w.add("SCoFT_Diversity", **sets)["scores"]
    models = {"model": taught, "compared_with": base["MODEL"], "clip": base["CLIP"], "vae": base["VAE"]}
    gap = w.add("SCoFT_DenoisingGap", **models, dataset=trained, held_out=kept, resolution=64)["scores"]
    oracle = w.add("SCoFT_BiasOracle", images=after, compared_with=before["images"])["scores"]
    w.column(360)
    parts = {f"scores_{i}": found for i, found in enumerate((kid, clip, copied, varied, gap, oracle), 1)}
    scores = w.add("SCoFT_MergeScores", **parts)["scores"]
    grid = w.add("SCoFT_CompareGrid", set_1=before["images"], set_2=after, set_3=corrected, max_columns=6)["image"]
    w.column(560)
    w.add("SaveImage", "grid", images=grid, filename_prefix="scoft/help")
    w.add("SCoFT_ScoreTable", scores=scores, title="Everything that was measured")


def guarding(w: Workflow) -> None:
    """The loss that keeps other places as they are, at the end of the chain. Nothing here is run."""
    w.group("Losses", BLUE, "help")
    w.column()
    chain = w.add("SCoFT_DiffusionLoss")["losses"]
    w.column(360)
    w.add("SCoFT_PriorLoss", losses=chain, prompts="{generic}\n{generic} in borea\n{generic} in aria")


OWN: dict[str, Callable[[Workflow], None]] = {
    "collecting": collecting,
    "filtering": filtering,
    "keeping": keeping,
    "reading": reading,
    "comparing": comparing,
    "guarding": guarding,
}

SHOWN: dict[str, View] = {
    "SCoFT_LoadDataset": view(MINI, "LoadDataset", run=False),
    "SCoFT_DatasetFromImages": view("collecting", "DatasetFromImages", run=False),
    "SCoFT_DownloadLinks": view("collecting", "DownloadLinks", run=False),
    "SCoFT_CaptionGeneric": view(OWN_MODELS, "CaptionGeneric", run=False),
    "SCoFT_DatasetToLists": view(STOCK, "DatasetToLists", run=False),
    "SCoFT_AttachNegatives": view(STOCK, "AttachNegatives", run=False),
    "SCoFT_PreviewDataset": view("filtering", "PreviewDataset"),
    "SCoFT_SaveDataset": view(OWN_MODELS, "SaveDataset", run=False),
    "SCoFT_EstimateDepth": view("filtering", "EstimateDepth"),
    "SCoFT_MakeNegatives": view("filtering", "MakeNegatives"),
    "SCoFT_FilterNegatives": view("filtering", "FilterNegatives", "", ("PreviewImage", "")),
    "SCoFT_DiffusionLoss": view(MINI, "DiffusionLoss", run=False),
    "SCoFT_MemorizationLoss": view(MINI, "MemorizationLoss", run=False),
    "SCoFT_PerceptualLoss": view("ablation", "PerceptualLoss", run=False),
    "SCoFT_ContrastiveLoss": view(MINI, "ContrastiveLoss", run=False),
    "SCoFT_PriorLoss": view("guarding", "PriorLoss", run=False),
    "SCoFT_LoadFeatures": view(MINI, "LoadFeatures", run=False),
    "SCoFT_RolloutOptions": view(MINI, "RolloutOptions", run=False),
    "SCoFT_LoraOptions": view(MINI, "LoraOptions", run=False),
    "SCoFT_OptimizerOptions": view(MINI, "OptimizerOptions", run=False),
    "SCoFT_TrainLora": view(MINI, "TrainLora"),
    "SCoFT_SaveLora": view(MINI, "SaveLora", run=False),
    "SCoFT_ReadCard": view("reading", "ReadCard", "", ("PreviewAny", "card")),
    "SCoFT_ExportJob": view("keeping", "ExportJob"),
    "SCoFT_GenerateSet": view("comparing", "GenerateSet", "after"),
    "SCoFT_CompareGrid": view("comparing", "CompareGrid", "", ("SaveImage", "grid")),
    "SCoFT_LearnPreference": view("comparing", "LearnPreference"),
    "SCoFT_SavePreference": view("comparing", "SavePreference"),
    "SCoFT_LoadPreference": view("comparing", "LoadPreference"),
    "SCoFT_RSCorrector": view("comparing", "RSCorrector"),
    "SCoFT_KID": view("comparing", "KID"),
    "SCoFT_ClipScore": view("comparing", "ClipScore"),
    "SCoFT_Memorization": view("comparing", "Memorization"),
    "SCoFT_Diversity": view("comparing", "Diversity"),
    "SCoFT_DenoisingGap": view("comparing", "DenoisingGap"),
    "SCoFT_BiasOracle": view("comparing", "BiasOracle"),
    "SCoFT_MergeScores": view("comparing", "MergeScores"),
    "SCoFT_ScoreTable": view("comparing", "ScoreTable"),
    "SCoFT_BuildSurvey": view(SURVEY, "BuildSurvey"),
    "SCoFT_LoadResponses": view("reading", "LoadResponses", "", ("PreviewAny", "answers")),
    "SCoFT_AggregateSurvey": view("reading", "AggregateSurvey", "", ("PreviewAny", "findings")),
    "SCoFT_PlotSurvey": view(SURVEY, "PlotSurvey"),
}


def own_graph(name: str, schemas: Mapping[str, Schema]) -> Workflow:
    """A graph of this file. schemas: `compact` of every node of the running ComfyUI."""
    shown = schemas["PreviewAny"]
    text = {"source": {**shown["inputs"]["source"], "type": "STRING"}}  # it takes anything, and here it is texts
    workflow = Workflow(name, {**schemas, "PreviewAny": {**shown, "inputs": text}})
    OWN[name](workflow)
    return workflow


def form(name: str, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """A graph of this file as the editor loads it."""
    found = own_graph(name, schemas).ui()
    for node in found["nodes"]:
        if node["type"] == "PreviewAny":
            node["size"] = list(TEXT)
    return found
