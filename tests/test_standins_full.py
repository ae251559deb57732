"""Stable Diffusion in its full shape: names and sizes on the meta device, numbers from files of several GB."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import standins
import torch
from sd_answers import CAPTION, UNET, answer, comfy, comfys_answer, far, load, noise

from comfy_scoft.comfyui import to_diffusers
from comfy_scoft.models import lora, single_file
from comfy_scoft.negatives.controlnet_pipeline import load_controlnet

COUNTS = {
    "sd1": {UNET: 859_520_964, "first_stage_model.": 83_653_863, "cond_stage_model.": 123_060_480},
    "sd2": {UNET: 865_910_724, "first_stage_model.": 83_653_863},
    "sdxl": {UNET: 2_567_463_684, "first_stage_model.": 83_653_863, "conditioner.embedders.0.": 123_060_480},
    "sd1-depth": {"control_model.": 361_279_120},
}
"""Parameters of the published models."""


@pytest.mark.parametrize("name", COUNTS)
def test_stand_ins_have_the_published_numbers_of_parameters(name: str) -> None:
    shapes = standins.shapes(name)
    for prefix, count in COUNTS[name].items():
        assert sum(shape.numel() for key, shape in shapes.items() if key.startswith(prefix)) == count


def meta_model(family: str) -> Any:
    """MODEL in its full shape, without memory."""
    kind = {"sd1": "SD15", "sd2": "SD20", "sdxl": "SDXL"}[family]
    config = getattr(comfy.supported_models, kind)(standins.unet_config(standins.FULL[family], family))
    config.manual_cast_dtype = None
    model = config.get_model({}, "", device=torch.device("meta"))
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, cpu, cpu)


@pytest.mark.parametrize("family, layers", [("sd1", 282), ("sd2", 282), ("sdxl", 794)])
def test_every_layer_of_the_full_unet_has_a_lora_key_that_comfyui_knows(family: str, layers: int) -> None:
    """All linear layers and convolutions, under the names that `export_kohya` writes; on the meta device."""
    model = meta_model(family)
    unet = to_diffusers.unet_from_model(model)
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    names = {path for path, module in unet.named_modules() if isinstance(module, kinds)}
    keys = {"lora_unet_" + path.replace(".", "_"): path for path in names}
    assert len(keys) == layers and keys.keys() <= known.keys()
    state = unet.state_dict()
    theirs = model.model.state_dict()
    assert all(state[f"{path}.weight"].numel() == theirs[known[key]].numel() for key, path in keys.items())
    assert len({known[key] for key in keys}) == layers  # no two layers share a place


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.long
def test_an_exported_lora_of_the_full_shape_loads_without_an_unmatched_key(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The largest choice of layers; the others are parts of it."""
    model = meta_model(family)
    unet = to_diffusers.unet_from_model(model)
    targets: Any = max(lora.TARGET_MODULES, key=lambda name: len(lora.TARGET_MODULES[name]))
    with torch.device("meta"):
        lora.attach(unet, lora.LoraSettings(rank=1, alpha=1.0, targets=targets), torch.Generator())
    for name, module in unet.named_modules():
        if name.endswith((".lora_A", ".lora_B")):
            module.to_empty(device="cpu")
    exported = lora.export_kohya(unet)
    with caplog.at_level(logging.WARNING):
        patched, _ = comfy.sd.load_lora_for_models(model, None, exported, 1.0, 0.0)
    assert "not loaded" not in caplog.text
    assert len(patched.patches) == len(exported) // 3 == {"sd1": 250, "sd2": 250, "sdxl": 767}[family]


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_shipped_configurations_are_those_that_comfyui_finds(family: str) -> None:
    """Two ways to one UNet: the file in configs/, and ComfyUI's own reading of the weights' shapes."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        ours = UNet2DConditionModel(**single_file.configuration(family)["unet"])
    theirs = to_diffusers.unet_from_model(meta_model(family))
    mine, native = ours.state_dict(), theirs.state_dict()
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in native.items()}

    def heads(unet: Any) -> list[int]:
        return [m.heads for name, m in unet.named_modules() if name.endswith(("attn1", "attn2"))]

    assert heads(ours) == heads(theirs) and ours.config.upcast_attention == theirs.config.upcast_attention


@pytest.fixture
def full_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose files of several GB are gone after the test."""
    folder = tmp_path_factory.mktemp("full")
    yield folder
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    gc.collect()


@pytest.mark.long
@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_a_full_checkpoint_is_the_same_inside_and_outside_comfyui(family: str, full_files: Path) -> None:
    path = standins.write(family, full_files)
    model, clip, vae = load(path)
    z = noise(1, 4, 16, 24)
    expected = comfys_answer(model, clip, z, 500, CAPTION)
    inside = to_diffusers.base_model(model, clip, vae)
    assert inside.schedule.prediction == ("v_prediction" if family == "sd2" else "epsilon")
    assert far(answer(inside, z, 500, CAPTION), expected) < 2e-4
    words = inside.embed(CAPTION).hidden
    pixels = noise(1, 3, 64, 64).clamp(-1, 1)
    latents = inside.encode(pixels)[0]
    del model, clip, vae, inside
    gc.collect()
    outside = single_file.load_base(path)
    assert outside.schedule.prediction == ("v_prediction" if family == "sd2" else "epsilon")
    assert far(outside.embed(CAPTION).hidden, words) < 1e-4 and outside.family == family
    assert far(outside.encode(pixels)[0], latents) < 1e-4
    assert far(answer(outside, z, 500, CAPTION), expected) < 2e-4


@pytest.mark.long
def test_diffusers_own_loader_reads_the_same_unet_from_the_full_file(full_files: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    path = standins.write("sd1", full_files)
    with torch.device("meta"):
        UNet2DConditionModel(**single_file.configuration("sd1")["unet"]).save_config(tmp_path)
    theirs = UNet2DConditionModel.from_single_file(str(path), config=str(tmp_path), local_files_only=True)
    weights = single_file._read(path, UNET, torch.float32)
    ours = single_file._unet("sd1", weights).state_dict()
    assert ours.keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours[key], value.float()) for key, value in theirs.state_dict().items())


@pytest.mark.long
def test_a_full_depth_controlnet_gives_comfyuis_own_residuals(full_files: Path) -> None:
    from diffusers import UNet2DConditionModel

    path = standins.write("sd1-depth", full_files)
    control = comfy.controlnet.load_controlnet(str(path))
    with torch.device("meta"):
        unet = UNet2DConditionModel(**single_file.configuration("sd1")["unet"])
    network = load_controlnet(path, SimpleNamespace(unet=unet, dtype=torch.float32))
    z, words, hint = noise(1, 4, 16, 16), noise(1, 77, 768, seed=2), noise(1, 3, 128, 128, seed=3).abs().clamp(0, 1)
    t = torch.tensor([500.0])
    with torch.no_grad():
        theirs = control.control_model(z, hint, t, words)
        down, middle = network(z, t, words, hint, return_dict=False)
    assert max(far(a, b) for a, b in zip(down, theirs["output"], strict=True)) < 1e-4
    assert far(middle, theirs["middle"][0]) < 1e-4
