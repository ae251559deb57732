"""The protocol with every model and network in its full shape, through the real command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import feature_files
import model_folders
import numpy as np
import pytest
from PIL import Image
from protocol_inputs import COMMUNITY, inception_file, results
from safetensors.torch import load_file

from comfy_scoft.__main__ import main as command
from comfy_scoft.experiments.paper_tables import networks


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_sd_and_every_network_in_full_shape_through_the_command(
    comfyui_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Random weights under the names, keys and shapes of the real files; DPT-hybrid, CLIP, DINOv2, DreamSim and
    Inception too; BLIP is a small one. Few images at 64 px and two steps of each training."""
    import standins  # starts ComfyUI's own modules

    folder = tmp_path / "networks"
    folder.mkdir()
    for role, architecture in (("training", "RN50-quickgelu"), ("clip", "ViT-B-32-quickgelu")):
        path, _ = feature_files.clip_file(folder, architecture)
        path.rename(folder / networks.FILES[networks.ROLES[role]])
    vit, _ = feature_files.timm_vit(folder, "vit_small_patch14_dinov2.lvd142m", False)  # the large one takes a minute
    vit.rename(folder / networks.FILES["DINOv2 S/14"])
    feature_files.vgg_file(folder)
    feature_files.dreamsim_folder(folder / "dreamsim")
    inception_file(folder)
    model_folders.dpt_folder(folder / "depth", real=True)
    model_folders.blip_folder(folder / "blip")
    lines = (COMMUNITY / "train" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    korea = tmp_path / "ccub" / "Korea"
    for split, some in (("train", lines[:3:2]), ("test", lines[10:14:2])):
        (korea / split / "images").mkdir(parents=True)
        rows = [{k: json.loads(line)[k] for k in ("file_name", "text")} for line in some]
        for row in rows:
            shutil.copy(COMMUNITY / "train" / row["file_name"], korea / split / row["file_name"])
        (korea / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    files = {"--model": standins.write("sd1", tmp_path), "--controlnet": standins.write("sd1-depth", tmp_path)}
    files |= {"--data": tmp_path / "ccub", "--networks": folder, "--out": out}
    options = [str(part) for pair in files.items() for part in pair]
    options += ["--generic", str(korea / "train"), "--short"]
    options += ["--network", "dino=DINOv2 S/14"]
    assert command(["protocol", *options]) == 0, capfd.readouterr().err
    found = results(out)
    assert found["settings"]["side"] == 64 and found["cultures"][0]["prepared"]["negatives"] == 4
    for arm in ("SCoFT+M", "SCoFT+MP", "SCoFT+MPC"):
        figures = found["means"][arm]
        assert {"KID-CCUB", "KID-COCO", "CLIPScore"} <= figures.keys()
        assert all(np.isfinite(figure["value"]) for figure in figures.values())
    loras = [load_file(path) for path in sorted((out / "trained").rglob("lora.safetensors"))]
    assert len(loras) == 4 and all(len(lora) == 3 * 16 * 8 for lora in loras)
    assert Image.open(next((out / "pictures").rglob("*.png"))).size == (64, 64)
