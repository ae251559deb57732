"""Which graph shows which node on its help page: a shipped workflow if one has the node, else a small graph from here.

screenshots.py reads `SHOWN`. The graphs of this file run on the mini world, with the settings of its workflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import workflow_parts as parts
from workflow_form import Schema, Workflow
from workflow_mini import LORA, LOSSES, NEGATIVES, OPTIMIZER, ROLLOUT, TRAIN

TEXT = (460, 330)
"""Width and height of a node that shows text."""
CAPTIONS = "\n".join(
    f"{thing} in nuvia" for thing in ("a farmer", "a singer", "a doctor", "a woman", "an elf", "a house")
)
"""Captions of training images."""


@dataclass(frozen=True)
class View:
    """Where a node is shown. graph: a shipped workflow, or a graph of OWN. nodes: (type, title) of what is cut out, the
    node itself first; "" is the first of its type. run: run the graph before the image is taken."""

    graph: str
    nodes: tuple[tuple[str, str], ...]
    run: bool


def collecting(w: Workflow) -> None:
    """A list of links, and images of any graph. Not run: it would ask the internet."""
    w.group("Bring images in", parts.BLUE, "help")
    images = w.add("LoadImage", "Any node that gives images", image="example.png")["IMAGE"]
    w.column(340)
    place = {"culture": "Nuvian", "place": "nuvia"}
    w.add("SCoFT_DownloadLinks", links="links of our community.csv", **place)
    captions = {"captions": "a baker in nuvia", "generic_captions": "a baker"}
    w.add("SCoFT_DatasetFromImages", images=images, **captions, **place)


def filtering(w: Workflow) -> None:
    """Negatives of the mini world, filtered."""
    w.group("Filter", parts.BLUE, "help")
    base, control = parts.load_checkpoint(w), parts.load_control_net(w)
    dataset, features = parts.load_dataset(w, limit=6), parts.load_features(w)
    w.column()
    deep = w.add("SCoFT_EstimateDepth", dataset=dataset)["dataset"]
    w.column()
    given = {**parts.models(base), "control_net": control, "dataset": deep, **NEGATIVES}
    negatives = w.add("SCoFT_MakeNegatives", **given)["dataset"]
    w.column(460)
    w.add("SCoFT_PreviewDataset", dataset=negatives, rows=6)
    w.column(360)
    image = w.add("SCoFT_FilterNegatives", dataset=negatives, features=features, threshold=0.1)["image"]
    w.column(460)
    w.add("PreviewImage", images=image)


def keeping(w: Workflow) -> None:
    """A job that trains outside ComfyUI."""
    w.group("Keep", parts.BLUE, "help")
    base, given = parts.load_checkpoint(w), {"dataset": parts.load_dataset(w)}
    chain: dict[str, Any] = {}
    for name in ("SCoFT_DiffusionLoss", "SCoFT_MemorizationLoss"):
        chain = {"losses": w.add(name, **LOSSES[name], **chain)["losses"]}
    given |= parts.models(base) | chain | parts.train_options(w, LORA, OPTIMIZER, ROLLOUT)
    w.column(360)
    w.add("SCoFT_ExportJob", **given, **TRAIN, job_name="nuvia-mini", checkpoint=parts.CHECKPOINT)


def reading(w: Workflow) -> None:
    """The card of the LoRA that the mini workflow has saved, and what the shipped answers say, as text."""
    w.group("Read", parts.BLUE, "help", 360)
    card = w.add("SCoFT_ReadCard", lora=parts.LORA)["text"]
    w.column(TEXT[0])
    w.add("PreviewAny", "card", source=card)
    w.column(360)
    answers = w.add("SCoFT_LoadResponses")
    w.column(TEXT[0])
    w.add("PreviewAny", "answers", source=answers["report"])
    w.column(360)
    report = w.add("SCoFT_AggregateSurvey", survey=answers["survey"])["report"]
    w.column(TEXT[0])
    w.add("PreviewAny", "findings", source=report)


def comparing(w: Workflow) -> None:
    """The base model, the LoRA that the mini workflow has saved, and a correction: generated, compared and measured."""
    w.group("Compare", parts.BLUE, "help", 360)
    base = parts.load_checkpoint(w)
    lora = parts.load_lora(w, base, "")
    features = parts.load_features(w)
    trained, held_out = parts.load_dataset(w), parts.load_dataset(w, split="test")
    lists = w.add("SCoFT_DatasetToLists", dataset=held_out)
    w.column(360)
    given = {"prompts": CAPTIONS, "images_per_prompt": 2, **parts.GENERATE}
    before = parts.generate(w, base, "before", label="base", **given)
    after = parts.generate(w, base, "after", model=lora, label="SCoFT", **given)["images"]
    w.column(360)
    sets = {"preferred": lists["images"], "stereotyped": before["batch"], "resolution": 64}
    learned = w.add("SCoFT_LearnPreference", model=base["MODEL"], vae=base["VAE"], **sets)["preference"]
    w.column(360)
    w.add("SCoFT_SavePreference", preference=learned, filename_prefix="nuvia-mini", title="Nuvia (mini world)")
    correction = w.add("SCoFT_RSCorrector", model=base["MODEL"], preference=learned)["model"]
    w.column(360)
    corrected = parts.generate(w, base, "corrected", model=correction, label="RS-Corrector", **given)["images"]
    w.add("SCoFT_LoadPreference", preference=parts.LORA)
    compared = {"images": after, "compared_with": before["images"]}
    sets, data = compared | {"features": features}, {"dataset": trained, "held_out": held_out}
    w.column(360)
    metrics = [w.add("SCoFT_KID", **sets, dataset=held_out), w.add("SCoFT_ClipScore", **sets)]
    metrics.append(w.add("SCoFT_Memorization", **sets, **data))
    w.column(360)
    metrics.append(w.add("SCoFT_Diversity", **sets))
    models = parts.models(base) | {"model": lora, "compared_with": base["MODEL"]}
    metrics.append(w.add("SCoFT_DenoisingGap", **models, **data, resolution=64))
    metrics.append(w.add("SCoFT_BiasOracle", **compared))
    w.column(360)
    chains = {f"scores_{i}": node["scores"] for i, node in enumerate(metrics, 1)}
    scores = w.add("SCoFT_MergeScores", **chains)["scores"]
    grid = w.add("SCoFT_CompareGrid", set_1=before["images"], set_2=after, set_3=corrected, max_columns=6)["image"]
    w.column(560)
    w.add("SaveImage", "grid", images=grid, filename_prefix="scoft/help")
    w.add("SCoFT_ScoreTable", scores=scores, title="Everything that was measured")


def preserving(w: Workflow) -> None:
    """Prior Preservation at the end of a chain of losses. Not run."""
    w.group("Losses", parts.BLUE, "help")
    chain = w.add("SCoFT_DiffusionLoss")["losses"]
    w.column(360)
    w.add("SCoFT_PriorLoss", losses=chain, prompts="{generic}\n{generic} in borea\n{generic} in aria")


OWN: dict[str, Callable[[Workflow], None]] = {
    graph.__name__: graph for graph in (collecting, filtering, keeping, reading, comparing, preserving)
}
MINI = "train-cultural-lora-mini"
NOT_RUN = {
    MINI: "LoadDataset LoadFeatures LoraOptions OptimizerOptions RolloutOptions SaveLora "
    "DiffusionLoss MemorizationLoss ContrastiveLoss",
    "ablation": "PerceptualLoss",
    "preserving": "PriorLoss",
    "collecting": "DatasetFromImages DownloadLinks",
    "make-negatives": "CaptionGeneric SaveDataset",
    "build-negatives-from-stock-nodes": "DatasetToLists AttachNegatives",
}
RUN = {
    MINI: "TrainLora",
    "filtering": "PreviewDataset EstimateDepth MakeNegatives FilterNegatives",
    "keeping": "ExportJob",
    "comparing": "GenerateSet CompareGrid LearnPreference SavePreference LoadPreference RSCorrector "
    "KID ClipScore Memorization Diversity DenoisingGap BiasOracle MergeScores ScoreTable",
    "reading": "ReadCard LoadResponses AggregateSurvey",
    "survey": "BuildSurvey PlotSurvey",
}
"""Nodes by the graph that shows them."""
TITLES = {"GenerateSet": "after"}
BESIDE = {
    "FilterNegatives": ("PreviewImage", ""),
    "CompareGrid": ("SaveImage", "grid"),
    "ReadCard": ("PreviewAny", "card"),
    "LoadResponses": ("PreviewAny", "answers"),
    "AggregateSurvey": ("PreviewAny", "findings"),
}
"""What is cut out together with a node."""
SHOWN: dict[str, View] = {
    f"SCoFT_{name}": View(
        graph, ((f"SCoFT_{name}", TITLES.get(name, "")), *([BESIDE[name]] if name in BESIDE else [])), run
    )
    for graphs, run in ((NOT_RUN, False), (RUN, True))
    for graph, names in graphs.items()
    for name in names.split()
}


def form(name: str, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """A graph of this file as the editor loads it. schemas: `compact` of every node of the running ComfyUI."""
    preview = schemas["PreviewAny"]
    text = {"source": {**preview["inputs"]["source"], "type": "STRING"}}  # it accepts anything; here it gets strings
    workflow = Workflow(name, {**schemas, "PreviewAny": {**preview, "inputs": text}})
    OWN[name](workflow)
    graph = workflow.ui()
    for node in graph["nodes"]:
        if node["type"] == "PreviewAny":
            node["size"] = list(TEXT)
    return graph
