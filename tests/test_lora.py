"""The LoRA: where it is attached, how it starts, and that every loader gets exactly what was trained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from toys import toy_unet

from comfy_scoft.models.lora import TARGET_MODULES, LoraSettings, apply, attach, export_kohya, switched_off, trainable

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def trained_unet(targets: str, seed: int = 0, alpha: float = 3.0) -> UNet2DConditionModel:
    unet = toy_unet()
    parameters = attach(unet, LoraSettings(rank=2, alpha=alpha, targets=targets), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for i, p in enumerate(parameters.values()):
            p.copy_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return unet


def answer(unet: UNet2DConditionModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    z, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 7, 16, generator=generator)
    with torch.no_grad():
        return unet(z, torch.tensor([10, 900]), text).sample


def stable_diffusion(targets: str) -> UNet2DConditionModel:
    """SD 1.5's UNet in its full shape on the meta device, with a LoRA of rank 1 whose few numbers are real."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64,
            in_channels=4,
            out_channels=4,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            attention_head_dim=8,
            cross_attention_dim=768,
        )
        attach(unet, LoraSettings(rank=1, alpha=1.0, targets=targets), torch.Generator())
    for name, module in unet.named_modules():
        if name.endswith((".lora_A", ".lora_B")):
            module.to_empty(device="cpu")
    return unet


@pytest.mark.parametrize(
    "targets, count",
    [
        # 16 transformer blocks of two attentions of four projections
        ("attention", 16 * 2 * 4),
        # and of two linear layers each
        ("attention + feed-forward", 16 * (2 * 4 + 2)),
        # and proj_in, proj_out of 16 transformers, two convolutions of 22 residual blocks, 2 + 12 shortcuts
        ("attention + feed-forward + convolutions", 16 * (2 * 4 + 2) + 16 * 2 + 22 * 2 + 14),
        # one attention to the text, two projections
        ("cross-attention K + V", 16 * 2),
    ],
)
def test_keys_are_kohyas_on_stable_diffusions_unet(targets: str, count: int) -> None:
    unet = stable_diffusion(targets)
    exported = export_kohya(unet)
    modules = {key.split(".")[0] for key in exported}
    assert len(modules) == count and len(exported) == 3 * count
    for module in modules:
        kinds = {key.split(".", 1)[1] for key in exported if key.split(".")[0] == module}
        assert kinds == {"lora_down.weight", "lora_up.weight", "alpha"}
    attentions = {m for m in modules if "_attn" in m}
    assert len(attentions) == min(count, 128)
    place = r"(down_blocks_[012]_attentions_[01]|mid_block_attentions_0|up_blocks_[123]_attentions_[012])"
    form = rf"lora_unet_{place}_transformer_blocks_0_attn[12]_to_(q|k|v|out_0)"
    assert all(re.fullmatch(form, module) for module in attentions)
    mid = "lora_unet_mid_block_attentions_0_transformer_blocks_0"
    if count < 128:
        assert all(re.search("_attn2_to_(k|v)$", module) for module in attentions) and f"{mid}_attn2_to_v" in attentions
    else:
        assert f"{mid}_attn2_to_out_0" in attentions
    if targets.endswith("convolutions"):
        assert {"lora_unet_down_blocks_0_resnets_0_conv1", "lora_unet_up_blocks_3_resnets_2_conv_shortcut"} <= modules
        assert exported["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"].shape == (1, 320, 3, 3)


@pytest.mark.parametrize("targets", TARGET_MODULES)
@pytest.mark.parametrize("alpha", [3.0, 0.1])
def test_the_exported_delta_is_pefts_own(targets: str, alpha: float) -> None:
    unet = trained_unet(targets, alpha=alpha)
    exported, worst, seen = export_kohya(unet, torch.float32), 0.0, 0
    for path, module in unet.named_modules():
        if not hasattr(module, "get_delta_weight"):
            continue
        key = "lora_unet_" + path.replace(".", "_")
        down, up = exported[f"{key}.lora_down.weight"], exported[f"{key}.lora_up.weight"]
        assert exported[f"{key}.alpha"].item() == pytest.approx(alpha, rel=1e-7)
        delta = exported[f"{key}.alpha"] / len(down) * up.flatten(1) @ down.flatten(1)
        own = module.get_delta_weight("default").detach()
        worst = max(worst, float((delta.view(own.shape) - own).abs().max()))
        seen += 1
    assert seen == len(exported) // 3 > 0 and worst <= 3e-7


def test_half_precision_is_the_default_and_alpha_is_not_rounded() -> None:
    unet = trained_unet("attention", alpha=0.1)
    exact = export_kohya(unet, torch.float32)
    for key, value in export_kohya(unet).items():
        assert value.dtype == (torch.float32 if key.endswith("alpha") else torch.float16)
        assert torch.allclose(value.float(), exact[key], rtol=1e-3, atol=1e-6) and value.device.type == "cpu"


def test_an_export_is_a_copy() -> None:
    unet = trained_unet("attention")
    exported = export_kohya(unet, torch.float32)
    before = {k: v.clone() for k, v in exported.items()}
    with torch.no_grad():
        for p in trainable(unet).values():
            p.add_(1.0)
    assert all(torch.equal(exported[k], before[k]) for k in before)


@pytest.mark.parametrize("targets", TARGET_MODULES)
def test_diffusers_loads_the_file_and_answers_as_the_trained_unet(targets: str, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import save_file

    unet, fresh = trained_unet(targets), toy_unet()
    plain = answer(fresh)
    save_file(export_kohya(unet, torch.float32), tmp_path / "lora.safetensors")
    state, alphas = StableDiffusionPipeline.lora_state_dict(str(tmp_path / "lora.safetensors"), unet_config=None)
    StableDiffusionPipeline.load_lora_into_unet(state, network_alphas=alphas, unet=fresh)
    assert (answer(unet) - plain).abs().max() > 1e-2
    assert torch.allclose(answer(fresh), answer(unet), atol=1e-5)


@pytest.mark.parametrize("targets", TARGET_MODULES)
def test_added_to_the_weights_as_loaders_do_it_gives_the_trained_unet(targets: str) -> None:
    """ComfyUI, A1111 and kohya add alpha / rank · up @ down to the weight of the module that the key names."""
    unet, fresh = trained_unet(targets), toy_unet()
    exported = export_kohya(unet, torch.float32)
    names = {name.removesuffix(".weight").replace(".", "_"): name for name in fresh.state_dict()}
    weights = fresh.state_dict()
    for key in {k.split(".")[0] for k in exported}:
        down, up, alpha = (exported[f"{key}.{part}"] for part in ("lora_down.weight", "lora_up.weight", "alpha"))
        weight = weights[names[key.removeprefix("lora_unet_")]]
        weight += (alpha / down.shape[0] * up.flatten(1) @ down.flatten(1)).view(weight.shape)
    fresh.load_state_dict(weights)
    assert torch.allclose(answer(fresh), answer(unet), atol=2e-5)


def test_a_fresh_lora_changes_nothing_and_its_start_is_the_generators() -> None:
    unet = toy_unet()
    plain = answer(unet)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    parameters = attach(unet, LoraSettings(rank=4, alpha=4.0), torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.allclose(answer(unet), plain, atol=1e-6)
    again = attach(toy_unet(), LoraSettings(rank=4, alpha=4.0), torch.Generator().manual_seed(1))
    other = attach(toy_unet(), LoraSettings(rank=4, alpha=4.0), torch.Generator().manual_seed(2))
    downs = [name for name in parameters if "lora_A" in name]
    assert all(torch.equal(parameters[n], again[n]) for n in parameters)
    assert not any(torch.equal(parameters[n], other[n]) for n in downs)
    assert torch.cat([parameters[n].detach().flatten() for n in downs]).std().item() == pytest.approx(0.25, rel=0.1)
    assert not any(parameters[n].any() for n in parameters if "lora_B" in n)


def test_only_the_lora_is_trainable_and_it_is_fp32_on_a_half_precision_base() -> None:
    unet = nn.Module.to(toy_unet(), torch.bfloat16)
    parameters = attach(unet, LoraSettings(rank=2, alpha=2.0), torch.Generator())
    assert all(p.dtype == torch.float32 for p in parameters.values())
    assert {n for n, p in unet.named_parameters() if p.requires_grad} == set(parameters)
    assert all("lora_" in name for name in parameters)
    assert unet.conv_in.weight.dtype == torch.bfloat16


def test_attaching_again_starts_anew() -> None:
    unet = trained_unet("attention + feed-forward")
    parameters = attach(unet, LoraSettings(rank=3, alpha=3.0), torch.Generator().manual_seed(1))
    once = attach(toy_unet(), LoraSettings(rank=3, alpha=3.0), torch.Generator().manual_seed(1))
    assert parameters.keys() == once.keys() and all(torch.equal(parameters[n], once[n]) for n in once)
    assert torch.allclose(answer(unet), answer(toy_unet()), atol=1e-6)


def test_switched_off_it_is_the_base_model_and_afterwards_it_learns_again() -> None:
    unet = trained_unet("attention")
    on = answer(unet)
    with switched_off(unet):
        assert torch.equal(answer(unet), answer(toy_unet()))
    assert torch.equal(answer(unet), on) and all(p.requires_grad for p in trainable(unet).values())
    assert len(trainable(unet)) == len(export_kohya(unet)) // 3 * 2
    with pytest.raises(RuntimeError, match="stop"), switched_off(unet):
        raise RuntimeError("stop")
    assert torch.equal(answer(unet), on)


@pytest.mark.parametrize("targets", TARGET_MODULES)
@pytest.mark.parametrize("strength", [1.0, 0.5, -2.0])
def test_a_file_on_a_unet_adds_its_delta_times_the_strength(targets: str, strength: float, tmp_path: Path) -> None:
    """By hand: W + strength · alpha / rank · up · down, of alpha 3 and rank 2; switched off, W."""
    tensors = export_kohya(trained_unet(targets), torch.float32)
    save_file(tensors, tmp_path / "one.safetensors")
    unet, expected = toy_unet(), toy_unet()
    with torch.no_grad():
        for name, module in expected.named_modules():
            key = f"lora_unet_{name.replace('.', '_')}"
            if f"{key}.alpha" in tensors:
                up, down = (tensors[f"{key}.lora_{half}.weight"].flatten(1) for half in ("up", "down"))
                module.weight += strength * 1.5 * (up @ down).view(module.weight.shape)
    apply(unet, tmp_path / "one.safetensors", strength)
    assert torch.allclose(answer(unet), answer(expected), atol=1e-4)
    with switched_off(unet):
        assert torch.allclose(answer(unet), answer(toy_unet()), atol=1e-6)


def test_a_file_that_is_no_lora_of_this_unet_is_not_put_on_it(tmp_path: Path) -> None:
    tensors = export_kohya(trained_unet("attention"))
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    key = next(iter(tensors)).partition(".")[0]
    save_file(
        {**tensors, f"{key}.dora_scale": torch.ones(len(tensors[f"{key}.lora_up.weight"]), 1)},
        tmp_path / "dora.safetensors",
    )
    other = {k.replace(key, "lora_unet_elsewhere_to_q"): v for k, v in tensors.items() if k.startswith(f"{key}.")}
    save_file(other, tmp_path / "other.safetensors")
    for name, strength, sentence in (
        ("bad", 1.0, "cannot be read as a safetensors file"),
        ("dora", 0.5, "is a DoRA, whose strength must be 1 here, but it is 0.5"),
        ("other", 1.0, "it was made for another model family"),
    ):
        with pytest.raises(ValueError, match=sentence):
            apply(toy_unet(), tmp_path / f"{name}.safetensors", strength)


def test_bad_options_are_refused() -> None:
    for options, word in (
        ({"rank": 0}, "rank"),
        ({"alpha": 0.0}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"targets": "x"}, "targets"),
    ):
        with pytest.raises(ValueError, match=word):
            LoraSettings(**options)


def test_the_settings_are_plain_json() -> None:
    from dataclasses import asdict

    assert LoraSettings(**json.loads(json.dumps(asdict(LoraSettings())))) == LoraSettings()
