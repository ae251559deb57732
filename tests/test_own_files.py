"""Files that nodes own: somebody deletes them between two queues, and they are made again without a restart."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comfy_inprocess import start
from comfy_server import ComfyServer

start()
from comfy_scoft.comfyui.own_files import LastSaved, remade  # noqa: E402
from comfy_scoft.data.records import CultureRecord, Dataset  # noqa: E402

MADE = ("depth", "negatives", "from images", "attached")
PROMPT: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "scoft-mini.safetensors"}},
    "2": {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "scoft-mini-depth.safetensors"}},
    "3": {
        "class_type": "SCoFT_LoadDataset",
        "inputs": {
            "folder": "community set of nuvia (shipped)",
            "culture": "",
            "place": "",
            "categories": "",
            "split": "train",
            "limit": 2,
        },
    },
    "4": {"class_type": "SCoFT_DatasetToLists", "inputs": {"dataset": ["3", 0]}},
    "5": {
        "class_type": "SCoFT_DatasetFromImages",
        "inputs": {"images": ["4", 0], "captions": ["4", 1], "culture": "", "place": "nuvia"},
    },
    "6": {"class_type": "SCoFT_EstimateDepth", "inputs": {"dataset": ["5", 0], "estimator": "relief (mini)"}},
    "7": {
        "class_type": "SCoFT_MakeNegatives",
        "inputs": {
            "model": ["1", 0],
            "clip": ["1", 1],
            "vae": ["1", 2],
            "control_net": ["2", 0],
            "dataset": ["6", 0],
            "per_image": 1,
            "steps": 1,
            "cfg": 4.0,
            "strength": 1.0,
            "seed": 1,
            "prompt_template": "{caption} in {place}",
        },
    },
    "8": {"class_type": "SCoFT_PreviewDataset", "inputs": {"dataset": ["7", 0], "rows": 1}},
    "9": {"class_type": "SCoFT_AttachNegatives", "inputs": {"dataset": ["6", 0], "images": ["4", 0]}},
    "10": {"class_type": "SCoFT_PreviewDataset", "inputs": {"dataset": ["9", 0], "rows": 1}},
    "11": {"class_type": "SCoFT_SaveDataset", "inputs": {"dataset": ["7", 0], "name": "own files"}},
}


def executed(server: ComfyServer, prompt: dict[str, Any]) -> set[str]:
    """The kinds of nodes that a prompt ran, without those whose results ComfyUI still had."""
    status = server.client.run(prompt, timeout=300)["status"]
    (cached,) = (data["nodes"] for name, data in status["messages"] if name == "execution_cached")
    return {node["class_type"] for number, node in prompt.items() if number not in cached}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def test_files_that_are_gone_are_made_again_in_order_and_only_then(tmp_path: Path) -> None:
    made: list[str] = []

    def make(name: str, above: Dataset) -> Callable[[], Dataset]:
        def write() -> Dataset:
            made.append(name)
            (tmp_path / name).touch()
            record = dataclasses.replace(above.records[0], depth=tmp_path / name)
            return above.replace([record])

        return write

    (tmp_path / "image").touch()
    plain = Dataset(tmp_path, (CultureRecord(tmp_path / "image", "a house"),), "one")
    depth = remade(make("depth", plain))
    both = remade(make("more", depth)).split("train")
    both.restore()
    assert made == ["depth", "more"] and both == dataclasses.replace(both, makers=())
    (tmp_path / "more").unlink()
    both.restore()
    assert made == ["depth", "more"] * 2 and (tmp_path / "more").is_file()
    plain.restore()
    assert len(made) == 4, "nobody knows how it was made"


def test_a_saving_node_runs_again_once_for_each_time_that_its_last_file_was_gone(tmp_path: Path) -> None:
    last, path = LastSaved(), tmp_path / "lora_00001"
    assert (last.times_gone("lora"), last.times_gone(None)) == (0, 0), "it has saved nothing yet"
    path.touch()
    last.saved("lora", path)
    assert last.times_gone("lora") == 0
    path.unlink()
    assert [last.times_gone("lora") for _ in range(3)] == [1, 1, 1] and last.times_gone("other") == 0
    path.touch()
    last.saved("lora", path)
    assert last.times_gone("lora") == 1, "it must not run again because a file is there again"


@pytest.mark.long
def test_what_was_deleted_between_two_queues_is_made_again_and_nothing_else_runs(comfy: ComfyServer) -> None:
    root, prompt = comfy.base / "output/scoft", copy.deepcopy(PROMPT)
    for name in (*MADE, "datasets/own files"):
        shutil.rmtree(root / name, ignore_errors=True)  # of other tests
    executed(comfy, prompt)
    before = {name: files(root / name) for name in MADE}
    assert all(before.values())
    for gone in (MADE, *((name,) for name in MADE)):
        for name in gone:
            shutil.rmtree(root / name)
        for number in ("8", "10"):
            prompt[number]["inputs"]["rows"] += 1
        assert executed(comfy, prompt) == {"SCoFT_PreviewDataset"}
        assert {name: files(root / name) for name in MADE} == before
    assert executed(comfy, prompt) == set()
    shutil.rmtree(root / "datasets/own files")
    assert executed(comfy, prompt) == {"SCoFT_SaveDataset"}
    assert (root / "datasets/own files/train/metadata.jsonl").is_file()
    assert executed(comfy, prompt) == set()
