"""DoRA: it starts as the base model, learns, and ComfyUI's patched weights are the trained ones."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING

import comfy_inprocess as tiny
import pytest
import torch
from toys import toy_unet

comfy = tiny.start()

from comfy_scoft.comfyui import to_diffusers  # noqa: E402  (needs a started ComfyUI)
from comfy_scoft.models.lora import TARGET_MODULES, LoraSettings, attach, export_kohya, layers, switched_off, trainable  # noqa: E402

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


WIDEST = "attention + feed-forward + convolutions"
EACH_TARGET = [pytest.param(name, marks=() if name == WIDEST else pytest.mark.long) for name in TARGET_MODULES]
"""The widest set has the layers of all the others: they are the long tier's."""


def shake(unet: UNet2DConditionModel, size: float = 0.3) -> None:
    """Give every parameter of the LoRA a large value of its own, as if it had long been trained."""
    with torch.no_grad():
        for i, (name, p) in enumerate(trainable(unet).items()):
            noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
            p.copy_(p * (1 + size * noise) if "magnitude" in name else size * noise)


def dora(unet: UNet2DConditionModel, targets: str = WIDEST, dropout: float = 0.0) -> UNet2DConditionModel:
    settings = LoraSettings(rank=2, alpha=3.0, targets=targets, dora=True, dropout=dropout)
    attach(unet, settings, torch.Generator().manual_seed(0))
    return unet


def answer(unet: UNet2DConditionModel, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    z, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 7, 16, generator=generator)
    return unet(z.to(dtype), torch.tensor([10, 900]), text.to(dtype)).sample


def merged(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """The weight that peft's own merge makes of each layer, by kohya key; the UNet stays as it is."""
    found = {}
    for key, module in layers(copy.deepcopy(unet)).items():
        with torch.no_grad():
            module.merge(safe_merge=True)
        found[key] = module.get_base_layer().weight.detach()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_dora_is_the_base_model(dtype: torch.dtype) -> None:
    unet = torch.nn.Module.to(toy_unet(), dtype)
    plain = answer(unet, dtype)
    parameters = trainable(dora(unet))
    assert torch.allclose(answer(unet, dtype), plain, atol=1e-6)
    kinds = {name.split(".lora_")[1].split(".")[0] for name in parameters}
    assert kinds == {"A", "B", "magnitude_vector"} and all(p.dtype == torch.float32 for p in parameters.values())
    for module in layers(unet).values():
        weight = module.get_base_layer().weight.float()
        norms = weight.flatten(1).square().sum(1).sqrt()
        assert torch.allclose(module.lora_magnitude_vector["default"].weight.flatten(), norms, rtol=1e-6)


def test_switched_off_it_is_the_base_model() -> None:
    unet = dora(toy_unet())
    shake(unet)
    on, plain = answer(unet), answer(toy_unet())
    with switched_off(unet):
        assert torch.equal(answer(unet), plain)
    assert torch.equal(answer(unet), on) and (on - plain).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["sd1", "sd2"])  # proj_in and proj_out are convolutions in one, linear in the other
@pytest.mark.parametrize("targets", EACH_TARGET)
def test_comfyuis_patched_weights_are_pefts_merged_ones(
    targets: str, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny.tiny_model(family)
    unet = dora(to_diffusers.unet_from_model(model), targets)
    shake(unet)
    exported, expected = export_kohya(unet, torch.float32), merged(unet)
    assert len(exported) == 4 * len(expected)
    with caplog.at_level(logging.WARNING):
        patched, _ = comfy.sd.load_lora_for_models(model, None, exported, 1.0, 0.0)
    assert "not loaded" not in caplog.text and len(patched.patches) == len(expected)
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    names = {"lora_unet_" + theirs.removesuffix(".weight").replace(".", "_"): own for theirs, own in names.items()}
    base = {key: value.clone() for key, value in model.model.state_dict().items()}
    patched.patch_model()
    weights = {key: value.clone() for key, value in patched.model.state_dict().items()}
    patched.unpatch_model()
    kinds = set()
    for key, weight in expected.items():
        name = f"diffusion_model.{names[key]}"
        kinds.add(weight.ndim)
        assert (weights[name] - weight).abs().max() <= 1e-5
        assert (base[name] - weight).abs().max() > 1e-2, "this trained weight could not be told from the base"
    assert kinds == ({2, 4} if targets == WIDEST else {2})


def test_a_patched_comfyui_answers_as_the_trained_unet() -> None:
    from test_convert import converted, far, inputs, native

    model, given = tiny.tiny_model("sd1"), inputs("sd1")
    plain = native(model, given)
    unet = dora(to_diffusers.unet_from_model(model))
    shake(unet, 0.1)
    patched, _ = comfy.sd.load_lora_for_models(model, None, export_kohya(unet, torch.float32), 1.0, 0.0)
    expected = converted(unet, given)
    patched.patch_model()
    assert far(native(patched, given), expected) < 1e-5 and far(plain, expected) > 1e-2
    patched.unpatch_model()


def test_half_precision_costs_the_delta_a_thousandth_and_the_base_nothing() -> None:
    """fp16 for A and B only: a rounded magnitude would move each whole channel."""
    unet = dora(toy_unet())
    shake(unet, 0.05)
    base = {key: module.get_base_layer().weight.detach() for key, module in layers(unet).items()}
    exported, expected = export_kohya(unet), merged(unet)
    for key, weight in base.items():
        down, up = exported[f"{key}.lora_down.weight"], exported[f"{key}.lora_up.weight"]
        scale, alpha = exported[f"{key}.dora_scale"], float(exported[f"{key}.alpha"])
        assert down.dtype == up.dtype == torch.float16 and scale.dtype == torch.float32
        assert scale.shape == (len(weight), *[1] * (weight.ndim - 1))
        adapter = comfy.weight_adapter.LoRAAdapter(set(), (up, down, alpha, None, scale, None))
        found = adapter.calculate_weight(weight.clone(), key, 1.0, 1.0, None, lambda a: a)
        delta = (expected[key] - weight).abs().max()
        assert (found - expected[key]).abs().max() <= 2e-3 * delta


def test_comfyui_norms_the_base_weight_of_each_output_channel() -> None:
    """By hand: rows (3, 4) and (5, 12) of norms 5 and 13. The day ComfyUI norms W + ΔW, this test says so."""
    weight, delta = torch.tensor([[3.0, 4.0], [5.0, 12.0]]), torch.tensor([[3.0, 4.0], [0.0, -12.0]])
    scale = torch.tensor([[10.0], [26.0]])
    found = comfy.weight_adapter.base.weight_decompose(
        scale, weight, delta.clone(), 1.0, 1.0, torch.float32, lambda a: a
    )
    # twice (6, 8) and twice (5, 0); by ‖W + ΔW‖ = 10 and 5 it would be (6, 8) and (26, 0)
    assert torch.allclose(found, torch.tensor([[12.0, 16.0], [10.0, 0.0]]), rtol=1e-5)


def test_what_is_exported_is_the_one_of_hand_arithmetic() -> None:
    """m ‖W‖ / ‖W + ΔW‖ for W = ((3, 4), (6, 8), …): one linear layer of a toy is given these numbers."""
    unet = dora(toy_unet(), "attention")
    key, module = next(iter(layers(unet).items()))
    with torch.no_grad():
        weight = module.get_base_layer().weight
        weight.zero_()
        weight[:, 0] = 3.0
        weight[:, 1] = 4.0  # norm 5
        down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
        down.zero_()
        up.zero_()
        down[0, 0] = down[1, 1] = 1.0
        up[:, 0], up[:, 1] = 2.0, 8 / 3  # times alpha / rank = 3 / 2: (3, 4), so that the sum is (6, 8), norm 10
        module.lora_magnitude_vector["default"].weight.fill_(7.0)
    scale = export_kohya(unet, torch.float32)[f"{key}.dora_scale"]
    assert torch.allclose(scale, torch.full((len(weight), 1), 7.0 * 5 / 10))
    assert torch.allclose(merged(unet)[key][:, :2], torch.tensor([7.0 * 0.6, 7.0 * 0.8]).expand(len(weight), 2))


@pytest.mark.parametrize("is_dora", [False, True])
@pytest.mark.parametrize("targets", TARGET_MODULES)
def test_a_step_trains_every_part(targets: str, is_dora: bool) -> None:
    from comfy_scoft.training.optimizers import build

    unet = toy_unet()
    parameters = attach(
        unet, LoraSettings(rank=2, alpha=2.0, targets=targets, dora=is_dora), torch.Generator().manual_seed(0)
    )
    optimizer, target = build(parameters, "AdamW", 1e-3, 0.01), torch.zeros(2, 4, 8, 8)
    frozen = {name: p.clone() for name, p in unet.named_parameters() if name not in parameters}
    losses, start = [], {name: p.detach().clone() for name, p in parameters.items()}
    for step in range(4):
        loss = (answer(unet) - target).square().mean()
        loss.backward()
        if step == 1:  # A has no gradient at first, for B is zero
            assert all(p.grad is not None and p.grad.abs().max() > 0 for p in parameters.values())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert not any(torch.equal(p, start[name]) for name, p in parameters.items())
    assert all(torch.equal(p, frozen[name]) for name, p in unet.named_parameters() if name in frozen)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("is_dora", [False, True])
def test_gradients_under_checkpointing_are_those_without(is_dora: bool, dropout: float) -> None:
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        unet, calls = toy_unet(), []
        settings = LoraSettings(rank=2, alpha=3.0, targets=WIDEST, dora=is_dora, dropout=dropout)
        attach(unet, settings, torch.Generator().manual_seed(0))
        shake(unet)
        if checkpointing:
            unet.enable_gradient_checkpointing()
            block = unet.down_blocks[0].resnets[0]
            block.register_forward_pre_hook(lambda *_: calls.append(1))
        torch.manual_seed(5)
        answer(unet).square().mean().backward()
        if checkpointing:
            assert len(calls) == 2, "a checkpointed block is computed again on the way back"
        return {name: p.grad for name, p in trainable(unet).items()}

    plain, saved = gradients(False), gradients(True)
    assert plain.keys() == saved.keys() and len(plain) > 0
    for name in plain:
        assert torch.allclose(plain[name], saved[name], rtol=1e-5, atol=1e-8) and plain[name].abs().max() > 0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["attn2_to_k", "conv1"])
def test_dropout_is_of_the_inputs_and_only_where_a_graph_is_recorded(kind: str, training: bool) -> None:
    """y = base(x) + (m/n - 1) W x' + (m/n) s B A x', with x' the dropped inputs, whatever mode the UNet is in."""
    unet = dora(toy_unet(), dropout=0.5).train(training)
    shake(unet)
    key, module = next((k, m) for k, m in layers(unet).items() if k.endswith(kind))
    base, generator = module.get_base_layer(), torch.Generator().manual_seed(4)
    x = torch.randn((2, 5, 16) if kind == "attn2_to_k" else (2, base.in_channels, 6, 6), generator=generator)
    torch.manual_seed(11)
    found = module(x)
    torch.manual_seed(11)
    dropped = torch.nn.functional.dropout(x, 0.5, training=True)
    changed = copy.deepcopy(base)
    changed.weight.data = merged(unet)[key] - base.weight
    changed.bias = None
    with torch.no_grad():
        expected = base(x) + changed(dropped)
        assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(found, base(x) + changed(x), atol=1e-2)
        assert torch.allclose(module(x), base(x) + changed(x), atol=1e-5)


def test_a_base_model_with_an_empty_channel_is_refused() -> None:
    unet = toy_unet()
    unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight.data[3] = 0.0
    with pytest.raises(ValueError, match="attn1_to_q has an output channel of zeros, .*; switch dora off"):
        dora(unet, "attention")
