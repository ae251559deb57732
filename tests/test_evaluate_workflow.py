"""The workflow `evaluate`: what it asks for is what it measures against, and it runs in a real ComfyUI."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import workflow_evaluate
from comfy_server import ComfyServer
from mini_lora import save_random_lora

from comfy_scoft.data.dataset import load_folder
from comfy_scoft.experiments import demo
from comfy_scoft.experiments.comfy_client import Prompt
from comfy_scoft.mini_world import COMMUNITY
from comfy_scoft.mini_world.splits import HELD_OUT_KINDS

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "workflows" / "api" / "evaluate.json"
PATIENCE = 900.0


def shipped() -> Prompt:
    return json.loads(SHIPPED.read_text(encoding="utf-8"))


def test_its_prompts_are_the_captions_it_measures_against() -> None:
    records = load_folder(COMMUNITY)[0]
    captions = {part: [record.caption for record in records.split(part).records] for part in ("train", "test")}
    assert list(workflow_evaluate.TESTED) == captions["test"]
    assert len(workflow_evaluate.TRAINED) == 10 and set(workflow_evaluate.TRAINED) <= set(captions["train"])
    unseen = workflow_evaluate.prompts()["unseen"].splitlines()
    assert len(unseen) == len(set(unseen)) == 2 * len(HELD_OUT_KINDS) and not set(unseen) & set(captions["train"])
    elsewhere = workflow_evaluate.prompts()["elsewhere"].splitlines()
    assert len(elsewhere) == 3 * 8 and not any("nuvia" in prompt for prompt in elsewhere)


def test_base_and_lora_draw_the_same_and_each_figure_compares_the_two() -> None:
    prompt = shipped()

    def above(link: Any) -> dict[str, Any]:
        return prompt[link[0]]

    sets = [n["inputs"] for n in prompt.values() if n["class_type"] == "SCoFT_GenerateSet"]
    assert sorted(s["label"] for s in sets) == ["LoRA"] * 3 + ["base"] * 3 + ["other places"]
    measures = [n for n in prompt.values() if "compared_with" in n["inputs"] and "images" in n["inputs"]]
    assert sorted(n["class_type"] for n in measures) == [
        *("SCoFT_BiasOracle", "SCoFT_ClipScore", "SCoFT_Diversity", "SCoFT_KID", "SCoFT_KID", "SCoFT_Memorization")
    ]
    for node in measures:
        after, before = (above(node["inputs"][key])["inputs"] for key in ("images", "compared_with"))
        differ = {key for key in after if after[key] != before[key]}
        assert differ == {"model", "label"} and (before["label"], after["label"]) == ("base", "LoRA")
        assert above(after["model"])["class_type"] == "LoraLoaderModelOnly"
    (gap,) = (n["inputs"] for n in prompt.values() if n["class_type"] == "SCoFT_DenoisingGap")
    assert above(gap["model"])["class_type"] == "LoraLoaderModelOnly"
    assert above(gap["compared_with"])["class_type"] == "CheckpointLoaderSimple"


@pytest.mark.long
def test_it_runs_and_puts_every_figure_into_one_table(comfy: ComfyServer) -> None:
    save_random_lora(comfy)
    prompt = shipped()
    short: dict[str, dict[str, Any]] = {"SCoFT_GenerateSet": {"steps": 2, "images_per_prompt": 2}}
    for node in prompt.values():
        node["inputs"] |= short.get(node["class_type"], {})
        if node["class_type"] == "PrimitiveStringMultiline":
            lines = node["inputs"]["value"].splitlines()
            node["inputs"]["value"] = "\n".join([lines[0], lines[-1]])
    outputs = comfy.client.run(prompt, PATIENCE)["outputs"]
    rows = list(csv.DictReader(io.StringIO(demo.shown_text(outputs, demo.of_kind(prompt, "SCoFT_ScoreTable")))))
    names = {row["name"].split(" · ")[0] for row in rows if row["group"] == "change"}
    assert names == {
        *("KID ×10³ to test pictures", "KID ×10³ to other places", "CLIPScore", "diversity within a prompt"),
        *("similarity to training images of the same prompt", "near copies of training images"),
        *("denoising loss, training images", "denoising loss, held-out images", "denoising gap"),
    }
    assert {row["group"] for row in rows if row["name"] == "dark skin"} >= {
        "base · nuvia",
        "LoRA · nuvia",
        "change · borea",
    }
    assert all("cultural competence" in row["note"] for row in rows if row["name"].startswith("CLIPScore"))
    assert all(row["method"] for row in rows if row["group"] == "change" and row["name"].startswith("KID"))
    assert all(outputs[number]["images"] for number in demo.of_kind(prompt, "SaveImage"))
    (shown,) = (outputs[number]["text"] for number in demo.of_kind(prompt, "PreviewAny"))
    assert "".join(shown).startswith("name,group,value")
