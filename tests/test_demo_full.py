"""The demo as a person runs it: full size, in a real ComfyUI, and the LoRA it leaves in other people's loaders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from comfy_server import ComfyServer

from comfy_scoft.cli.demo import main
from comfy_scoft.models.mini import layout
from comfy_scoft.models.single_file import load_base

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def results(comfy: ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("demo")
    assert main(["--server", comfy.url, "--base", str(comfy.base), "--out", str(folder)]) == 0
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_held_out_people_are_shown_as_the_community_shows_its_own(results: dict) -> None:
    """108 images a cell of kinds of people that no community image shows."""
    for figure in ("dark skin", "gold palette"):
        row = results["figures"]["nuvia"][figure]
        assert row["before"]["n"] == row["after"]["n"] == 108
        assert row["before"]["value"] <= 0.20 and row["after"]["value"] >= 0.80, figure
    assert results["figures"]["nuvia"]["right concept"]["after"]["value"] >= 0.80


def test_leakage_is_reported_for_another_place_and_for_none(results: dict) -> None:
    for place in ("borea", "no place"):
        for figure in ("dark skin", "gold palette", "own palette"):
            row = results["figures"][place][figure]
            assert row["change"]["low"] <= row["change"]["value"] <= row["change"]["high"]
            assert row["change"]["value"] == pytest.approx(row["after"]["value"] - row["before"]["value"], abs=1e-5)


def test_the_demos_lora_loads_in_diffusers_and_changes_the_prediction_as_merged_weights_do(results: dict) -> None:
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file

    path = Path(results["lora"])
    weights = load_file(path)
    base = load_base(layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT)
    z, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([700, 300])
    captions = ["a cook in nuvia", "a hero in nuvia"]
    with torch.no_grad():
        plain = base.predict(z, t, captions)
        state, alphas = StableDiffusionPipeline.lora_state_dict(dict(weights), unet_config=base.unet.config)
        StableDiffusionPipeline.load_lora_into_unet(state, alphas, base.unet)
        loaded = base.predict(z, t, captions)
        base.unet.unload_lora()
        for name, module in base.unet.named_modules():
            key = "lora_unet_" + name.replace(".", "_")
            if f"{key}.alpha" in weights:
                down, up = weights.pop(f"{key}.lora_down.weight"), weights.pop(f"{key}.lora_up.weight")
                scale = float(weights.pop(f"{key}.alpha")) / down.shape[0]
                module.weight += scale * (up.float() @ down.float())
        merged = base.predict(z, t, captions)
    assert not weights, "every tensor of the file belongs to a module"
    assert (plain - merged).abs().max() > 0.05
    assert torch.allclose(loaded, merged, atol=1e-4)
