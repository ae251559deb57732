"""A person's own checkpoint file without ComfyUI: the same model, the same words, the same LoRA to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import small_models
import standins
import torch
from safetensors.torch import load_file, save_file
from sd_answers import CAPTION, FAMILIES, answer, far, load, noise
from toys import toy_run

from comfy_scoft.comfyui import to_diffusers
from comfy_scoft.losses import DiffusionLoss, MemorizationLoss
from comfy_scoft.models import placement, single_file
from comfy_scoft.models.noise_schedule import NoiseSchedule
from comfy_scoft.training.job import read_job, run_job, write_job
from comfy_scoft.training.trainer import train


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def loaded(models: Path) -> dict[str, tuple]:
    """MODEL, CLIP and VAE of the small stand-ins, from ComfyUI's own checkpoint loader."""
    return {family: load(standins.write(family, models, "small")) for family in FAMILIES}


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configurations of `configs/`, with the widths of the small stand-ins."""
    real = single_file.configuration

    def small(family: str) -> dict[str, Any]:
        found = real(family)
        if family not in FAMILIES:
            return found
        sizes = small_models.SMALL[family]
        found["unet"] |= {"cross_attention_dim": sizes["context_dim"]}
        found["unet"]["block_out_channels"] = [sizes["model_channels"] * m for m in sizes["channel_mult"]]
        if family == "sdxl":
            found["unet"] |= {"transformer_layers_per_block": [1, 2, 3], "attention_head_dim": [1, 2, 4]}
            found["unet"]["projection_class_embeddings_input_dim"] = sizes["adm_in_channels"]
        for part, text in zip(found["text"], (small_models.CLIP_L, small_models.CLIP_G), strict=False):
            part["config"] |= {k: v for k, v in text.items() if k in part["config"]}
        return found

    monkeypatch.setattr(single_file, "configuration", small)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_gives_the_same_model_without_comfyui(
    family: str, loaded: dict, models: Path, small_sizes: None
) -> None:
    inside = to_diffusers.base_model(*loaded[family], family)
    outside = single_file.load_base(models / "checkpoints" / standins.FILES[family][1])
    assert outside.family == family and outside.vae_scaling == inside.vae_scaling
    assert torch.equal(outside.schedule.alphas_cumprod, inside.schedule.alphas_cumprod)
    for part in ("unet", "vae"):
        ours, theirs = getattr(outside, part).state_dict(), getattr(inside, part).state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    for caption in ("", CAPTION, "An  ELF,\nin Nuvia's house!", "word " * 100):
        mine, native = outside.embed(caption), inside.embed(caption)
        assert far(mine.hidden, native.hidden) < 1e-4
        assert (mine.pooled is None) == (native.pooled is None) == (family == "sd1")
        if mine.pooled is not None:
            assert far(mine.pooled, native.pooled) < 1e-4
    z = noise(1, 4, 16, 16)
    assert far(answer(outside, z, 500, CAPTION), answer(inside, z, 500, CAPTION)) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.long
def test_a_job_that_names_the_file_trains_the_same_lora_outside_comfyui(
    family: str, loaded: dict, models: Path, small_sizes: None, tmp_path: Path
) -> None:
    base = to_diffusers.base_model(*loaded[family], family)
    for module in (base.unet, base.vae):  # as training does: to where a file's weights lie in memory too
        placement.to_device(module, torch.device("cpu"), torch.float32)
    run = toy_run(tmp_path, [DiffusionLoss(), MemorizationLoss()], base=base, steps=2)
    path = write_job(run, tmp_path / "named", models / "checkpoints" / standins.FILES[family][1])
    here = train(run).lora
    there = run_job(read_job(path), tmp_path / "again", models=models)[1].lora
    assert here.keys() == there.keys() and any(here[key].any() for key in here if "up" in key)
    assert all(torch.equal(here[key], there[key]) for key in here)


@pytest.mark.long
def test_text_encoders_are_read_when_a_caption_is_asked_for(models: Path, small_sizes: None, tmp_path: Path) -> None:
    weights = load_file(standins.write("sdxl", models, "small"))
    lacking = {k: v for k, v in weights.items() if not k.endswith("ln_final.weight")}
    save_file(lacking, tmp_path / "lacking.safetensors")
    base = single_file.load_base(tmp_path / "lacking.safetensors")
    with pytest.raises(ValueError, match="The weights of the text encoder do not fit: 'ln_final.weight' is missing"):
        base.embed(CAPTION)


@pytest.mark.parametrize("marks", [(), ("v_pred",), ("v_pred", "ztsnr")])
@pytest.mark.long
def test_what_a_file_says_of_its_prediction_is_followed(
    marks: tuple[str, ...], models: Path, small_sizes: None, tmp_path: Path
) -> None:
    weights = load_file(standins.write("sdxl", models, "small"))
    path = tmp_path / "marked.safetensors"
    save_file(weights | {mark: torch.tensor([]) for mark in marks}, path)
    outside, inside = single_file.load_base(path).schedule, to_diffusers.schedule_from_model(load(path)[0])
    assert outside.prediction == inside.prediction == ("v_prediction" if marks else "epsilon")
    assert torch.allclose(outside.alphas_cumprod, inside.alphas_cumprod, rtol=1e-4, atol=1e-12)
    assert (outside.alphas_cumprod[-1] < 1e-6) == ("ztsnr" in marks)
    assert single_file.load_base(path, "epsilon").schedule.prediction == "epsilon"


def test_zero_terminal_noise_by_hand() -> None:
    """√ᾱ = .9, .5, .1 moved to .8, .4, 0 and stretched by 9/8: .9, .45, 0."""
    found = single_file.zero_terminal(NoiseSchedule(torch.tensor([0.81, 0.25, 0.01]), "v_prediction"))
    assert torch.allclose(found.alphas_cumprod, torch.tensor([0.81, 0.2025, 0.0], dtype=torch.float64), atol=1e-6)
    assert found.prediction == "v_prediction" and found.alphas_cumprod[-1] > 0
