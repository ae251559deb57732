"""Checkpoints: whole or absent, the newest whole one found, everything that decides the next step inside."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from comfy_scoft.common import files
from comfy_scoft.common.files import write_atomically
from comfy_scoft.training import checkpoint
from comfy_scoft.training.checkpoint import State
from comfy_scoft.training.ema import Ema
from comfy_scoft.training.memory import MemoryOptions


def world(seed: int = 0, width: int = 3, ema: bool = False) -> State:
    generator = torch.Generator().manual_seed(seed)
    parameters = {name: nn.Parameter(torch.randn(2, width, generator=generator)) for name in ("a.lora_A", "a.lora_B")}
    return State(
        parameters,
        torch.optim.AdamW(parameters.values(), lr=0.1, weight_decay=0.01),
        torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2),
        MemoryOptions(),
        Ema(parameters, 0.9) if ema else None,
    )


def step(state: State, count: int = 1) -> State:
    for _ in range(count):
        state.scaler.scale(sum((p**2).sum() for p in state.parameters.values())).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()
        if state.ema is not None:
            state.ema.update()
        state.step += 1
    return state


def save(folder: Path, state: State, settings: dict | None = None, keep: int = 2) -> Path:
    return checkpoint.save(folder, state, settings or {}, {"torch": torch.__version__}, keep)


def test_restored_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """LoRA, optimizer, moving average, loss scale with its count, averages and what was done to save memory."""
    state = step(world(ema=True), 3)
    state.memory_options, state.averages = MemoryOptions(1, "UNet", "crop"), {"diffusion": 0.1 + 0.2}
    save(tmp_path, state, {"rank": 2})
    step(state, 2)
    saved, again = checkpoint.newest(tmp_path), world(seed=5, ema=True)
    assert saved.step == 3 and saved.settings == {"rank": 2}
    checkpoint.restore(saved, again)
    assert again.memory_options == MemoryOptions(1, "UNet", "crop") and again.averages == {"diffusion": 0.1 + 0.2}
    step(again, 2)
    assert again.step == state.step == 5 and again.scaler.state_dict() == state.scaler.state_dict()
    assert state.scaler.get_scale() == 8.0 * 2 * 2, "it grew before and after the checkpoint"
    for k in state.parameters:
        assert torch.equal(again.parameters[k], state.parameters[k])
        one, two = (s.optimizer.state[s.parameters[k]] for s in (state, again))
        assert one.keys() == two.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(one[name], two[name]) for name in one)
    mine, theirs = state.ema.tensors(), again.ema.tensors()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_before_the_first_step_there_is_no_optimizer_state_and_that_is_fine(tmp_path: Path) -> None:
    state, again = world(), world(seed=5)
    save(tmp_path, state)
    checkpoint.restore(checkpoint.newest(tmp_path), again)
    step(state), step(again)
    assert all(torch.equal(again.parameters[k], state.parameters[k]) for k in state.parameters)


def test_half_an_update_is_never_saved(tmp_path: Path) -> None:
    state = world()
    state.consistent = False
    with pytest.raises(AssertionError, match="half"):
        save(tmp_path, state)
    assert not list(tmp_path.iterdir())


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    state = world()
    for number in (1, 2, 10, 9):
        state.step = number
        save(tmp_path, state, keep=2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["checkpoint-00000009", "checkpoint-00000010"]
    assert checkpoint.newest_step(tmp_path) == 10


def test_a_crash_while_saving_leaves_the_last_whole_one(tmp_path: Path, monkeypatch) -> None:
    state = step(world())
    save(tmp_path, state)

    def full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, step(state))
    monkeypatch.undo()
    assert checkpoint.newest_step(tmp_path) == 1 and state.saved == 1
    (tmp_path / ".checkpoint-00000007.part").mkdir()  # of a process that was killed
    save(tmp_path, state)
    assert checkpoint.newest_step(tmp_path) == 2 and not list(tmp_path.glob(".*"))


def test_a_step_saved_twice_is_the_later_one(tmp_path: Path) -> None:
    state = world()
    state.step = 1
    save(tmp_path, state)
    step(state)
    state.step = 1
    folder = save(tmp_path, state)
    assert torch.equal(load_file(folder / checkpoint.LORA)["a.lora_A"], state.parameters["a.lora_A"])


@pytest.mark.parametrize("content", ["", "{", '{"step": 7}', "[]", '{"step": "x", "settings": {}, "sha256": {}}'])
def test_a_checkpoint_whose_state_cannot_be_read_is_passed_over(content: str, tmp_path: Path) -> None:
    state = step(world())
    save(tmp_path, state)
    folder = save(tmp_path, step(state))
    (folder / checkpoint.STATE).write_text(content)
    assert checkpoint.newest(tmp_path).step == 1 and checkpoint.damaged(tmp_path) == [folder.name]


@pytest.mark.parametrize("part", [checkpoint.LORA, checkpoint.OPTIMIZER, checkpoint.EMA])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_checkpoint_with_one_wrong_byte_is_passed_over(part: str, damage: str, tmp_path: Path) -> None:
    state = step(world(ema=True))
    save(tmp_path, state)
    file = save(tmp_path, step(state)) / part
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data[:7] if damage == "cut" else data) if damage != "missing" else file.unlink()
    assert checkpoint.newest(tmp_path).step == 1 and checkpoint.damaged(tmp_path) == [file.parent.name]


def test_no_run_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "none") is None and checkpoint.newest_step(tmp_path / "none") == -1
    assert checkpoint.damaged(tmp_path / "none") == []


def test_a_lora_of_another_shape_is_refused(tmp_path: Path) -> None:
    save(tmp_path, step(world()))
    wide = world(width=4)
    before = {k: p.detach().clone() for k, p in wide.parameters.items()}
    with pytest.raises(ValueError, match="another shape"):
        checkpoint.restore(checkpoint.newest(tmp_path), wide)
    assert all(torch.equal(wide.parameters[k], before[k]) for k in before)


def test_the_state_is_plain_json_with_versions_and_no_pickle(tmp_path: Path) -> None:
    folder = save(tmp_path, step(world(ema=True)))
    assert {p.suffix for p in folder.iterdir()} == {".json", ".safetensors"}
    facts = json.loads((folder / checkpoint.STATE).read_text(), parse_constant=lambda name: pytest.fail(name))
    assert facts["versions"] == {"torch": torch.__version__} and set(facts["sha256"]) == {
        checkpoint.LORA,
        checkpoint.OPTIMIZER,
        checkpoint.EMA,
    }


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_nothing_that_looks_like_one(tmp_path: Path) -> None:
    """Killed after the first file of the old one was gone: what is left has no name that anybody looks for."""
    state = step(world())
    save(tmp_path, state, keep=1)
    with pytest.MonkeyPatch.context() as patch:

        def killed(folder: Path, **_: object) -> None:
            if (folder / checkpoint.STATE).exists():
                (folder / checkpoint.STATE).unlink()
                raise KeyboardInterrupt

        patch.setattr(files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, step(state), keep=1)
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["checkpoint-00000002"] and len(list(tmp_path.iterdir())) == 2
    assert checkpoint.newest_step(tmp_path) == 2 and checkpoint.damaged(tmp_path) == []
    checkpoint.remove_leftovers(tmp_path)  # as each run does when it begins
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-00000002"]


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch) -> None:
    save(tmp_path, step(world()))

    def too_many(*_: object, **named: object) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "read_bytes", too_many)
    with pytest.raises(
        ValueError, match=r"^The checkpoint checkpoint-00000001 cannot be read \(Too many open files\): cl"
    ):
        checkpoint.newest(tmp_path)


def test_a_part_of_a_folder_is_left_to_who_writes_it_for_a_day(tmp_path: Path) -> None:
    for name, age in (
        (".set.0123abcd.part", 2 * files.STALE),
        (".set.1123abcd.part", 0.0),
        (".set 2.0123abcd.part", 1e6),
    ):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with files.part_folder(tmp_path / "set") as part:
        (part / "file").write_text("new")
        files.publish_folder(part, tmp_path / "set")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".set 2.0123abcd.part", ".set.1123abcd.part", "set"]


def test_a_folder_that_is_there_is_replaced_only_when_asked_for_or_empty(tmp_path: Path) -> None:
    def publish(text: str, **how: bool) -> None:
        with files.part_folder(tmp_path / "set") as part:
            (part / "file").write_text(text)
            files.publish_folder(part, tmp_path / "set", **how)

    (tmp_path / "set").mkdir()
    publish("one")
    with pytest.raises(FileExistsError):
        publish("two")
    assert (tmp_path / "set" / "file").read_text() == "one" and len(list(tmp_path.iterdir())) == 1
    publish("three", overwrite=True)
    assert (tmp_path / "set" / "file").read_text() == "three" and len(list(tmp_path.iterdir())) == 1


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "deep" / "file.txt"
    write_atomically(target, b"one")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("unplugged")))
    with pytest.raises(OSError, match="unplugged"):
        write_atomically(target, b"two")
    assert target.read_bytes() == b"one"
    monkeypatch.undo()
    write_atomically(target, b"two")
    assert target.read_bytes() == b"two" and [p.name for p in target.parent.iterdir()] == ["file.txt"]
