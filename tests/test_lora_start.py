"""Training that goes on from an existing LoRA: the delta stays what it was, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import comfy_inprocess as tiny
import pytest
import torch
from torch import Tensor
from toys import toy_unet

comfy = tiny.start()

from test_dora import answer, shake  # noqa: E402

from comfy_scoft.comfyui import to_diffusers  # noqa: E402  (needs a started ComfyUI)
from comfy_scoft.models.lora import LoraSettings, attach, export_kohya, layers, load_lora, trainable  # noqa: E402

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


ATTENTION, FORWARD, WIDEST = (
    "attention",
    "attention + feed-forward",
    "attention + feed-forward + convolutions",
)


def attached(start: dict[str, Tensor] | None = None, **settings: object) -> UNet2DConditionModel:
    unet = toy_unet()
    own = {"rank": 2, "alpha": 3.0, "targets": WIDEST}
    attach(unet, LoraSettings(**{**own, **settings}), torch.Generator().manual_seed(5), start)
    return unet


def earlier(**settings: object) -> tuple[UNet2DConditionModel, dict[str, Tensor]]:
    """A trained UNet and its LoRA's file."""
    unet = attached(**settings)
    shake(unet)
    return unet, export_kohya(unet, torch.float32)


@pytest.mark.parametrize("alpha", [3.0, 0.1])
def test_at_the_same_rank_and_alpha_it_goes_on_from_the_same_numbers(alpha: float) -> None:
    unet, file = earlier(alpha=alpha)
    again = attached(file, alpha=alpha)
    before, after = trainable(unet), trainable(again)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in after.values())
    assert all(torch.equal(file[key], value) for key, value in export_kohya(again, torch.float32).items())


def test_another_alpha_and_a_larger_rank_leave_the_delta_as_it_was() -> None:
    unet, file = earlier()
    again, unstarted = attached(file, rank=5, alpha=1.25), attached(rank=5, alpha=1.25)
    assert torch.allclose(answer(again), answer(unet), atol=1e-5)
    assert (answer(again) - answer(toy_unet())).abs().max() > 1e-2
    for key, module in layers(again).items():
        down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
        drawn = layers(unstarted)[key].lora_A["default"].weight
        assert torch.equal(down[:2], file[f"{key}.lora_down.weight"]) and torch.equal(down[2:], drawn[2:])
        # alpha / rank was 3 / 2 and is 1.25 / 5
        assert torch.allclose(up[:, :2], 6 * file[f"{key}.lora_up.weight"]) and not up[:, 2:].any()


def test_half_precision_files_without_alpha_and_with_more_layers_to_train_go_on() -> None:
    unet, file = earlier(targets=ATTENTION, alpha=2.0)  # alpha = rank: a scale of 1, which no alpha means too
    half = {key: value.half() for key, value in file.items() if not key.endswith("alpha")}
    again = attached(half, targets=WIDEST)
    assert torch.allclose(answer(again), answer(unet), atol=2e-3)
    untouched = [module for key, module in layers(again).items() if f"{key}.lora_up.weight" not in half]
    assert len(untouched) > 0 and not any(module.lora_B["default"].weight.any() for module in untouched)


def test_linear_weights_fit_one_by_one_convolutions() -> None:
    unet, file = earlier(targets=WIDEST)
    flat = {k: v.flatten(1) if v.ndim == 4 and v.shape[-1] == 1 else v for k, v in file.items()}
    assert any(file[key].ndim != flat[key].ndim for key in file)
    assert torch.equal(answer(attached(flat)), answer(unet))


def test_a_dora_starts_as_the_lora_it_is_given() -> None:
    unet, file = earlier()
    again = attached(file, dora=True)
    assert torch.allclose(answer(again), answer(unet), atol=1e-5)
    assert all("default" in module.lora_magnitude_vector for module in layers(again).values())


@pytest.mark.parametrize("rank", [2, 4])
def test_a_dora_goes_on_from_a_dora(rank: int) -> None:
    unet, file = earlier(dora=True)
    again = attached(file, dora=True, rank=rank)
    assert torch.allclose(answer(again), answer(unet), atol=1e-5)
    before, after = trainable(unet), trainable(again)
    magnitudes = [name for name in before if "magnitude" in name]
    assert magnitudes and all(torch.allclose(before[name], after[name], rtol=1e-5) for name in magnitudes)


@pytest.mark.parametrize("is_dora", [False, True])
def test_anybodys_lora_starts_as_comfyui_shows_it(is_dora: bool) -> None:
    """A file that others trained: odd ranks, an alpha of its own, and magnitudes as ComfyUI reads them."""
    from test_convert import converted, far, inputs, native

    model, given = tiny.tiny_model("sd1"), inputs("sd1")
    unet, file, noise = to_diffusers.unet_from_model(model), {}, torch.Generator().manual_seed(2)
    for path, module in unet.named_modules():
        if path.endswith(("to_q", "to_k", "ff.net.2")):
            key, rank = "lora_unet_" + path.replace(".", "_"), 2 + len(file) % 3
            out, width = module.weight.shape
            file[f"{key}.lora_down.weight"] = 0.2 * torch.randn(rank, width, generator=noise)
            file[f"{key}.lora_up.weight"] = 0.2 * torch.randn(out, rank, generator=noise)
            file[f"{key}.alpha"] = torch.tensor(1.7)
            if is_dora:
                norm = module.weight.norm(dim=1, keepdim=True)
                file[f"{key}.dora_scale"] = norm * (1 + 0.1 * torch.randn(out, 1, generator=noise))
    patched, _ = comfy.sd.load_lora_for_models(model, None, dict(file), 1.0, 0.0)
    plain = native(model, given)
    patched.patch_model()
    expected = native(patched, given)
    patched.unpatch_model()
    settings = LoraSettings(rank=6, alpha=6.0, targets=FORWARD, dora=is_dora)
    attach(unet, settings, torch.Generator().manual_seed(0), file)
    assert far(converted(unet, given), expected) < 1e-5 and far(plain, expected) > 1e-2


QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


def spoilt(change: str) -> dict[str, Tensor]:
    _, file = earlier(targets=ATTENTION)
    down = file[f"{QUERY}.lora_down.weight"]
    return {
        "nothing": lambda: {},
        "text encoder": lambda: {key.replace("lora_unet", "lora_te_text_model"): value for key, value in file.items()},
        "both": lambda: file | {"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0)},
        "a LoHa": lambda: file | {f"{QUERY}.hada_w1_a": down},
        "peft's form": lambda: {"unet.down_blocks.0.attentions.0.to_q.lora_A.weight": down},
        "half a layer": lambda: {key: value for key, value in file.items() if key != f"{QUERY}.lora_up.weight"},
        "NaN": lambda: file | {f"{QUERY}.lora_down.weight": down * float("nan")},
        "integers": lambda: file | {f"{QUERY}.lora_down.weight": down.to(torch.int8)},
        "another width": lambda: file | {f"{QUERY}.lora_down.weight": torch.zeros(2, 12)},
        "another height": lambda: file | {f"{QUERY}.lora_up.weight": torch.zeros(12, 2)},
        "an unknown layer": lambda: file | {key.replace("attn1_to_q", "attn9"): file[key] for key in file},
        "an untrained layer": lambda: (
            file | {f"lora_unet_conv_in.{part}": torch.zeros(2, 2) for part in ("lora_up.weight", "lora_down.weight")}
        ),
        "wider targets": lambda: earlier(targets=FORWARD)[1],
        "a larger rank": lambda: earlier(targets=ATTENTION, rank=3)[1],
        "a DoRA": lambda: earlier(targets=ATTENTION, dora=True)[1],
    }[change]()


@pytest.mark.parametrize(
    "change, sentence",
    [
        ("nothing", "'mine' to start from is empty .*; choose a file that is whole"),
        ("text encoder", "'mine' to start from changes only the text encoder, .*; choose a LoRA of the UNet alone"),
        ("both", "also changes the text encoder, .*; choose a LoRA of the UNet alone"),
        ("a LoHa", "holds 'lora_unet_.*hada_w1_a', which a plain LoRA in kohya's form does not; choose"),
        ("peft's form", "holds 'unet.down_blocks.* does not; choose"),
        ("half a layer", "lacks half of .*attn1_to_q.*; choose a file that is whole"),
        ("NaN", "not finite floats; choose a file that is whole"),
        ("integers", "not finite floats; choose a file that is whole"),
        ("another width", "another shape in .*attn1_to_q: it was trained on another model family, so choose"),
        ("another height", "another shape in .*attn1_to_q: it was trained on another model family, so choose"),
        ("an unknown layer", "attn9, which cannot be trained here: it was made for another model family"),
        ("an untrained layer", "changes conv_in, which cannot be trained here"),
        ("wider targets", "which the targets leave out; set the targets to 'attention . feed-forward'"),
        ("a larger rank", "has rank 3, but the rank is set to 2; set it to 3 or more"),
        ("a DoRA", "is a DoRA, but dora is off, .*; switch dora on"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(change: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        attached(spoilt(change), targets=ATTENTION, start_from="mine")
    assert str(caught.value).count(". ") == 0 and str(caught.value).endswith(".")


def test_magnitudes_over_input_channels_are_refused() -> None:
    _, file = earlier(targets=ATTENTION, dora=True)
    with pytest.raises(ValueError, match="magnitude for each input channel, .*; choose one without"):
        attached(file | {f"{QUERY}.dora_scale": torch.ones(1, 8)}, targets=ATTENTION, dora=True)


def test_a_file_gives_what_was_saved_and_anything_else_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    _, file = earlier()
    save_file(file, tmp_path / "lora.safetensors")
    read = load_lora(tmp_path / "lora.safetensors")
    assert read.keys() == file.keys() and all(torch.equal(read[key], file[key]) for key in file)
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "lora.safetensors").read_bytes()[:-7])
    torch.save(file, tmp_path / "lora.pt")
    for name in ("half.safetensors", "lora.pt", "none.safetensors"):
        with pytest.raises(ValueError, match=f"{name}' cannot be read as a safetensors file; choose"):
            load_lora(tmp_path / name)
