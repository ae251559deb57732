"""What a small run of the protocol is given: datasets, a generic set, options, and files of random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import feature_files
import model_folders
import pytest
import torch

from comfy_scoft.experiments.paper_tables import networks
from comfy_scoft.mini_world import COMMUNITY
from comfy_scoft.models.mini import layout

ROOT = Path(__file__).resolve().parent.parent
MODEL = layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT
CONTROLNET = layout.WEIGHTS / "controlnet" / layout.CONTROLNET
MINI = {"training": 5, "perceptual": 5, "filter": 4, "kid": 4, "clip": 5, "dino": 2, "dreamsim": 3}
"""Layers of the mini CLIP in the roles of the protocol's networks."""


def inception_file(folder: Path) -> Path:
    """Random weights in the form of torch-fidelity's file."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Inception, "load_state_dict", lambda self, state: None)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({}, folder / "empty.pth")
        net = Inception("x", ["2048"], feature_extractor_weights_path=str(folder / "empty.pth"))
    path = folder / networks.FILES[networks.INCEPTION]
    torch.save(feature_files.random_weights(net, 1).state_dict(), path)
    return path


def write_inputs(folder: Path) -> Path:
    """A culture with a test split (the mini world's), one without and without generic captions, a generic set of COCO's
    form, and a small BLIP."""
    for split in ("train", "test"):
        shutil.copytree(COMMUNITY / split, folder / "data" / "nuvia" / split)
    lines = (COMMUNITY / "train" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    korea, generic = folder / "data" / "South_Korea" / "train", folder / "generic"
    (korea / "images").mkdir(parents=True)
    generic.mkdir()
    coco: dict[str, list] = {"images": [], "annotations": []}
    kept = []
    for i, row in enumerate(map(json.loads, lines[::3])):
        shutil.copy(COMMUNITY / "train" / row["file_name"], korea / row["file_name"])
        kept.append(json.dumps({"file_name": row["file_name"], "text": row["text"]}))
        shutil.copy(COMMUNITY / "train" / row["file_name"], generic / f"{i:012d}.png")
        coco["images"].append({"id": i, "file_name": f"{i:012d}.png"})
        coco["annotations"].append({"id": 2 * i + 1, "image_id": i, "caption": "not the first"})
        coco["annotations"].append({"id": 2 * i, "image_id": i, "caption": f"image  {i} of something\n"})
    (korea / "metadata.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    (folder / "captions_val.json").write_text(json.dumps(coco), encoding="utf-8")
    model_folders.blip_folder(folder / "networks" / "blip")
    return folder


def arguments(inputs: Path, out: Path, *more: str, **changes: str) -> list[str]:
    values = {"model": MODEL, "controlnet": CONTROLNET, "data": inputs / "data", "generic": inputs / "generic"}
    values |= {"generic-captions": inputs / "captions_val.json", "networks": inputs / "networks"}
    values |= {"depth": "relief (mini)", "out": out, "threads": "1"}
    values |= {name.replace("_", "-"): value for name, value in changes.items()}
    found = ["protocol", *(str(part) for name, v in values.items() if v for part in (f"--{name}", v)), "--short"]
    for role, layer in MINI.items():
        found += ["--network", f"{role}=mini CLIP (layer {layer})"]
    return [*found, *more]


def results(out: Path) -> dict[str, Any]:
    """results.json but for the command, which names the folder."""
    found = json.loads((out / "page" / "results.json").read_text(encoding="utf-8"))
    assert "--short" in found.pop("command")
    return found
