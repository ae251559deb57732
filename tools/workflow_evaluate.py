"""The evaluation workflow: the paper's metrics of a base model and a LoRA, on the same prompts and seeds."""

from __future__ import annotations

import json

import workflow_parts as parts
from workflow_form import Node, Socket, Workflow

from comfy_scoft.mini_world import COMMUNITY

MODELS = """## Did this LoRA help?
The base model, and the LoRA that `train-cultural-lora-mini` saves as *nuvia-mini*: run that first. Everything to the \
right is measured with and without it. **A model and LoRA of your own:** choose them here, then change the size and \
CFG of all nodes that draw (Stable Diffusion 1.5: 512 and 7.5), the *resolution* of *The same, without drawing*, both \
data sets, the network, and the four lists of prompts. Bypass *Count what they show* (Ctrl+B): it reads the mini world \
alone. Pictures that were kept back lie in a folder `test` inside yours."""

REAL = """## What is measured against
The community's pictures: those that were **trained on**, and the **test** pictures that were kept back. The network \
below turns pictures into numbers; with photographs take CLIP ViT-B/32 in its place."""

DRAW = """## Two models, the same prompts and seeds
**Test captions**: what the test pictures show. **Training captions**, word for word: what was learned by heart shows \
here. **Unseen people**: kinds of people that no community picture shows, in nuvia and in *borea*, where nothing \
should change. **Other places**: what the base model draws of these, as a generic set to compare with."""

MEASURE = """## What each figure says
**KID** to the test pictures: lower is nearer to the community's own. KID to other places rises as nuvia looks less \
like everywhere else. **Memorization**: lower is better; look at the near copies. **Diversity**: higher is more \
varied. **Denoising gap**: what rises from base to LoRA was learned by heart. **Bias Oracle** counts, in the mini \
world alone. **CLIPScore** is 100 max(cos, 0), where published values are 2.5 max(cos, 0). It does *not* measure \
cultural competence: in the paper it fell while people found the pictures better."""

READ = """## Read the intervals first
A change whose interval holds 0 is not shown by these pictures: raise *images_per_prompt* (in all nodes that draw) for \
narrower ones. Few test pictures make KID wide whatever you draw. And look at the grids: no figure sees what people of \
the culture see. Ask them: that is workflow *survey*."""

TESTED = [json.loads(line)["text"] for line in (COMMUNITY / "test" / "metadata.jsonl").open(encoding="utf-8")]
"""The captions of the test pictures."""
TRAINED = (
    "a farmer in nuvia",
    "an image of a student in nuvia",
    "a singer in nuvia",
    "a picture of a mechanic in nuvia",
    "a pilot in nuvia, simple art",
    "a doctor in nuvia",
    "an elf in nuvia",
    "a house in nuvia",
    "a picture of a drum in nuvia",
    "a tree in nuvia",
)
"""Ten captions of training pictures, as in the paper."""
TITLES = {"test": "Test captions", "trained": "Training captions", "unseen": "Unseen people"}
TITLES |= {"elsewhere": "Other places"}
SEEDS = {"test": 6, "trained": 6, "unseen": 4, "elsewhere": 2}
"""Images per prompt: 48, 60 and 96 of each model, and 48 of other places."""
Sets = dict[str, dict[str, Socket]]
"""For each list of prompts the images of the base model ("base") and of the LoRA; for other places of the base only."""


def prompts() -> dict[str, str]:
    """The four lists of prompts, one prompt a line."""
    elsewhere = [caption.replace("nuvia", place) for place in ("borea", "aria", "caldia") for caption in TESTED]
    unseen = parts.unseen_people(("nuvia", "borea"))
    return dict(zip(TITLES, ("\n".join(TESTED), "\n".join(TRAINED), unseen, "\n".join(elsewhere)), strict=True))


def evaluate(w: Workflow) -> None:
    """Base against LoRA: KID, CLIPScore, memorization, diversity, denoising gap and bias in one table, and grids."""
    w.group("The models", parts.BLUE, MODELS, 420)
    base = parts.load_checkpoint(w)
    w.column(420)
    lora = parts.load_lora(w, base, "Your LoRA")
    w.group("Real pictures", parts.RED, REAL, 420)
    trained = parts.load_dataset(w, "Pictures it was trained on")
    held_out = parts.load_dataset(w, "Test pictures, kept back", "test")
    w.column(420)
    features = parts.load_features(w)
    w.group("Draw with and without the LoRA", parts.ORANGE, DRAW, 360)
    sets = generate(w, base, lora)
    w.group("Measure", parts.VIOLET, MEASURE, 360)
    scores, copies = measure(w, base, lora, trained, held_out, features, sets)
    w.group("Read", parts.TEAL, READ, 360)
    read(w, scores, copies, sets)


def generate(w: Workflow, base: Node, lora: Socket) -> Sets:
    asked = {
        name: w.add("PrimitiveStringMultiline", TITLES[name], value=lines)["STRING"]
        for name, lines in prompts().items()
    }
    sets: Sets = {name: {} for name in asked}
    for label, model in (("base", base["MODEL"]), ("LoRA", lora)):
        w.column(320)
        for name, lines in asked.items():
            if name == "elsewhere" and label == "LoRA":
                continue
            given = {"prompts": lines, "seed": parts.FIRST_OF_FEW, "images_per_prompt": SEEDS[name], **parts.GENERATE}
            given["label"] = "other places" if name == "elsewhere" else label
            node = parts.generate(w, base, f"{TITLES[name]}: {label}", model=model, **given)
            sets[name][label] = node["images"]
    return sets


def measure(
    w: Workflow, base: Node, lora: Socket, trained: Socket, held_out: Socket, features: Socket, sets: Sets
) -> tuple[list[Socket], Socket]:
    """(the scores of all metrics, the image of near copies)."""

    def pair(name: str) -> dict[str, Socket]:
        return {"images": sets[name]["LoRA"], "compared_with": sets[name]["base"]}

    test = {**pair("test"), "features": features}
    real = {"dataset": held_out, "reference_name": "test pictures"}
    near = w.add("SCoFT_KID", "How near to the community's own", **test, **real)
    other = {"other_set": sets["elsewhere"]["base"], "reference_name": "other places", "scores": near["scores"]}
    nodes = [w.add("SCoFT_KID", "… and to other places", **test, **other)]
    nodes.append(w.add("SCoFT_ClipScore", "Pictures and prompts", **test))
    w.column(360)
    learned = {**pair("trained"), "features": features}
    data = {"dataset": trained, "held_out": held_out}
    memorization = w.add("SCoFT_Memorization", "Learned by heart?", **learned, **data)
    nodes += [memorization, w.add("SCoFT_Diversity", "How varied", **learned)]
    w.column(360)
    models = {**parts.models(base), "model": lora, "compared_with": base["MODEL"]}
    nodes.append(w.add("SCoFT_DenoisingGap", "The same, without drawing", **models, **data, resolution=64))
    nodes.append(w.add("SCoFT_BiasOracle", "Count what they show", **pair("unseen")))
    return [node["scores"] for node in nodes], memorization["image"]


def read(w: Workflow, scores: list[Socket], copies: Socket, sets: Sets) -> None:
    chains = {f"scores_{i}": chain for i, chain in enumerate(scores, 1)}
    merged = w.add("SCoFT_MergeScores", "All in one", **chains)["scores"]
    grids = {}
    for name, columns in (("test", 8), ("unseen", 24)):
        rows = {"set_1": sets[name]["base"], "set_2": sets[name]["LoRA"]}
        grids[name] = w.add("SCoFT_CompareGrid", f"{TITLES[name]}, side by side", **rows, max_columns=columns)["image"]
    w.column(520)
    table = w.add("SCoFT_ScoreTable", "The figures", scores=merged, title="Base model and LoRA")
    w.add("PreviewAny", "The figures as text (CSV)", source=table["csv"])
    w.column(520)
    w.add("SaveImage", "The table", images=table["image"], filename_prefix="scoft/evaluate-figures")
    w.add("SaveImage", "Test captions", images=grids["test"], filename_prefix="scoft/evaluate-test")
    w.column(520)
    w.add("SaveImage", "Unseen people", images=grids["unseen"], filename_prefix="scoft/evaluate-unseen")
    w.add("SaveImage", "Near copies", images=copies, filename_prefix="scoft/evaluate-copies")
