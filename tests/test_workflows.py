"""The shipped workflows: written by their source, the same graph in both forms, and readable from left to right."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import build_workflows
import pytest
import workflow_form
from every import every
from PIL import Image
from workflow_form import Workflow, compact

from comfy_scoft.mini_world.splits import HELD_OUT_KINDS, TRAINED_KINDS

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = json.loads(build_workflows.SCHEMAS.read_text(encoding="utf-8"))
NAMES = tuple(build_workflows.WORKFLOWS)
TITLE_BAR = 30

every_workflow = every("name", NAMES)


def ui(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def api(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def as_prompt(form: dict[str, Any]) -> dict[str, Any]:
    """What the editor would queue for a UI form, worked out from the form and the nodes' schemas alone."""
    sources = {link[0]: [str(link[1]), link[2]] for link in form["links"]}
    prompt = {}
    for node in form["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        values = iter(node["widgets_values"])
        inputs: dict[str, Any] = {}
        for name, entry in SCHEMAS[node["type"]]["inputs"].items():
            if entry["widget"]:
                inputs[name] = next(values)
                if entry.get("control"):
                    assert next(values) == "fixed"
        assert next(values, None) is None
        inputs |= {slot["name"]: sources[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def box(node: dict[str, Any]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a node with its title bar."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE_BAR, x + width, y + height


@every_workflow
def test_the_files_are_what_their_source_writes(name: str) -> None:
    built = build_workflows.build(name, SCHEMAS)
    again = "Run `python tools/build_workflows.py`; the files are written, never edited."
    for file, form in (("", built.ui()), ("api/", built.api())):
        text = (ROOT / f"workflows/{file}{name}.json").read_text(encoding="utf-8")
        assert text == workflow_form.text(form), again
        assert json.loads(text) == form


@every_workflow
def test_the_editor_would_queue_the_api_form(name: str) -> None:
    expected = {number: {k: v for k, v in node.items() if k != "_meta"} for number, node in api(name).items()}
    assert as_prompt(ui(name)) == expected


@every_workflow
def test_every_link_joins_sockets_of_one_type_and_is_known_at_both_ends(name: str) -> None:
    form = ui(name)
    nodes = {node["id"]: node for node in form["nodes"]}
    for number, start, out_slot, end, in_slot, kind in form["links"]:
        output, taken = nodes[start]["outputs"][out_slot], nodes[end]["inputs"][in_slot]
        assert output["type"] == kind and taken["type"] in (kind, "*")
        assert number in output["links"] and taken["link"] == number
    known = {link[0] for link in form["links"]}
    assert len(known) == len(form["links"]) == form["last_link_id"]
    assert {n for node in form["nodes"] for out in node["outputs"] for n in out["links"]} == known
    assert {slot["link"] for node in form["nodes"] for slot in node["inputs"]} - {None} == known


@every_workflow
def test_nothing_that_is_needed_is_left_open_and_nothing_is_idle(name: str) -> None:
    prompt = api(name)
    for node in prompt.values():
        for entry_name, entry in SCHEMAS[node["class_type"]]["inputs"].items():
            assert entry.get("optional") or entry_name in node["inputs"], (node["class_type"], entry_name)
    used = {value[0] for node in prompt.values() for value in node["inputs"].values() if isinstance(value, list)}
    ends = {number for number, node in prompt.items() if SCHEMAS[node["class_type"]]["output_node"]}
    assert set(prompt) == used | ends


@every_workflow
def test_a_person_reads_it_from_left_to_right(name: str) -> None:
    form = ui(name)
    nodes = {node["id"]: node for node in form["nodes"]}
    for _, start, _, end, *_ in form["links"]:
        left, right = box(nodes[start]), box(nodes[end])
        assert right[0] >= left[2] or (right[0] == left[0] and right[1] >= left[3]), (start, end)
    for one, other in combinations(map(box, form["nodes"]), 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    frames = [group["bounding"] for group in form["groups"]]
    assert all(a[0] + a[2] < b[0] and a[1] == b[1] for a, b in zip(frames, frames[1:], strict=False))
    for left, top, right, bottom in map(box, form["nodes"]):
        around = [f for f in frames if f[0] < left and right < f[0] + f[2] and f[1] < top and bottom < f[1] + f[3]]
        assert len(around) == 1


@every_workflow
def test_each_group_has_a_number_a_colour_and_a_note(name: str) -> None:
    form = ui(name)
    notes = [node for node in form["nodes"] if node["type"] == "MarkdownNote"]
    assert len(notes) == len(form["groups"]) >= 3 and all(len(n["widgets_values"][0]) > 80 for n in notes)
    assert [g["title"].split(" · ")[0] for g in form["groups"]] == [str(i + 1) for i in range(len(notes))]
    assert len({g["color"] for g in form["groups"]}) == len(notes)


@pytest.mark.long
@every_workflow
def test_each_has_a_square_picture_for_the_browser_of_templates_and_one_of_its_graph(name: str) -> None:
    """In the long tier, which CI runs: whoever changes a workflow need not take pictures."""
    small, whole = ROOT / "workflows" / f"{name}.jpg", ROOT / "docs" / "workflows" / f"{name}.jpg"
    assert Image.open(small).size == (512, 512) and small.stat().st_size < 100_000
    assert Image.open(whole).width == 3200
    assert f"[`{name}`](workflows/{name}.jpg)" in (ROOT / "docs" / "workflows.md").read_text("utf-8")


def test_the_first_workflow_measures_a_hundred_pictures_of_unseen_people_a_place() -> None:
    prompt = api("train-cultural-lora-mini")
    asked = next(n["inputs"]["value"] for n in prompt.values() if n["class_type"] == "PrimitiveStringMultiline")
    sets = [n["inputs"] for n in prompt.values() if n["class_type"] == "SCoFT_GenerateSet"]
    for place in ("in nuvia", "in borea", ""):
        lines = [line for line in asked.splitlines() if (place in line if place else " in " not in line)]
        assert len(lines) == len(HELD_OUT_KINDS) and len(lines) * sets[0]["images_per_prompt"] >= 100
    assert not any(f"a {kind}" in asked.splitlines() for kind in TRAINED_KINDS)
    same = [{k: v for k, v in s.items() if k not in ("model", "label")} for s in sets]
    assert len(sets) == 2 and same[0] == same[1]


def test_the_ablation_trains_four_times_and_differs_in_the_losses_alone() -> None:
    prompt = api("ablation")

    def chain(number: str) -> list[str]:
        node = prompt[number]
        before = node["inputs"].get("losses")
        return [*(chain(before[0]) if before else []), node["class_type"].removeprefix("SCoFT_")]

    trained = [n["inputs"] for n in prompt.values() if n["class_type"] == "SCoFT_TrainLora"]
    plain, guarded = ["DiffusionLoss"], ["DiffusionLoss", "MemorizationLoss"]
    chains = [chain(inputs["losses"][0]) for inputs in trained]
    assert chains == [plain, guarded, [*guarded, "PerceptualLoss"], [*guarded, "ContrastiveLoss"]]
    rest = [{k: v for k, v in inputs.items() if k not in ("losses", "run_name")} for inputs in trained]
    assert all(other == rest[0] for other in rest)
    assert len({inputs["run_name"] for inputs in trained}) == 4


def test_a_mistake_in_a_workflow_is_found_when_it_is_built() -> None:
    workflow = Workflow("wrong", SCHEMAS)
    workflow.group("1 · Wrong", "#000", "note")
    workflow.column()
    base = workflow.add("CheckpointLoaderSimple", ckpt_name="a.safetensors")
    with pytest.raises(AssertionError, match="has no input"):
        workflow.add("CheckpointLoaderSimple", name="a.safetensors")
    with pytest.raises(AssertionError, match="takes IMAGE and was given MODEL"):
        workflow.add("SaveImage", images=base["MODEL"], filename_prefix="x")
    with pytest.raises(AssertionError, match="is neither given nor connected"):
        workflow.add("SaveImage", filename_prefix="x")
    with pytest.raises(AssertionError, match="has no output 'IMAGE'"):
        base["IMAGE"]


def test_both_kinds_of_object_info_are_understood() -> None:
    info = {
        "input": {
            "required": {"mode": [["a", "b"]], "seed": ["INT", {"default": 3}], "image": ["IMAGE"]},
            "optional": {"words": ["STRING", {"multiline": True, "forceInput": True}]},
            "hidden": {"prompt": "PROMPT"},
        },
        "output": ["IMAGE"],
        "output_name": ["picture"],
    }
    assert compact(info) == {
        "inputs": {
            "mode": {"type": "COMBO", "widget": True},
            "seed": {"type": "INT", "widget": True, "default": 3, "control": True},
            "image": {"type": "IMAGE", "widget": False},
            "words": {"type": "STRING", "widget": False, "optional": True, "multiline": True},
        },
        "outputs": [{"name": "picture", "type": "IMAGE"}],
        "output_node": False,
    }
