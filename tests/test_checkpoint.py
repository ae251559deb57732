"""Checkpoints: whole or absent, the newest whole one found, everything that decides the next step inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from comfy_scoft import checkpoint


def world(seed: int = 0, width: int = 3) -> tuple[dict[str, nn.Parameter], torch.optim.AdamW]:
    generator = torch.Generator().manual_seed(seed)
    parameters = {name: nn.Parameter(torch.randn(2, width, generator=generator)) for name in ("a.lora_A", "a.lora_B")}
    return parameters, torch.optim.AdamW(parameters.values(), lr=0.1, weight_decay=0.01)


def step(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, count: int = 1) -> None:
    for _ in range(count):
        sum((p**2).sum() for p in parameters.values()).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_restored_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    parameters, optimizer = world()
    step(parameters, optimizer, 3)
    checkpoint.save(tmp_path, 3, parameters, optimizer, {"rank": 2})
    step(parameters, optimizer, 2)
    again, other = world(seed=5)
    saved = checkpoint.newest(tmp_path)
    assert saved.step == 3 and saved.settings == {"rank": 2}
    checkpoint.restore(saved, again, other)
    step(again, other, 2)
    assert all(torch.equal(again[k], parameters[k]) for k in parameters)
    for k in parameters:
        one, two = optimizer.state[parameters[k]], other.state[again[k]]
        assert one.keys() == two.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_before_the_first_step_there_is_no_optimizer_state_and_that_is_fine(tmp_path: Path) -> None:
    parameters, optimizer = world()
    checkpoint.save(tmp_path, 0, parameters, optimizer, {})
    again, other = world(seed=5)
    checkpoint.restore(checkpoint.newest(tmp_path), again, other)
    step(parameters, optimizer)
    step(again, other)
    assert all(torch.equal(again[k], parameters[k]) for k in parameters)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    parameters, optimizer = world()
    for number in (1, 2, 10, 9):
        checkpoint.save(tmp_path, number, parameters, optimizer, {}, keep=2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["checkpoint-00000009", "checkpoint-00000010"]
    assert checkpoint.newest_step(tmp_path) == 10


def test_a_crash_while_saving_leaves_the_last_whole_one(tmp_path: Path, monkeypatch) -> None:
    parameters, optimizer = world()
    checkpoint.save(tmp_path, 1, parameters, optimizer, {})

    def full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(tmp_path, 2, parameters, optimizer, {})
    monkeypatch.undo()
    assert checkpoint.newest_step(tmp_path) == 1
    checkpoint.save(tmp_path, 2, parameters, optimizer, {})
    assert checkpoint.newest_step(tmp_path) == 2 and not list(tmp_path.glob(".*"))


def test_a_step_saved_twice_is_the_later_one(tmp_path: Path) -> None:
    parameters, optimizer = world()
    checkpoint.save(tmp_path, 1, parameters, optimizer, {})
    step(parameters, optimizer)
    folder = checkpoint.save(tmp_path, 1, parameters, optimizer, {})
    assert torch.equal(load_file(folder / checkpoint.LORA)["a.lora_A"], parameters["a.lora_A"])


@pytest.mark.parametrize("content", ["", "{", '{"step": 7}', "[]", '{"step": "x", "settings": {}}'])
def test_a_damaged_checkpoint_is_passed_over(content: str, tmp_path: Path) -> None:
    parameters, optimizer = world()
    checkpoint.save(tmp_path, 1, parameters, optimizer, {})
    folder = checkpoint.save(tmp_path, 7, parameters, optimizer, {})
    (folder / checkpoint.STATE).write_text(content)
    assert checkpoint.newest(tmp_path).step == 1


def test_no_run_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "none") is None and checkpoint.newest_step(tmp_path / "none") == -1


def test_a_lora_of_another_shape_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, *world(), {})
    wide, optimizer = world(width=4)
    before = {k: p.detach().clone() for k, p in wide.items()}
    with pytest.raises(ValueError, match="another shape"):
        checkpoint.restore(checkpoint.newest(tmp_path), wide, optimizer)
    assert all(torch.equal(wide[k], before[k]) for k in wide)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "deep" / "file.txt"
    checkpoint.write_atomically(target, b"one")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("unplugged")))
    with pytest.raises(OSError, match="unplugged"):
        checkpoint.write_atomically(target, b"two")
    assert target.read_bytes() == b"one"
    monkeypatch.undo()
    checkpoint.write_atomically(target, b"two")
    assert target.read_bytes() == b"two" and [p.name for p in target.parent.iterdir()] == ["file.txt"]
