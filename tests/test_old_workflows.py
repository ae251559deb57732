"""Workflow files of the first version, kept as they were published, still open and run with today's nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import build_workflows
import pytest
from comfy_server import ComfyServer
from test_end_to_end import PATIENCE, shortened

from comfy_scoft.experiments import demo

FOLDER = Path(__file__).parent / "old_workflows"
NAMES = ("ablation", "train-cultural-lora-mini")
SCHEMAS = json.loads(build_workflows.SCHEMAS.read_text(encoding="utf-8"))
every_old_workflow = pytest.mark.parametrize("name", NAMES)


def queued(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.api.json").read_text(encoding="utf-8"))


def opened(name: str) -> dict[str, Any]:
    """The form that the editor saved, opened with today's nodes: the API form that the editor would queue.

    The editor fills widgets by their place in `widgets_values`, so a new widget in between would shift all after it.
    A widget that is new and last keeps its default, and is left out here.
    """
    form = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    sources = {link[0]: [str(link[1]), link[2]] for link in form["links"]}
    prompt = {}
    for node in form["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        values, inputs = list(node["widgets_values"]), {}
        for part, entry in SCHEMAS[node["type"]]["inputs"].items():
            if entry["widget"] and values:
                inputs[part] = values.pop(0)
                if entry.get("control"):
                    assert values.pop(0) == "fixed"
        assert not values, (node["type"], values)
        inputs |= {slot["name"]: sources[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


@every_old_workflow
def test_each_widget_of_an_old_file_gets_the_value_that_was_saved_for_it(name: str) -> None:
    was = {number: {key: node[key] for key in ("class_type", "inputs")} for number, node in queued(name).items()}
    assert opened(name) == was


@every_old_workflow
def test_nodes_and_sockets_of_an_old_file_are_there_with_the_same_types(name: str) -> None:
    prompt = queued(name)
    for node in prompt.values():
        schema = SCHEMAS[node["class_type"]]
        for part, value in node["inputs"].items():
            entry = schema["inputs"][part]
            if isinstance(value, list):
                source, slot = value
                given = SCHEMAS[prompt[source]["class_type"]]["outputs"][slot]["type"]
                assert entry["type"] in (given, "*"), (node["class_type"], part)
            else:
                assert entry["widget"], (node["class_type"], part)
        needed = {part for part, entry in schema["inputs"].items() if not entry.get("optional")}
        assert needed <= set(node["inputs"]), f"{node['class_type']} now needs more than it did"


@every_old_workflow
def test_output_slots_of_an_old_file_keep_their_names(name: str) -> None:
    form = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    for node in form["nodes"]:
        if node["type"] != "MarkdownNote":
            today = [(out["name"], out["type"]) for out in SCHEMAS[node["type"]]["outputs"]]
            saved = [(out["name"], out["type"]) for out in node["outputs"]]
            assert saved == today[: len(saved)], node["type"]


@every_old_workflow
def test_values_of_an_old_file_are_still_taken(name: str, comfy: ComfyServer) -> None:
    """Choices that a menu offers, numbers within their range: by what the running ComfyUI says of its nodes."""
    info, looked_at = comfy.client.object_info(), 0
    for node in queued(name).values():
        parts = info[node["class_type"]]["input"]
        for part, value in node["inputs"].items():
            if isinstance(value, list):
                continue
            kind, *rest = (parts.get("required", {}) | parts.get("optional", {}))[part]
            options = rest[0] if rest else {}
            choices = kind if isinstance(kind, list) else options.get("options")
            if choices is not None and kind != "BOOLEAN":
                assert value in choices, (node["class_type"], part)
            elif kind in ("INT", "FLOAT"):
                assert options["min"] <= value <= options["max"], (node["class_type"], part)
            looked_at += 1
    assert looked_at > 60


@pytest.mark.long
def test_an_old_file_runs_to_its_end(comfy: ComfyServer) -> None:
    prompt = shortened("old", FOLDER / "train-cultural-lora-mini.api.json")
    outputs = comfy.client.run(prompt, PATIENCE)["outputs"]
    assert outputs[demo.of_kind(prompt, "SCoFT_SaveLora")[0]]["text"]
    assert all(outputs[number]["images"] for number in demo.of_kind(prompt, "SaveImage"))
