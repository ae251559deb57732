"""The workflow `rs-corrector`: four models that differ in the model alone, and it runs in a real ComfyUI."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import workflow_parts
from comfy_server import ComfyServer
from mini_lora import save_random_lora

from comfy_scoft.corrector.preference_file import load
from comfy_scoft.experiments import demo
from comfy_scoft.experiments.comfy_client import Prompt
from comfy_scoft.mini_world.splits import HELD_OUT_KINDS, TRAINED_KINDS

SHIPPED = Path(__file__).resolve().parent.parent / "workflows" / "api" / "rs-corrector.json"
LABELS = ["base", "corrected", "LoRA", "LoRA + corrected"]


def shipped() -> Prompt:
    return json.loads(SHIPPED.read_text(encoding="utf-8"))


def test_the_four_sets_differ_in_the_model_alone_and_show_unseen_people() -> None:
    prompt = shipped()
    sets = [n["inputs"] for n in prompt.values() if n["class_type"] == "SCoFT_GenerateSet"][1:]
    assert [s["label"] for s in sets] == LABELS
    rest = [{k: v for k, v in s.items() if k not in ("model", "label")} for s in sets]
    assert all(other == rest[0] for other in rest)
    kinds = [prompt[s["model"][0]]["class_type"] for s in sets]
    corrector = "SCoFT_RSCorrector"
    assert kinds == ["CheckpointLoaderSimple", corrector, "LoraLoaderModelOnly", corrector]
    asked = workflow_parts.unseen_people().splitlines()
    assert len(asked) == 3 * len(HELD_OUT_KINDS) and not any(f"a {kind}" in asked for kind in TRAINED_KINDS)
    (learned,) = (n["inputs"] for n in prompt.values() if n["class_type"] == "SCoFT_LearnPreference")
    own = prompt[learned["stereotyped"][0]]["inputs"]
    assert own["prompts"] == learned["captions"]  # the same scenes in both sets


@pytest.mark.long
def test_it_runs_and_measures_all_four(comfy: ComfyServer) -> None:
    save_random_lora(comfy)
    prompt = shipped()
    short: dict[str, dict[str, Any]] = {"SCoFT_GenerateSet": {"steps": 2, "images_per_prompt": 1}}
    short |= {"SCoFT_LearnPreference": {"steps": 20}, "SCoFT_LoadDataset": {"limit": 8}}
    for node in prompt.values():
        node["inputs"] |= short.get(node["class_type"], {})
        if node["class_type"] == "PrimitiveStringMultiline":
            node["inputs"]["value"] = "a cook in nuvia\na cook"
    (keep,) = (node["inputs"] for node in prompt.values() if node["class_type"] == "SCoFT_SavePreference")
    keep["filename_prefix"] = "of-the-workflow"  # the shipped name is used by other tests too
    outputs = comfy.client.run(prompt, 900.0)["outputs"]
    rows = list(csv.DictReader(io.StringIO(demo.shown_text(outputs, demo.of_kind(prompt, "SCoFT_ScoreTable")))))
    groups = {row["group"] for row in rows if row["name"] == "dark skin"}
    assert groups >= {f"{label} · nuvia" for label in LABELS}
    assert all(outputs[number]["images"] for number in demo.of_kind(prompt, "SaveImage"))
    (file,) = (comfy.base / "output" / "scoft" / "preferences").glob("of-the-workflow_*.safetensors")
    kept = load(file)
    assert kept.family == "mini" and kept.place is not None and kept.facts["licence"] == "CC-BY-4.0"
