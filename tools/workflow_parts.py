"""Parts that several shipped workflows share, and the settings of those that run on the mini world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import checkout  # noqa: F401  (finds comfy_scoft)
from workflow_form import Node, Socket, Workflow

from comfy_scoft.mini_world.splits import HELD_OUT_KINDS

BLUE, RED, VIOLET, GREEN, ORANGE, TEAL = "#3f789e", "#8a3b3b", "#6b4a8e", "#4a7a4a", "#a1663a", "#2f7d7d"
OLIVE = "#7d7a2f"
CHECKPOINT, CONTROL_NET = "scoft-mini.safetensors", "scoft-mini-depth.safetensors"
LORA = "nuvia-mini_00001.safetensors"
"""What `train-cultural-lora-mini` saves on its first run."""
FEATURES = {"network": "mini CLIP (layer 5)"}
GENERATE = {"width": 64, "height": 64, "steps": 20, "cfg": 3.0, "sampler_name": "ddim", "scheduler": "normal"}
FIRST_OF_FEW = 5
"""First seed of a set with few seeds per prompt. In the mini world the noise decides a person's skin tone as much as
the prompt does: with seeds 1 to 4, 83 % of the base model's images of borea are dark, with 5 to 8, 48 %. Only the
latter leave room to see leakage."""
COLUMNS = 12


def unseen_people(places: Sequence[str] = ("nuvia", "borea", "")) -> str:
    """Prompts, one a line: every kind of people that no community image shows, in each place ("" for no place)."""
    people = [f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}" for kind in HELD_OUT_KINDS]
    return "\n".join(f"{person} in {place}" if place else person for place in places for person in people)


def models(base: Node) -> dict[str, Socket]:
    """The inputs model, clip and vae from a checkpoint loader."""
    return {name: base[name.upper()] for name in ("model", "clip", "vae")}


def load_checkpoint(w: Workflow, name: str = CHECKPOINT) -> Node:
    return w.add("CheckpointLoaderSimple", "The base model", ckpt_name=name)


def load_lora(w: Workflow, base: Node, title: str, name: str = LORA, strength: float = 1.0) -> Socket:
    """The base model with a saved LoRA."""
    given = {"model": base["MODEL"], "lora_name": name, "strength_model": strength}
    return w.add("LoraLoaderModelOnly", title, **given)["MODEL"]


def load_dataset(w: Workflow, title: str = "The community's pictures", split: str = "train", **given: Any) -> Socket:
    return w.add("SCoFT_LoadDataset", title, split=split, **given)["dataset"]


def load_features(w: Workflow, title: str = "Eye that compares pictures", **given: Any) -> Socket:
    return w.add("SCoFT_LoadFeatures", title, **(given or FEATURES))["features"]


def load_control_net(w: Workflow, name: str = CONTROL_NET) -> Socket:
    return w.add("ControlNetLoader", "Holds the scene", control_net_name=name)["CONTROL_NET"]


def train_options(
    w: Workflow, lora: Mapping[str, Any], optimizer: Mapping[str, Any], rollout: Mapping[str, Any]
) -> dict[str, Socket]:
    """The option nodes of a training, by the name of Train LoRA's input."""
    return {
        "lora": w.add("SCoFT_LoraOptions", "Size of the LoRA", **lora)["options"],
        "optimizer": w.add("SCoFT_OptimizerOptions", "How fast it learns", **optimizer)["options"],
        "rollout": w.add("SCoFT_RolloutOptions", "Pictures drawn while training", **rollout)["options"],
    }


def generate(w: Workflow, base: Node, title: str, **given: Any) -> Node:
    """A Generate Set node; its model, text encoder and VAE are the base's where no other is given."""
    return w.add("SCoFT_GenerateSet", title, **(models(base) | given))


def generate_sets(
    w: Workflow, base: Node, prompts: tuple[str, str], *columns: Mapping[str, tuple[str, Socket]], **given: Any
) -> list[Socket]:
    """A column with the prompts (title and text), then columns of Generate Set nodes: by label, title and model."""
    given["prompts"] = w.add("PrimitiveStringMultiline", prompts[0], value=prompts[1])["STRING"]
    sets = []
    for column in columns:
        w.column(320)
        for label, (title, model) in column.items():
            sets.append(generate(w, base, title, model=model, label=label, **given)["images"])
    return sets


def compare(
    w: Workflow,
    note: str,
    sets: Sequence[Socket],
    counted: Mapping[str, Socket],
    compared_with: Socket | None,
    titles: tuple[str, str],
    files: tuple[str, str],
) -> None:
    """A group with a grid of all sets, a Bias Oracle for each of `counted` (by its title), and the table of scores.

    titles and files: of the saved grid, and of the saved table.
    """
    w.group("Compare and measure", TEAL, note)
    rows = {f"set_{i}": images for i, images in enumerate(sets, 1)}
    grid = w.add("SCoFT_CompareGrid", "Side by side", **rows, max_columns=COLUMNS)["image"]
    given = {"compared_with": compared_with} if compared_with else {}
    for title, images in counted.items():
        given["scores"] = w.add("SCoFT_BiasOracle", title, images=images, **given)["scores"]
    w.column(460)
    w.add("SaveImage", titles[0], images=grid, filename_prefix=f"scoft/{files[0]}")
    table = w.add("SCoFT_ScoreTable", "The figures", scores=given["scores"], title=titles[1])["image"]
    w.column(460)
    w.add("SaveImage", "The table", images=table, filename_prefix=f"scoft/{files[1]}")
