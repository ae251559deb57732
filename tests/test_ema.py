"""The moving average of the trained parameters: by hand arithmetic, saved, applied and taken off again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from comfy_scoft.training.ema import Ema
from comfy_scoft.training.settings import OptimizerSettings


def some() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {"a.lora_A": (4, 6), "a.lora_B": (6, 4), "c.lora_B": (6, 2, 1, 1)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def values(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_the_average_is_the_one_of_hand_arithmetic() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    ema = Ema({"p": parameter}, 0.99)
    expected = torch.tensor([7.0, 7.0], dtype=torch.float64)  # forgotten: the first update copies
    for n, value in enumerate([3.0, 5.0, -1.0, 8.0]):
        with torch.no_grad():
            parameter.fill_(value)
        ema.update()
        decay = 0.0 if n == 0 else min(0.99, (1 + n) / (10 + n))  # 0, 2/11, 3/12, 4/13
        expected = decay * expected + (1 - decay) * value
        assert torch.allclose(ema.tensors()["p"].double(), expected, atol=1e-6)
    assert ema.tensors()["updates"].item() == 4
    by_hand = 3.0
    by_hand = 2 / 11 * by_hand + 9 / 11 * 5.0
    by_hand = 1 / 4 * by_hand + 3 / 4 * -1.0
    by_hand = 4 / 13 * by_hand + 9 / 13 * 8.0
    assert ema.tensors()["p"][0].item() == pytest.approx(by_hand, abs=1e-6)


def test_after_its_start_the_average_has_the_given_decay() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    ema = Ema({"p": parameter}, 0.5)
    for _ in range(20):  # (1 + n) / (10 + n) passes 0.5 at n = 8
        ema.update()
    with torch.no_grad():
        parameter.fill_(1.0)
    for count in (1, 2, 3):
        ema.update()
        assert ema.tensors()["p"].item() == pytest.approx(1 - 0.5**count, rel=1e-6)


def test_an_average_is_saved_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def run(first: int, last: int, ema: Ema, parameters: dict[str, nn.Parameter]) -> None:
        for n in range(first, last):
            with torch.no_grad():
                for p in parameters.values():
                    p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(n)))
            ema.update()

    parameters = some()
    whole, cut, resumed = (Ema(parameters, 0.9) for _ in range(3))
    run(0, 9, whole, parameters)
    run(0, 4, cut, parameters)
    save_file(cut.tensors(), tmp_path / "ema.safetensors")
    read = load_file(tmp_path / "ema.safetensors")
    resumed.load(read)
    run(4, 9, resumed, parameters)
    assert equal(resumed.tensors(), whole.tensors())
    assert equal(load_file(tmp_path / "ema.safetensors"), read), "an average must not write into what it was given"


def test_applied_shows_the_average_and_puts_the_trained_values_back() -> None:
    parameters = some()
    ema = Ema(parameters, 0.99)
    ema.update()
    averages = values(parameters)
    with torch.no_grad():
        for p in parameters.values():
            p.add_(math.pi)
    trained = values(parameters)
    with ema.applied():
        assert equal(values(parameters), averages)
    assert equal(values(parameters), trained) and all(p.requires_grad for p in parameters.values())
    with pytest.raises(RuntimeError, match="stop"), ema.applied():
        raise RuntimeError("stop")
    assert equal(values(parameters), trained)


def test_an_average_that_does_not_fit_is_refused() -> None:
    ema = Ema(some(), 0.9)
    held = ema.tensors()
    for spoilt in (
        {k: v for k, v in held.items() if k != "c.lora_B"},
        {k: v for k, v in held.items() if k != "updates"},
        held | {"c.lora_B": torch.zeros(8, 2)},
    ):
        with pytest.raises(ValueError, match="does not fit this LoRA; go on with"):
            ema.load(spoilt)
    for decay in (-0.1, 1.0):
        with pytest.raises(ValueError, match="ema is"):
            OptimizerSettings(ema=decay)
