"""Native sockets -> diffusers modules: the same numbers as ComfyUI's own forward, on the same storage."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import comfy_inprocess as tiny
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

comfy = tiny.start()

from comfy_scoft.comfyui import runtime, to_diffusers  # noqa: E402  (needs a started ComfyUI)
from comfy_scoft.models.noise_schedule import NoiseSchedule  # noqa: E402
from comfy_scoft.negatives.controlnet_pipeline import load_controlnet  # noqa: E402

FAMILIES = ("sd1", "sd2", "sdxl")


def far(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest value."""
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


def inputs(family: str) -> dict[str, Tensor | None]:
    noise = torch.Generator().manual_seed(1)
    found: dict[str, Tensor | None] = {
        "x": torch.randn(2, 4, 16, 16, generator=noise),
        "t": torch.tensor([3.0, 801.0]),
        "context": torch.randn(2, 77, tiny.UNETS[family]["context_dim"], generator=noise),
        "y": None,
        "pooled": torch.randn(2, 8, generator=noise),
        "sizes": torch.tensor([[128, 128, 0, 0, 128, 128]]).expand(2, -1),
    }
    if family not in ("sd1", "sd2"):
        from diffusers.models.embeddings import get_timestep_embedding

        sizes = get_timestep_embedding(found["sizes"].flatten(), 256, flip_sin_to_cos=True, downscale_freq_shift=0)
        found["y"] = torch.cat([found["pooled"], sizes.reshape(2, -1)], dim=1)
    return found


def native(model, given) -> Tensor:
    extra = {} if given["y"] is None else {"y": given["y"]}
    with torch.no_grad():
        return model.model.diffusion_model(given["x"], given["t"], context=given["context"], **extra)


def converted(unet, given) -> Tensor:
    added = {"text_embeds": given["pooled"], "time_ids": given["sizes"]}
    with torch.no_grad():
        return unet(given["x"], given["t"], given["context"], added_cond_kwargs=added, return_dict=False)[0]


@pytest.mark.parametrize("family", [*FAMILIES, "ssd", "koala"])
def test_unet_gives_comfyuis_own_numbers_from_the_same_storage(family: str) -> None:
    model = tiny.tiny_model(family)
    unet, given = to_diffusers.unet_from_model(model), inputs(family)
    assert far(converted(unet, given), native(model, given)) < 1e-5
    theirs = {v.data_ptr() for v in model.model.diffusion_model.state_dict().values()}
    ours = {v.data_ptr() for v in unet.state_dict().values()}
    assert ours == theirs
    assert not any(p.requires_grad for p in unet.parameters()) and not unet.training


def test_weights_born_in_inference_mode_can_be_trained_and_stay_as_they_are() -> None:
    with torch.inference_mode():
        model = tiny.tiny_model("sd1")
        before = {k: v.clone() for k, v in model.model.state_dict().items()}
        unet = to_diffusers.unet_from_model(model)
        with runtime.training_mode():
            given = inputs("sd1")
            shift = torch.zeros(32, requires_grad=True)
            unet.conv_in.register_forward_hook(lambda module, args, out: out + shift[:, None, None])
            unet(given["x"], given["t"], given["context"], return_dict=False)[0].square().mean().backward()
            assert shift.grad.abs().sum() > 0
            shift.data -= shift.grad
        after = model.model.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_lora_on_the_model_is_honoured_and_leaves_the_base_alone() -> None:
    model = tiny.tiny_model("sd1")
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    noise = torch.Generator().manual_seed(2)
    size = model.model.state_dict()[key].shape[0]
    lora = {
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight": torch.randn(
            size, 4, generator=noise
        ),
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight": torch.randn(
            4, size, generator=noise
        ),
    }
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 0.7, 0.0)
    unet, given = to_diffusers.unet_from_model(patched), inputs("sd1")
    assert all(torch.equal(before[k], v) for k, v in model.model.state_dict().items())
    plain = native(model, given)
    patched.patch_model()
    expected = native(patched, given)
    patched.unpatch_model()
    assert far(plain, expected) > 1e-3
    assert far(converted(unet, given), expected) < 1e-5


def test_eight_bit_weights_are_cast_up() -> None:
    model = tiny.tiny_model("sd1")
    weight = model.model.diffusion_model.out[2]
    weight.weight = torch.nn.Parameter(weight.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    unet = to_diffusers.unet_from_model(model)
    assert unet.conv_out.weight.dtype == torch.float32
    assert torch.equal(unet.conv_out.weight, weight.weight.float())


@pytest.mark.parametrize("family", FAMILIES)
def test_controlnet_gives_comfyuis_own_residuals(family: str, tmp_path: Path) -> None:
    control, given = tiny.tiny_controlnet(family), inputs(family)
    save_file(control.control_model.state_dict(), tmp_path / "control.safetensors")
    unet = to_diffusers.unet_from_model(tiny.tiny_model(family))
    base = SimpleNamespace(unet=unet, dtype=torch.float32)
    network = load_controlnet(tmp_path / "control.safetensors", base)
    hint = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(4))
    extra = {} if given["y"] is None else {"y": given["y"]}
    added = {"text_embeds": given["pooled"], "time_ids": given["sizes"]}
    with torch.no_grad():
        theirs = control.control_model(given["x"], hint, given["t"], given["context"], **extra)
        down, middle = network(
            given["x"], given["t"], given["context"], hint, added_cond_kwargs=added, return_dict=False
        )
    assert len(down) == len(theirs["output"])
    assert max(far(a, b) for a, b in zip(down, theirs["output"], strict=True)) < 1e-5
    assert far(middle, theirs["middle"][0]) < 1e-5


def test_vae_gives_comfyuis_own_numbers_from_the_same_storage() -> None:
    vae = tiny.tiny_vae()
    module, scale = to_diffusers.vae_from_vae(vae)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(6)) * 2 - 1
    source = vae.first_stage_model
    with torch.no_grad():
        mean = module.encode(pixels).latent_dist.mean
        assert far(mean, source.encode(pixels)) < 1e-5
        assert far(module.decode(mean).sample, source.decode(mean)) < 1e-5
    assert scale == 1.0
    assert {v.data_ptr() for v in module.state_dict().values()} == {v.data_ptr() for v in source.state_dict().values()}


def test_taesd_gives_comfyuis_own_numbers_and_its_latent_scale() -> None:
    vae = tiny.tiny_taesd()
    module, scale = to_diffusers.vae_from_vae(vae)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(7)) * 2 - 1
    assert scale == pytest.approx(0.18215)
    with torch.no_grad():
        latents = module.encode(pixels).latents
        assert far(latents / scale, vae.first_stage_model.encode(pixels)) < 1e-5
        assert far(module.decode(latents).sample, vae.first_stage_model.decode(latents / scale)) < 1e-5


def test_noise_schedule_is_the_models_own() -> None:
    schedule = to_diffusers.schedule_from_model(tiny.tiny_model("sd1"))
    usual = NoiseSchedule.scaled_linear()
    assert schedule.prediction == "epsilon" and len(schedule) == 1000
    assert torch.equal(schedule.alphas_cumprod, usual.alphas_cumprod)
    model = tiny.tiny_model("sd1")
    sampling = type("Sampling", (comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS), {})()
    sampling.set_sigmas(sampling.sigmas * 1.001)
    model.add_object_patch("model_sampling", sampling)
    expected = 1 / (1 + sampling.sigmas.double() ** 2)
    assert torch.equal(to_diffusers.schedule_from_model(model).alphas_cumprod, expected)


@pytest.mark.parametrize("zero_terminal", [False, True])
def test_v_prediction_and_zero_terminal_snr_are_followed(zero_terminal: bool) -> None:
    model, kinds = tiny.tiny_model("sd2"), comfy.model_sampling
    sampling = type("Sampling", (kinds.ModelSamplingDiscrete, kinds.V_PREDICTION), {})(zsnr=zero_terminal)
    patched = model.clone()
    patched.add_object_patch("model_sampling", sampling)
    schedule = to_diffusers.schedule_from_model(patched)
    assert schedule.prediction == "v_prediction"
    assert (float(schedule.alphas_cumprod[-1]) < 1e-6) is zero_terminal
    assert to_diffusers.schedule_from_model(model).prediction == "epsilon"


@pytest.mark.parametrize("kind", ["X0", "EDM", "CONST"])
def test_other_predictions_are_refused_in_a_sentence(kind: str) -> None:
    model, kinds = tiny.tiny_model("sd1"), comfy.model_sampling
    sampling = type("Sampling", (kinds.ModelSamplingDiscrete, getattr(kinds, kind)), {})()
    model.add_object_patch("model_sampling", sampling)
    with pytest.raises(ValueError, match="not with noise or v prediction"):
        to_diffusers.schedule_from_model(model)


def test_models_that_cannot_be_trained_are_refused_in_a_sentence() -> None:
    flux = tiny.tiny_model("sd1")
    flux.model.__class__ = type("Flux", (type(flux.model),), {})
    with pytest.raises(ValueError, match="This MODEL is a Flux and cannot be trained here"):
        to_diffusers.unet_from_model(flux)
    with pytest.raises(ValueError, match="takes 9 channels, as inpainting"):
        to_diffusers.unet_from_model(tiny.tiny_model("sd1", in_channels=9))
    adapted = tiny.tiny_model("sd1")
    adapted.set_model_attn2_patch(lambda *given: given)
    with pytest.raises(ValueError, match="patches that change how its UNet runs"):
        to_diffusers.unet_from_model(adapted)


def test_a_lost_and_a_surplus_weight_are_named() -> None:
    model = tiny.tiny_model("sd1")
    del model.model.diffusion_model.out[2].bias
    with pytest.raises(ValueError, match=r"1 missing and 0 unknown, for example 'out.2.bias'"):
        to_diffusers.unet_from_model(model)
    model = tiny.tiny_model("sd1")
    model.model.diffusion_model.surplus = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match=r"0 missing and 1 unknown, for example 'surplus'"):
        to_diffusers.unet_from_model(model)


def test_names_that_lead_out_of_a_folder_are_refused(tmp_path) -> None:
    root = tmp_path / "input"
    (root / "set" / "inner").mkdir(parents=True)
    (root / "set" / "a.json").write_text("{}")
    (tmp_path / "secret").mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    assert runtime.inside(root, "set/a.json") == (root / "set" / "a.json").resolve()
    assert runtime.folders(root) == ["set", "set/inner"]
    assert runtime.files(root, ".json") == ["set/a.json"]
    for name in (
        "../secret",
        "set/../../secret",
        str(tmp_path / "secret"),
        "C:\\x",
        "\\x",
        "link/x",
        "link",
        "",
        "a\0b",
    ):
        with pytest.raises(ValueError, match="choose one from the list|leads out of"):
            runtime.inside(root, name)


def test_progress_is_throttled_and_shows_the_last_step(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *given, **more: seen.append(given[0]))
    bar = runtime.Progress(100, "7", pause=60.0)
    for step in range(1, 101):
        bar.update(step, f"step {step}")
    assert seen == [1, 100]


def test_the_interrupt_is_obeyed() -> None:
    management = comfy.model_management
    runtime.check_interrupt()
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        runtime.check_interrupt()
    runtime.check_interrupt()
