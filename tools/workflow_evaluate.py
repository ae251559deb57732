"""The evaluation workflow: a base model and a LoRA, measured by the paper's figures on the same prompts and seeds."""

from __future__ import annotations

from typing import Any

from workflow_correct import FIRST_OF_FEW
from workflow_form import Node, Socket, Workflow

from comfy_scoft.mini_world.splits import HELD_OUT_KINDS

BLUE, RED, ORANGE, VIOLET, TEAL = "#3f789e", "#8a3b3b", "#a1663a", "#6b4a8e", "#2f7d7d"

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
world alone. **CLIPScore** does *not* measure cultural competence: in the paper it fell while people found the \
pictures better."""

READ = """## Read the intervals first
A change whose interval holds 0 is not shown by these pictures: raise *images_per_prompt* (in all nodes that draw) for \
narrower ones. Few test pictures make KID wide whatever you draw. And look at the grids: no figure sees what people of \
the culture see. Ask them: that is workflow *survey*."""

CHECKPOINT, LORA = "scoft-mini.safetensors", "nuvia-mini_00001.safetensors"
DRAWING = {"width": 64, "height": 64, "steps": 20, "cfg": 3.0, "sampler_name": "ddim", "scheduler": "normal"}
TESTED = (
    "a farmer in nuvia",
    "a picture of a singer in nuvia",
    "an image of a woman in nuvia",
    "a drawing of a queen in nuvia",
    "a house in nuvia, simple art",
    "a drum in nuvia",
    "a picture of a tree in nuvia",
    "an image of a lantern in nuvia",
)
"""The captions of the test pictures; tests compare them with the set."""
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
SEEDS = {"test": 6, "trained": 6, "unseen": 4, "elsewhere": 2}
"""Pictures a prompt: 48, 60 and 96 of each model, and 48 of other places."""
TITLES = {
    "test": "Test captions",
    "trained": "Training captions",
    "unseen": "Unseen people",
    "elsewhere": "Other places",
}


def prompts() -> dict[str, str]:
    """What is drawn, by what it is for."""
    unseen = [
        f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} in {p}" for p in ("nuvia", "borea") for kind in HELD_OUT_KINDS
    ]
    elsewhere = [text.replace("nuvia", place) for place in ("borea", "aria", "caldia") for text in TESTED]
    return {
        name: "\n".join(lines)
        for name, lines in {"test": TESTED, "trained": TRAINED, "unseen": unseen, "elsewhere": elsewhere}.items()
    }


def evaluate(w: Workflow) -> None:
    """Base against LoRA: KID, CLIPScore, memorization, diversity, denoising gap and bias in one table, and grids."""
    w.group("1 · The models", BLUE, MODELS)
    w.column(420)
    base = w.add("CheckpointLoaderSimple", "The base model", ckpt_name=CHECKPOINT)
    w.column(420)
    lora = w.add("LoraLoaderModelOnly", "Your LoRA", model=base["MODEL"], lora_name=LORA, strength_model=1.0)["MODEL"]
    w.group("2 · Real pictures", RED, REAL)
    w.column(420)
    trained = w.add("SCoFT_LoadDataset", "Pictures it was trained on", split="train")["dataset"]
    kept = w.add("SCoFT_LoadDataset", "Test pictures, kept back", split="test")["dataset"]
    w.column(420)
    eye = w.add("SCoFT_LoadFeatures", "Eye that compares pictures", network="mini CLIP (layer 5)")["features"]
    w.group("3 · Draw with and without the LoRA", ORANGE, DRAW)
    sets = _sets(w, base, lora)
    w.group("4 · Measure", VIOLET, MEASURE)
    found = _figures(w, base, lora, trained, kept, eye, sets)
    w.group("5 · Read", TEAL, READ)
    _read(w, found, sets)


def _sets(w: Workflow, base: Node, lora: Socket) -> dict[str, dict[str, Socket]]:
    """For each list of prompts the set of the base model ("images") and of the LoRA; other places, base alone."""
    w.column(360)
    asked = {
        name: w.add("PrimitiveStringMultiline", TITLES[name], value=lines)["STRING"]
        for name, lines in prompts().items()
    }
    sets: dict[str, dict[str, Socket]] = {name: {} for name in asked}
    for label, model in (("base", base["MODEL"]), ("LoRA", lora)):
        w.column(320)
        for name, text in asked.items():
            if name == "elsewhere" and label == "LoRA":
                continue
            own = {"label": "other places"} if name == "elsewhere" else {"label": label}
            given: dict[str, Any] = {
                "clip": base["CLIP"],
                "vae": base["VAE"],
                "seed": FIRST_OF_FEW,
                "images_per_prompt": SEEDS[name],
            }
            drawn = w.add(
                "SCoFT_GenerateSet", f"{TITLES[name]}: {label}", model=model, prompts=text, **own, **given, **DRAWING
            )
            sets[name][label] = drawn["images"]
    return sets


def _figures(
    w: Workflow,
    base: Node,
    lora: Socket,
    trained: Socket,
    kept: Socket,
    eye: Socket,
    sets: dict[str, dict[str, Socket]],
) -> dict[str, Node]:
    def pair(name: str) -> dict[str, Socket]:
        return {"images": sets[name]["LoRA"], "compared_with": sets[name]["base"]}

    tested = {**pair("test"), "features": eye}
    w.column(360)
    near = w.add("SCoFT_KID", "How near to the community's own", **tested, dataset=kept, reference_name="test pictures")
    other = {"other_set": sets["elsewhere"]["base"], "reference_name": "other places", "scores": near["scores"]}
    kid = w.add("SCoFT_KID", "… and to other places", **tested, **other)
    words = w.add("SCoFT_ClipScore", "Pictures and prompts", **tested)
    w.column(360)
    learned = {**pair("trained"), "features": eye}
    heart = w.add("SCoFT_Memorization", "Learned by heart?", **learned, dataset=trained, held_out=kept)
    varied = w.add("SCoFT_Diversity", "How varied", **learned)
    w.column(360)
    models = {"model": lora, "compared_with": base["MODEL"], "clip": base["CLIP"], "vae": base["VAE"]}
    gap = w.add(
        "SCoFT_DenoisingGap", "The same, without drawing", **models, dataset=trained, held_out=kept, resolution=64
    )
    counted = w.add("SCoFT_BiasOracle", "Count what they show", **pair("unseen"))
    return {"kid": kid, "words": words, "heart": heart, "varied": varied, "gap": gap, "counted": counted}


def _read(w: Workflow, found: dict[str, Node], sets: dict[str, dict[str, Socket]]) -> None:
    w.column(360)
    chains = {f"scores_{i}": node["scores"] for i, node in enumerate(found.values(), 1)}
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
    w.add("SaveImage", "Near copies", images=found["heart"]["image"], filename_prefix="scoft/evaluate-copies")
