"""A person's own checkpoint file without ComfyUI: the same model, the same words, the same LoRA to the bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import small_models
import standins
import torch
from safetensors.torch import load_file, save_file
from sd_answers import CAPTION, FAMILIES, answer, comfys_answer, far, graph_node, load, noise
from toys import toy_run

from comfy_scoft.comfyui import to_diffusers
from comfy_scoft.losses import DiffusionLoss, MemorizationLoss
from comfy_scoft.models import placement, single_file, text_encoder
from comfy_scoft.models.noise_schedule import NoiseSchedule
from comfy_scoft.models.text_encoder import LongCaptions
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


LONG = "an old house by the river in nuvia, with a red door, " * 12
"""More than 75 tokens."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_caption_is_what_comfyuis_own_clip_text_encode_makes_of_it(
    family: str, loaded: dict, models: Path, small_sizes: None
) -> None:
    model, clip, vae = loaded[family]
    inside = to_diffusers.base_model(model, clip, vae, family)
    outside = single_file.load_base(models / "checkpoints" / standins.FILES[family][1])
    for caption, windows in (("word " * 75, 1), ("word " * 76, 2), (LONG, 3), ("extraordinary" * 90, 3)):
        ((hidden, more),) = graph_node("CLIPTextEncode")(clip=clip, text=caption)[0]
        ours, theirs = inside.embed(caption), outside.embed(caption)
        assert ours.hidden.shape[1] == 77 * windows and torch.equal(ours.hidden, hidden)
        assert far(theirs.hidden, hidden) < 1e-4
        if family == "sdxl":
            assert torch.equal(ours.pooled, more["pooled_output"]) and far(theirs.pooled, more["pooled_output"]) < 1e-4
    z = noise(1, 4, 16, 16)
    assert far(answer(inside, z, 500, LONG), comfys_answer(model, clip, z, 500, LONG)) < 1e-3
    cut = to_diffusers.base_model(model, clip, vae, family, LongCaptions.FIRST).embed(LONG)
    assert cut.hidden.shape[1] == 77 and far(cut.hidden, inside.embed(LONG).hidden[:, :77]) < 1e-5


def test_a_long_caption_is_read_by_the_encoder_of_sd_2_as_comfyui_reads_it() -> None:
    import comfy.text_encoders.sd2_clip as sd2
    import comfy.utils

    config = {**small_models.CLIP_G, "hidden_size": 64, "projection_dim": 64}
    shapes = standins._open_clip(config)
    weights = {name: standins.drawn(name, shape, torch.float32) for name, shape in shapes.items()}
    encoder = sd2.SD2ClipModel(dtype=torch.float32, model_options={"clip_h_model_config": config})
    encoder.load_sd(comfy.utils.clip_text_transformers_convert({f"x.{k}": v for k, v in weights.items()}, "x.", ""))
    with torch.no_grad():
        hidden, _ = encoder.encode_token_weights(sd2.SD2Tokenizer().tokenize_with_weights(LONG))
    (part,) = single_file.configuration("sd2")["text"]
    part["config"] |= {name: value for name, value in config.items() if name in part["config"]}
    found = text_encoder.embedder([part], lambda prefix: dict(weights), "")(LONG)
    assert found.hidden.shape[1] == 77 * 3 and far(found.hidden, hidden) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.long
def test_a_job_that_names_the_file_trains_the_same_lora_outside_comfyui(
    family: str, loaded: dict, models: Path, small_sizes: None, tmp_path: Path
) -> None:
    base = to_diffusers.base_model(*loaded[family], family)
    for module in (base.unet, base.vae):  # as training does: to where a file's weights lie in memory too
        placement.to_device(module, torch.device("cpu"), torch.float32)
    run = toy_run(tmp_path, [DiffusionLoss(), MemorizationLoss()], base=base, steps=2)
    first, *others = run.dataset.records
    run.dataset = run.dataset.replace([dataclasses.replace(first, caption=LONG), *others])
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
