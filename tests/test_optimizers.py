"""The optimizers: each learns, and each is saved whole and goes on bit for bit."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from comfy_scoft.training.optimizers import SMALLEST_8BIT, build, pack, unpack

RATES = {"AdamW": 1e-2, "AdamW8bit": 1e-2, "Prodigy": 1.0, "Adafactor": 1e-2}


def toy_parameters() -> dict[str, nn.Parameter]:
    """The shapes of a LoRA's: a large matrix (8-bit states), small ones, a zero one, a 4-D one, a vector."""
    generator = torch.Generator().manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {
        "a.lora_A": (8, 640),
        "a.lora_B": (640, 8),
        "b.lora_A": (2, 16, 3, 3),
        "c.lora_B": (6, 2),
        "lora_magnitude_vector": (7,),
    }
    drawn = {name: nn.Parameter(0.1 * torch.randn(shape, generator=generator)) for name, shape in shapes.items()}
    drawn["zero.lora_B"] = nn.Parameter(torch.zeros(5, 3))
    return drawn


def steps(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    """Steps `first` to `last` towards a fixed target, with noise, rates and gaps that the step's number decides."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * 0.999
        for i, parameter in enumerate(parameters.values()):
            noise = 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter.grad = None if (step + i) % 5 == 4 else (parameter.detach() - 0.5) + noise
        optimizer.step()


def values(parameters: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def fresh(name: str) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    parameters = toy_parameters()
    return parameters, build(parameters, name, RATES[name], 0.01)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[k], right[k]) and left[k].dtype == right[k].dtype for k in left
    )


def test_the_menu_of_the_settings_is_what_can_be_built() -> None:
    from comfy_scoft.training.settings import Optimizer

    assert {str(each) for each in Optimizer} == set(RATES)
    with pytest.raises(ValueError, match="'SGD' is not known; choose one of AdamW"):
        build(toy_parameters(), "SGD", 1e-3, 0.0)


@pytest.mark.parametrize("name", RATES)
def test_each_optimizer_learns(name: str) -> None:
    parameters, optimizer = fresh(name)

    def far() -> float:
        return sum(float((p.detach() - 0.5).square().sum()) for p in parameters.values())

    before = far()
    # Prodigy starts from a rate of a millionth and needs steps to find its own
    steps(parameters, optimizer, 0, 200 if name == "Prodigy" else 60)
    assert far() < 0.8 * before and all(torch.isfinite(p).all() for p in parameters.values())


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("done", [0, 1, 40])
def test_saved_and_read_again_it_goes_on_bit_for_bit(name: str, done: int, tmp_path: Path) -> None:
    whole, optimizer = fresh(name)
    steps(whole, optimizer, 0, done + 7)

    cut, optimizer = fresh(name)
    steps(cut, optimizer, 0, done)
    tensors, plain = pack(cut, optimizer, "optimizer.")
    assert all(key.startswith("optimizer.") for key in tensors)
    save_file(tensors | {"another": torch.zeros(2)}, tmp_path / "state.safetensors")
    (tmp_path / "state.json").write_text(json.dumps(plain, allow_nan=False), encoding="utf-8")
    steps(cut, optimizer, done, done + 2)  # what goes on after a checkpoint does not change the checkpoint

    resumed, optimizer = fresh(name)
    replayed, other = fresh(name)
    steps(replayed, other, 0, done)
    with torch.no_grad():
        for key, parameter in resumed.items():
            parameter.copy_(replayed[key])
    read = load_file(tmp_path / "state.safetensors")
    untouched = {key: value.clone() for key, value in read.items()}
    unpack(resumed, optimizer, read, json.loads((tmp_path / "state.json").read_text(encoding="utf-8")))
    steps(resumed, optimizer, done, done + 7)
    assert same(values(resumed), values(whole))
    assert same(read, untouched), "the optimizer must not write into what the caller read"


@pytest.mark.parametrize("name", RATES)
def test_all_of_the_state_is_there_again_each_part_with_its_type(name: str) -> None:
    parameters, optimizer = fresh(name)
    steps(parameters, optimizer, 0, 5)
    tensors, plain = pack(parameters, optimizer)
    again, other = fresh(name)
    unpack(again, other, tensors, json.loads(json.dumps(plain)))
    for key in parameters:
        mine, its = optimizer.state[parameters[key]], other.state[again[key]]
        assert set(mine) == set(its) and mine
        for part, value in mine.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, its[part]) and value.dtype == its[part].dtype
                assert value.device == its[part].device and value.shape == its[part].shape
            else:
                assert value == its[part] and type(value) is type(its[part])
    for mine, its in zip(optimizer.param_groups, other.param_groups, strict=True):
        assert {k: v for k, v in mine.items() if k != "params"} == {k: v for k, v in its.items() if k != "params"}


def test_prodigys_own_estimate_of_the_rate_is_saved() -> None:
    parameters, optimizer = fresh("Prodigy")
    steps(parameters, optimizer, 0, 60)
    group = pack(parameters, optimizer)[1]["groups"][0]
    assert group["d"] > 10 * group["d0"] and group["d_max"] >= group["d"] and group["d_numerator"] != 0.0
    assert group["k"] == 60 and group["growth_rate"] == {"float": "inf"}
    assert group["safeguard_warmup"] and group["use_bias_correction"] and group["weight_decay"] == 0.01


def test_eight_bit_states_take_a_byte_and_small_tensors_keep_thirty_two_bits() -> None:
    parameters, optimizer = fresh("AdamW8bit")
    steps(parameters, optimizer, 0, 3)
    tensors, plain = pack(parameters, optimizer)
    for name, parameter in parameters.items():
        state = tensors[f"{name}|state1"]
        assert state.shape == parameter.shape
        assert state.dtype == (torch.uint8 if parameter.numel() >= SMALLEST_8BIT else torch.float32)
    # the table of the 256 values of an 8-bit number is one for all tensors, and is held once
    assert plain["state"]["a.lora_A"]["qmap1"] == plain["state"]["a.lora_B"]["qmap1"]
    again, other = fresh("AdamW8bit")
    unpack(again, other, tensors, plain)
    assert other.state[again["a.lora_A"]]["qmap1"] is other.state[again["a.lora_B"]]["qmap1"]


def test_eight_bit_adamw_follows_torchs_adamw() -> None:
    exact, coarse = toy_parameters(), toy_parameters()
    start = values(exact)
    for parameters, name in ((exact, "AdamW"), (coarse, "AdamW8bit")):
        steps(parameters, build(parameters, name, 1e-2, 0.01), 0, 10)
    for name in exact:
        moved = (exact[name] - start[name]).abs().mean()
        assert (exact[name] - coarse[name]).abs().mean() < 0.05 * moved


def test_adafactor_steps_at_the_given_rate_even_where_a_tensor_is_zero() -> None:
    """The first step of factored RMS scaling has an RMS of one, so a LoRA's zero B moves by the rate."""
    rate, parameter = 1e-3, nn.Parameter(torch.zeros(6, 4))
    optimizer = build({"b": parameter}, "Adafactor", rate, 0.0)
    parameter.grad = torch.ones_like(parameter)
    for count in (1, 2, 3):
        optimizer.step()
        assert torch.allclose(parameter, torch.full((6, 4), -rate * count), rtol=1e-5)


def test_adamw_is_torchs_with_the_released_scripts_settings() -> None:
    mine, its = toy_parameters(), toy_parameters()
    for parameters in (mine, its):
        del parameters["lora_magnitude_vector"]
    optimizer = build(mine, "AdamW", 1e-2, 0.01)
    assert type(optimizer) is torch.optim.AdamW and optimizer.defaults["betas"] == (0.9, 0.999)
    steps(mine, optimizer, 0, 8)
    steps(its, torch.optim.AdamW(its.values(), lr=1e-2, weight_decay=0.01), 0, 8)
    for one, other in zip(values(mine).values(), values(its).values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7), "one kernel for all tensors rounds a little otherwise"


@pytest.mark.parametrize("name", RATES)
def test_weight_decay_draws_the_lora_to_zero_but_not_a_doras_magnitudes(name: str) -> None:
    """Where the gradient is zero, a step is the decay alone: (1 - rate · decay) of what was there."""
    parameters = toy_parameters()
    optimizer, start = build(parameters, name, 1.0, 0.5), values(parameters)
    if name == "Prodigy":  # its own rate is a millionth at first, too little to see in float32
        for group in optimizer.param_groups:
            group["d"] = group["d0"] = group["d_max"] = 1.0
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    parameters["c.lora_B"].grad.fill_(1.0)  # Prodigy takes no step where nothing has a gradient
    optimizer.step()
    shrunk = parameters["b.lora_A"] / start["b.lora_A"]
    # Prodigy corrects its first rate by √(1 - 0.999) / (1 - 0.9)
    expected = 1 - 0.5 * (0.001**0.5 / 0.1 if name == "Prodigy" else 1.0)
    assert torch.allclose(shrunk, torch.full_like(shrunk, expected), atol=1e-5)
    assert torch.equal(parameters["lora_magnitude_vector"], start["lora_magnitude_vector"])


def test_prodigy_prints_nothing_and_refuses_a_rate_meant_for_another(capsys: pytest.CaptureFixture[str]) -> None:
    build(toy_parameters(), "Prodigy", 1.0, 0.01)  # given weight decay as a default, its own constructor prints
    assert not capsys.readouterr().out
    with pytest.raises(ValueError, match="0.0001, but Prodigy finds the rate itself .*; set the learning rate to 1.0"):
        build(toy_parameters(), "Prodigy", 1e-4, 0.01)


@pytest.mark.parametrize("name, package", [("AdamW8bit", "bitsandbytes"), ("Prodigy", "prodigyopt")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hidden:
        def find_spec(self, module: str, *_: Any) -> None:
            if module.split(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])
    with pytest.raises(ValueError, match=f"{package}, which is not installed; run `python install.py {package}`"):
        build(toy_parameters(), name, RATES[name], 0.0)


@pytest.mark.parametrize("fault", ["raises", "does nothing"])
def test_a_device_where_eight_bits_do_not_work_is_refused_in_one_sentence(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Any) -> None:
        if fault == "raises":
            raise NotImplementedError("no kernel for this device")

    monkeypatch.setattr(importlib.import_module("bitsandbytes").optim.AdamW8bit, "step", step)
    with pytest.raises(ValueError, match="no 8-bit optimizer that works on cpu; .* or take AdamW"):
        build(toy_parameters(), "AdamW8bit", 1e-3, 0.0)


def without(kind: str) -> Callable[[dict, dict], tuple[dict, dict]]:
    def spoil(tensors: dict, plain: dict) -> tuple[dict, dict]:
        if kind == "a tensor":
            return dict(list(tensors.items())[1:]), plain
        if kind == "a part":
            return tensors, {k: v for k, v in plain.items() if k != "groups"}
        if kind == "its shape":
            return tensors, plain | {"shapes": plain["shapes"] | {"c.lora_B": [8, 2]}}
        return tensors, plain | {"state": {"another": {"step": 1}}}

    return spoil


@pytest.mark.parametrize("kind", ["a tensor", "a part", "its shape", "its name"])
def test_a_state_that_does_not_fit_is_refused_in_one_sentence(kind: str) -> None:
    parameters, optimizer = fresh("AdamW")
    steps(parameters, optimizer, 0, 2)
    tensors, plain = without(kind)(*pack(parameters, optimizer))
    with pytest.raises(ValueError, match="does not fit AdamW on this LoRA; go on with the optimizer"):
        unpack(*fresh("AdamW"), tensors, plain)


def test_a_state_of_another_optimizer_is_refused() -> None:
    parameters, optimizer = fresh("AdamW")
    steps(parameters, optimizer, 0, 2)
    with pytest.raises(ValueError, match="does not fit Prodigy"):
        unpack(*fresh("Prodigy"), *pack(parameters, optimizer))
