"""What goes wrong around a run is one clear sentence, and nothing that was learned is lost."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_processes import ROOT, environment, export
from toys import all_losses, learned, toy_base, toy_dataset, toy_features, toy_run

from comfy_scoft.common.errors import ADVICE
from comfy_scoft.data.records import Dataset
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss
from comfy_scoft.training import checkpoint
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training.run import Callbacks, Run

SHAPE: dict[str, Any] = {"steps": 4, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return toy_dataset(tmp_path_factory.mktemp("toys") / "data")


@pytest.fixture(scope="module")
def expected(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """The LoRA of the run that nothing disturbs."""
    run = toy_run(tmp_path_factory.mktemp("whole"), all_losses(), dataset=data, **SHAPE)
    runs.train_and_log(run)
    return learned(run)


def goes_on(run: Run, expected: torch.Tensor, step: int) -> None:
    """Every checkpoint that is there is whole, the newest is of `step`, and going on gives the undisturbed LoRA."""
    saved = checkpoint.newest(run.folder)
    assert saved is not None and saved.step == step and not checkpoint.damaged(run.folder)
    assert not list(run.folder.rglob("*.part")), "a full disk needs the room"
    run.base, run.resume = toy_base(), True
    _, rows = runs.train_and_log(run)
    assert torch.equal(learned(run), expected) and [row["step"] for row in rows] == [1, 2, 3, 4]


def full_from(step: int, run: Run, monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
    """Opening a file to write in the run's folder fails as soon as the checkpoint of `step` is there."""
    real = Path.open

    def opened(self: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if set(mode) & set("wa+") and run.folder in self.parents and checkpoint.newest_step(run.folder) >= step:
            raise OSError(number, os.strerror(number), str(self))
        return real(self, mode, *more, **named)

    monkeypatch.setattr(Path, "open", opened)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ENOLCK], ids=errno.errorcode.get)
def test_a_disk_that_takes_no_more_is_one_sentence(number: int, data, expected, tmp_path: Path, monkeypatch) -> None:
    run, said = toy_run(tmp_path, all_losses(), dataset=data, **SHAPE), []
    with monkeypatch.context() as patch:
        full_from(2, run, patch, number)
        with pytest.raises(ValueError) as fault:
            runs.train_and_log(run, Callbacks(on_message=said.append))
    assert str(fault.value) == (
        f"The run 'run' could not be written ({os.strerror(number)}), so it stopped; {ADVICE[number]}, then go on with "
        "resume."
    )
    assert (
        len(said) == 1 and f"The checkpoint of step 3 could not be written to 'run' ({os.strerror(number)})" in said[0]
    )
    assert f"but step 2 is kept; {ADVICE[number]}, then go on" in said[0]
    goes_on(run, expected, 2)


@pytest.mark.parametrize("file", [checkpoint.LORA, checkpoint.OPTIMIZER, checkpoint.STATE, "rename"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_it(
    file: str, data, expected, tmp_path: Path, monkeypatch
) -> None:
    run = toy_run(tmp_path, all_losses(), dataset=data, **SHAPE)
    save_file, write_text, replace = checkpoint.save_file, Path.write_text, os.replace

    def fail(name: str) -> None:
        if name == file and checkpoint.newest_step(run.folder) >= 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def saved(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half a file")
        fail(path.name)
        save_file(tensors, path)

    def written(self: Path, *text: Any, **named: Any) -> int:
        fail(self.name)
        return write_text(self, *text, **named)

    def renamed(one: Path, other: Path) -> None:
        if Path(other).name.startswith("checkpoint-"):
            fail("rename")
        replace(one, other)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", saved)
        patch.setattr(Path, "write_text", written)
        patch.setattr(os, "replace", renamed)
        with pytest.raises(ValueError, match=r"^The checkpoint of step 2 could not be written to 'run' .No space left"):
            runs.train_and_log(run)
    goes_on(run, expected, 1)


def test_where_one_checkpoint_is_kept_a_damaged_newer_one_does_not_cost_it(data, expected, tmp_path: Path) -> None:
    run, step = toy_run(tmp_path, all_losses(), dataset=data, keep=1, **SHAPE), []

    def damaged_newer(now: int, row: dict[str, float]) -> None:
        step.append(checkpoint.newest_step(run.folder))
        broken = run.folder / "checkpoint-00000099"
        broken.mkdir(exist_ok=True)
        (broken / checkpoint.STATE).write_text("{")

    runs.train_and_log(run, Callbacks(on_step=damaged_newer))
    assert step == [-1, 1, 2, 3] and checkpoint.newest_step(run.folder) == 4 and torch.equal(learned(run), expected)


REALLY_FULL = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from toys import all_losses, toy_base, toy_dataset, toy_run
from comfy_scoft.training import checkpoint
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training.run import Callbacks

root = Path(sys.argv[3])
shape = {"dataset": toy_dataset(root / "data"), "steps": 4, "checkpoint_every": 1}

def fails(run, watch=Callbacks()):
    try:
        runs.train_and_log(run, watch)
    except ValueError as error:
        print(error)

def full(step, row):
    if step == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))

fails(toy_run(root, all_losses(), **shape), Callbacks(on_step=full))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
other = toy_run(root, all_losses(), run_folder=root / "other", **shape)
def to_a_device(step, row):
    (other.folder / "metrics.jsonl").unlink()
    (other.folder / "metrics.jsonl").symlink_to("/dev/full")
fails(other, Callbacks(on_step=to_a_device))
"""


@pytest.mark.long
def test_the_system_itself_refuses_to_write(data, expected, tmp_path: Path) -> None:
    """Files of at most 2000 bytes, set by the system for the process; and a device in the place of a file."""
    command = [sys.executable, "-c", REALLY_FULL, str(ROOT), str(ROOT / "tests"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment())
    assert done.returncode == 0, done.stderr
    too_large, device = done.stdout.splitlines()[-2:]
    assert (
        too_large.startswith("The checkpoint of step 2 could not be written to 'run' (")
        and "File too large" in too_large
    )
    assert "but step 1 is kept; choose a disk that takes larger files" in too_large
    assert device.startswith("The run 'other' could not be written (not a regular file), so it stopped;")
    goes_on(toy_run(tmp_path, all_losses(), dataset=data, **SHAPE), expected, 1)
    assert checkpoint.newest_step(tmp_path / "other") == 2


def test_a_folder_that_cannot_be_made_or_locked_is_one_sentence(data: Dataset, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    run = toy_run(tmp_path, [DiffusionLoss()], dataset=data, run_folder=tmp_path / "file" / "run")
    with pytest.raises(ValueError, match=r"^The run 'run' could not be written .Not a directory., so it stopped;"):
        runs.train_and_log(run)
    with pytest.raises(ValueError, match="cannot be written below 'file'"):
        runs.run_folder(tmp_path / "file", "run")
    (tmp_path / "run" / runs.LOCK).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"^The run 'run' could not be written .Is a directory."):
        runs.train_and_log(toy_run(tmp_path, [DiffusionLoss()], dataset=data))


@pytest.mark.parametrize("which", ["picture", "negative"])
@pytest.mark.long
def test_a_picture_that_is_gone_in_mid_run_and_put_back_costs_nothing(which: str, tmp_path: Path) -> None:
    """Features are read when they are first asked for; here that is after the image has gone."""
    losses = [DiffusionLoss(), ContrastiveLoss(toy_features(), weight=0.5)]
    shape = {"steps": 6, "batch_size": 2, "every": 2, "dataset": toy_dataset(tmp_path / "data", (1, 2, 1, 1))}
    whole = toy_run(tmp_path, losses, run_folder=tmp_path / "whole", **shape)
    runs.train_and_log(whole)
    run = toy_run(tmp_path, losses, **shape)
    gone = [record.image if which == "picture" else record.negatives[0] for record in run.dataset.records]
    kept = {path: path.read_bytes() for path in gone}

    def remove(step: int, row: dict[str, float]) -> None:
        for path in gone if step == 1 else ():
            path.unlink()

    with pytest.raises(ValueError, match=r"^The image \w+\.png is not in data: put it there or remove its record\.$"):
        runs.train_and_log(run, Callbacks(on_step=remove))
    step = checkpoint.newest_step(run.folder)
    assert step >= 1
    for path, content in kept.items():
        path.write_bytes(content)
    again = toy_run(tmp_path, losses, resume=True, **shape)
    runs.train_and_log(again)
    assert torch.equal(learned(again), learned(whole))


def test_a_second_process_on_the_same_run_is_refused_and_harms_nothing(data, expected, tmp_path: Path) -> None:
    run, faults = toy_run(tmp_path, all_losses(), dataset=data, **SHAPE), []
    other = "\n".join(
        [
            "import sys; from pathlib import Path; from comfy_scoft.training.run_folder import alone",
            "try:\n    with alone(Path(sys.argv[1])): print('taken')",
            "except ValueError as error: print(error)",
        ]
    )

    def intrude(step: int, row: dict[str, float]) -> None:
        if step == 2:
            command = [sys.executable, "-c", other, str(run.folder)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment())
            faults.append(done.stdout.strip())
            with pytest.raises(ValueError, match="is being trained by another process"), runs.alone(run.folder):
                pass

    runs.train_and_log(run, Callbacks(on_step=intrude))
    assert faults == ["The run 'run' is being trained by another process; wait for it, or choose another run name."]
    assert torch.equal(learned(run), expected)
    with runs.alone(run.folder):
        assert runs.run_folder(tmp_path, "run").name == "run-2", "a second run of the same name has a folder of its own"


# --- the command line ---


def begun(path: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "comfy_scoft", "train", str(path), "--out", str(out), "--threads", "1", *more]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(), cwd=ROOT, **pipes)


def sentences(stderr: str) -> list[str]:
    """What a person reads on stderr: no progress bar, no chatter of libraries, no line on memory before training."""
    lines = [line.strip() for line in stderr.replace("\r", "\n").splitlines()]
    chatter = ("Failed to load CPU gemm", "The config attributes", "Please verify", "Memory: about ")
    return [line for line in lines if line and not line.startswith(("step ", "starting", "resuming", *chatter))]


def when(ready: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 200) -> None:
    patience = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None and time.monotonic() < patience, process.communicate()
        time.sleep(0.02)


@pytest.mark.long
def test_a_terminated_command_line_says_one_sentence_and_keeps_what_was_learned(tmp_path: Path) -> None:
    """SIGTERM, as clusters send it; the run then does not go on with other settings, which is one sentence too."""
    path = export(tmp_path, steps=5_000)
    folder = tmp_path / "out" / "runs" / "toys"
    process = begun(path, tmp_path / "out")
    when(lambda: len(runs.read_metrics(folder)) >= 3, process)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 130 and stdout == ""
    planned, stopped = sentences(stderr)
    assert re.fullmatch(r"\d+ UNet calls planned\.", planned)
    assert stopped == f"Stopped at step {checkpoint.newest_step(folder)} and saved. Add --resume to go on."
    step = checkpoint.newest_step(folder)
    assert 3 <= step < 5_000 and not checkpoint.damaged(folder)
    content = json.loads(path.read_text())
    content["settings"]["train"]["seed"] += 1
    path.write_text(json.dumps(content))
    process = begun(path, tmp_path / "out", "--resume")
    stdout, stderr = process.communicate(timeout=200)
    (sentence,) = sentences(stderr)
    assert process.returncode == 1 and sentence.startswith(
        "The run 'toys' was started with other settings (train.seed 7 → 8)"
    )
    assert checkpoint.newest_step(folder) == step and list(
        load_file(checkpoint.newest(folder).folder / checkpoint.LORA)
    )
