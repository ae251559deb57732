"""A person's own Stable Diffusion in a graph: the numbers of ComfyUI's own sampling code, or one sentence.

The files are stand-ins: real names and structure, random weights, a fraction of the real width.
"""

from __future__ import annotations

import logging
from pathlib import Path

import comfy_inprocess as tiny
import pytest
import small_models
import standins
import torch
from safetensors.torch import load_file, save_file
from sd_answers import CAPTION, FAMILIES, UNET, answer, comfy, comfys_answer, far, graph_node, load, noise

from comfy_scoft.comfyui import to_diffusers
from comfy_scoft.models import placement, single_file


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def loaded(models: Path) -> dict[str, tuple]:
    """MODEL, CLIP and VAE of the small stand-ins, from ComfyUI's own checkpoint loader."""
    return {family: load(standins.write(family, models, "small")) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_answers_as_it_does_in_comfyuis_own_sampler(family: str, loaded: dict) -> None:
    """Text, pooled text and sizes included; the image is not square, so that no size can stand for another."""
    model, clip, vae = loaded[family]
    base = to_diffusers.base_model(model, clip, vae, family)
    assert base.family == family and base.vae_scaling == {"sd1": 0.18215, "sdxl": 0.13025}[family]
    z = noise(2, 4, 16, 24)
    for t in (3, 500, 999):
        assert far(answer(base, z, t, CAPTION), comfys_answer(model, clip, z, t, CAPTION)) < 2e-4
    if family == "sdxl":
        plain = base._added_conditions
        swapped = {"text_embeds": plain([base.embed(CAPTION)] * 2, z)["text_embeds"]}
        swapped["time_ids"] = torch.tensor([[192.0, 128.0, 0, 0, 192.0, 128.0]]).expand(2, -1)
        with torch.no_grad():
            hidden = base.embed(CAPTION).hidden.expand(2, -1, -1)
            other = base.unet(z, 500, hidden, added_cond_kwargs=swapped, return_dict=False)[0]
        assert far(other, comfys_answer(model, clip, z, 500, CAPTION)) > 1e-3  # the comparison sees a wrong size


@pytest.mark.parametrize("height, width", [(1024, 1024), (1016, 1288), (2056, 520)])
@pytest.mark.long
def test_sizes_reach_sd_xl_exactly_in_half_precision_too(loaded: dict, height: int, width: int) -> None:
    """ComfyUI embeds them in float32; 1288 has no place in bfloat16."""
    model, clip, vae = loaded["sdxl"]
    base = to_diffusers.base_model(model, clip, vae)
    base.unet = base.unet.to(torch.bfloat16)
    z = torch.zeros(1, 4, height // 8, width // 8)
    given = base._added_conditions([base.embed("")], z)
    ours = base.unet.add_time_proj(given["time_ids"].flatten()).reshape(1, -1)
    theirs = model.model.encode_adm(pooled_output=torch.zeros(1, 48), height=height, width=width)[:, 48:]
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.long
def test_a_checkpoints_vae_gives_comfyuis_own_latents_and_pictures(family: str, loaded: dict) -> None:
    model, clip, vae = loaded[family]
    base = to_diffusers.base_model(model, clip, vae)
    pixels = noise(1, 3, 64, 64).clamp(-1, 1)
    mean, std = base.encode(pixels)
    raw = vae.encode(pixels.movedim(1, -1) / 2 + 0.5)
    assert far(mean, model.model.process_latent_in(raw)) < 1e-4 and (std > 0).all()
    theirs = vae.decode(raw).movedim(-1, 1) * 2 - 1
    with torch.no_grad():
        assert far(base.decode(mean).clamp(-1, 1), theirs) < 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.long
def test_a_persons_lora_is_honoured_in_the_unet_and_in_the_text(
    family: str, loaded: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, clip, vae = loaded[family]
    width = small_models.SMALL[family]["model_channels"] * 4
    text = "lora_te1_text_model" if family == "sdxl" else "lora_te_text_model"
    found = {}
    for place, sizes in (
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", (width, width)),
        ("lora_unet_mid_block_resnets_0_conv1", (width, width, 3, 3)),
        (f"{text}_encoder_layers_0_self_attn_q_proj", (64, 64)),
    ):
        found[f"{place}.lora_up.weight"] = noise(sizes[0], 4, *[1] * (len(sizes) - 2), seed=2)
        found[f"{place}.lora_down.weight"] = noise(4, sizes[1], *sizes[2:], seed=3) / 8
    with caplog.at_level(logging.WARNING):
        patched, worded = comfy.sd.load_lora_for_models(model, clip, found, 0.7, 0.9)
    assert "not loaded" not in caplog.text
    z = noise(1, 4, 16, 16)
    ours = answer(to_diffusers.base_model(patched, worded, vae), z, 500, CAPTION)
    assert far(ours, comfys_answer(patched, worded, z, 500, CAPTION)) < 2e-4
    plain = to_diffusers.base_model(model, clip, vae)
    assert far(answer(plain, z, 500, CAPTION), ours) > 1e-3
    assert far(plain.embed(CAPTION).hidden, to_diffusers.base_model(model, worded, vae).embed(CAPTION).hidden) > 1e-3


@pytest.mark.long
def test_a_merge_of_two_models_is_honoured(loaded: dict, models: Path, tmp_path: Path) -> None:
    model, clip, vae = loaded["sd1"]
    weights = load_file(models / "checkpoints" / standins.FILES["sd1"][1])
    other = {k: v.roll(1, 0) if v.ndim > 1 else v for k, v in weights.items() if k.startswith(UNET)}
    save_file(other, tmp_path / "other.safetensors")
    second = load(tmp_path / "other.safetensors")[0]
    merge = graph_node("ModelMergeBlocks", "comfy_extras.nodes_model_merging")
    merged = merge(model1=model, model2=second, input=1.0, middle=0.5, out=0.1)[0]
    z = noise(1, 4, 16, 16)
    ours = answer(to_diffusers.base_model(merged, clip, vae), z, 500, CAPTION)
    assert far(ours, comfys_answer(merged, clip, z, 500, CAPTION)) < 2e-4
    assert far(ours, answer(to_diffusers.base_model(model, clip, vae), z, 500, CAPTION)) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("zsnr", [False, True])
@pytest.mark.long
def test_a_model_sampling_node_is_honoured(family: str, zsnr: bool, loaded: dict) -> None:
    model, clip, vae = loaded[family]
    patch = graph_node("ModelSamplingDiscrete", "comfy_extras.nodes_model_advanced")
    changed = patch(model=model, sampling="v_prediction", zsnr=zsnr)[0]
    base = to_diffusers.base_model(changed, clip, vae)
    assert base.schedule.prediction == "v_prediction"
    sigmas = changed.get_model_object("model_sampling").sigmas.double()
    assert torch.allclose(base.schedule.alphas_cumprod, 1 / (sigmas**2 + 1), rtol=1e-5, atol=0)
    assert (base.schedule.alphas_cumprod[-1] < 1e-6) == zsnr
    z = noise(1, 4, 16, 16)
    for t in (10, 500, 900):
        assert far(answer(base, z, t, CAPTION), comfys_answer(changed, clip, z, t, CAPTION)) < 1e-3
    assert to_diffusers.base_model(model, clip, vae).schedule.prediction == "epsilon"


@pytest.mark.parametrize("sampling", ["lcm", "x0", "img_to_img"])
def test_sampling_that_is_neither_noise_nor_v_is_refused(sampling: str, loaded: dict) -> None:
    patch = graph_node("ModelSamplingDiscrete", "comfy_extras.nodes_model_advanced")
    changed = patch(model=loaded["sd1"][0], sampling=sampling, zsnr=False)[0]
    with pytest.raises(ValueError, match="not with noise or v prediction"):
        to_diffusers.schedule_from_model(changed)


@pytest.mark.parametrize(
    "name, words", [("sd1-inpainting", "9 channels, as inpainting"), ("sd3", "is a SD3 and cannot")]
)
@pytest.mark.long
def test_a_file_of_another_kind_is_refused_in_a_sentence(name: str, words: str, models: Path) -> None:
    path = standins.write(name, models, "small")
    with pytest.raises(ValueError, match=words) as told:
        to_diffusers.base_model(*load(path))
    assert str(told.value).count("\n") == 0
    with pytest.raises(ValueError, match="give a Stable Diffusion 1.x, 2.x or XL checkpoint"):
        single_file.load_base(path)


def test_the_refiner_is_refused_in_a_sentence(tmp_path: Path) -> None:
    sizes = {"model_channels": 384, "channel_mult": [1, 2, 4, 4], "context_dim": 1280, "adm_in_channels": 2560}
    sizes |= {"transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0], "transformer_depth_middle": 4}
    sizes |= {"transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0]}
    sizes |= {"num_res_blocks": [2] * 4, "use_linear_in_transformer": True}
    config = comfy.supported_models.SDXLRefiner(standins.unet_config(sizes, "sdxl"))
    model = config.get_model({}, "", device=torch.device("meta"))
    cpu = torch.device("cpu")
    with pytest.raises(ValueError, match="is a SDXLRefiner and cannot be trained here"):
        to_diffusers.unet_from_model(comfy.model_patcher.ModelPatcher(model, cpu, cpu))
    some = {
        UNET + "input_blocks.0.0.weight": torch.zeros(384, 4, 3, 3),
        UNET + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(8, 1280),
        UNET + "label_emb.0.0.weight": torch.zeros(8, 2560),
        "first_stage_model.x": torch.zeros(1),
        "conditioner.embedders.0.x": torch.zeros(1),
    }
    save_file(some, tmp_path / "refiner.safetensors")
    with pytest.raises(ValueError, match="is the refiner of Stable Diffusion XL"):
        single_file.load_base(tmp_path / "refiner.safetensors")


def test_parts_that_a_file_lacks_are_refused_in_a_sentence(loaded: dict, models: Path, tmp_path: Path) -> None:
    """A file with a UNet alone, as ComfyUI loads it: no CLIP, and a VAE that only raises."""
    weights = load_file(models / "checkpoints" / standins.FILES["sd1"][1])
    save_file({k: v for k, v in weights.items() if k.startswith(UNET)}, tmp_path / "unet.safetensors")
    model, clip, vae = load(tmp_path / "unet.safetensors")
    assert clip is None
    with pytest.raises(ValueError, match="There is no CLIP"):
        to_diffusers.base_model(model, clip, loaded["sd1"][2])
    with pytest.raises(ValueError, match="This VAE holds no weights"):
        to_diffusers.base_model(model, loaded["sd1"][1], vae)
    with pytest.raises(ValueError, match="connect MODEL and CLIP of the same checkpoint"):
        to_diffusers.base_model(model, loaded["sdxl"][1], loaded["sd1"][2]).embed(CAPTION)


def test_a_vae_that_overflows_in_half_precision_trains_and_draws_in_single(loaded: dict) -> None:
    """The published VAE of SD XL has activations beyond 65504: in float16 it draws nothing but NaN."""
    model, clip, _ = loaded["sdxl"]
    base = to_diffusers.base_model(model, clip, tiny.tiny_vae())
    for layer in (base.vae.encoder.conv_in, base.vae.decoder.conv_in):
        layer.weight.data = layer.weight.data * 2e4
    pixels = noise(1, 3, 32, 32).clamp(-1, 1)
    mean, _ = base.encode(pixels)
    half = base.vae.half()
    with torch.no_grad():
        assert all(torch.isfinite(weight).all() for weight in half.parameters())
        assert not torch.isfinite(half.encode(pixels.half()).latent_dist.mean).all()
    placement.to_device(base.vae, torch.device("cpu"), torch.float32)  # what training does before it encodes
    again, _ = base.encode(pixels)
    assert torch.isfinite(again).all() and far(again, mean) < 1e-2
    for kind in (torch.bfloat16, torch.float16):
        leaf = again.clone().requires_grad_()
        with torch.autocast("cpu", kind):
            assert torch.isfinite(base.encode(pixels)[0]).all()
            image = base.decode(leaf)
        image.square().mean().backward()
        assert torch.isfinite(image).all() and torch.isfinite(leaf.grad).all() and leaf.grad.abs().sum() > 0
