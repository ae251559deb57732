"""Several processes train one LoRA: that of a single process, whatever their number and whatever stops them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys import learned, toy_base, toy_dataset, toy_features, toy_run
from two_processes import SHAPES, WORK, fork, gradients_of, run_of, together

from comfy_scoft.features import load_features
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, MemorizationLoss
from comfy_scoft.training import checkpoint, job
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training.distributed import Distributed
from comfy_scoft.training.latent_cache import Cache

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Done:
    """Of two processes: the folder they worked in, their statuses, and what each of them wrote."""

    folder: Path
    statuses: list[int]
    facts: list[dict[str, Any]]
    tensors: list[dict[str, torch.Tensor]]


def environment() -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "tests")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def by_two(work: Callable[[int, Path], int], folder: Path) -> Done:
    """Let two processes do it, forks of this one, in a new folder."""
    folder.mkdir()
    statuses = fork(work, folder, 2)
    assert all((folder / f"{rank}.json").exists() for rank in (0, 1)), statuses
    files = [folder / f"{rank}.safetensors" for rank in (0, 1)]
    facts = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    return Done(folder, statuses, facts, [load_file(file) if file.exists() else {} for file in files])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """What two processes made of each work of two_processes.py."""
    root = tmp_path_factory.mktemp("two")
    return {work.__name__: by_two(work, root / work.__name__) for work in WORK}


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.long
def test_two_processes_have_the_gradients_and_the_lora_of_one(name: str, done: dict[str, Done], tmp_path: Path) -> None:
    """Over uneven shares, rollouts in one process only, half precision, and steps in which nothing is learned."""
    trained_as_one(name, done["together"], tmp_path)


def test_two_processes_share_three_passes_and_train_the_lora_of_one(tmp_path: Path) -> None:
    name = "three over two"
    trained_as_one(name, by_two(lambda rank, folder: together(rank, folder, [name]), tmp_path / "two"), tmp_path)


def trained_as_one(name: str, two: Done, tmp_path: Path) -> None:
    half = name == "fp16"
    assert two.statuses == [0, 0] and two.facts[0][name] == two.facts[1][name]
    for kind in ("gradients", "lora"):
        assert torch.equal(two.tensors[0][f"{name}|{kind}"], two.tensors[1][f"{name}|{kind}"]), kind
    alone = run_of(name, tmp_path)
    gradients, rows = gradients_of(alone)
    found, first = two.tensors[0][f"{name}|gradients"], learned(alone).numel()
    close = 2e-2 if half else 1e-6 if alone.settings.micro_batch == 1 else 3e-5
    assert len(found) == len(gradients) and apart(found[:first], gradients[:first]) < close
    assert apart(two.tensors[0][f"{name}|lora"], learned(alone)) < (5e-2 if half else 1e-3)
    for row, wanted in zip(two.facts[0][name], rows, strict=True):
        assert row == pytest.approx(wanted, rel=0.1 if half else 1e-3)


@pytest.mark.long
def test_only_the_first_process_writes_the_files(done: dict[str, Done]) -> None:
    assert sorted(entry.name for entry in (done["together"].folder / "ema").iterdir()) == ["checkpoint-00000003"]
    assert not (done["one_stops"].folder / "run-2").exists()


@pytest.mark.long
def test_a_fault_in_one_process_ends_all_with_its_sentence_and_the_last_step_is_kept(done: dict[str, Done]) -> None:
    work = done["one_stops"]
    first, second = work.facts
    assert work.statuses == [3, 3]
    assert second["says"] == "The image 3.png is not in data: put it there or remove its record."
    assert first["says"] == "Another process stopped, so this one stops too; what was learned is kept."
    assert first["kind"] == "OtherProcess" and checkpoint.newest_step(work.folder / "run") == 2
    assert [row["step"] for row in runs.read_metrics(work.folder / "run")] == [1, 2]


@pytest.mark.long
def test_a_first_process_that_cannot_write_ends_the_other(done: dict[str, Done]) -> None:
    first, second = done["first_cannot_write"].facts
    assert done["first_cannot_write"].statuses == [3, 3] and second["kind"] == "OtherProcess"
    assert "No space left on device), but step 1 is kept" in first["says"]


@pytest.mark.long
def test_a_lack_of_memory_in_one_process_makes_all_go_on_with_less(done: dict[str, Done], tmp_path: Path) -> None:
    work = done["one_is_short_of_memory"]
    assert work.statuses == [0, 0] and work.facts[0] == work.facts[1]
    assert work.facts[0]["economy"]["micro_batch"] == 1
    assert work.facts[0]["said"][-1] == "Memory ran out in step 2; training goes on with one image at a time."
    assert torch.equal(work.tensors[0]["lora"], work.tensors[1]["lora"])
    data = toy_dataset(work.folder / "data")
    whole = toy_run(tmp_path, [DiffusionLoss()], dataset=data, batch_size=4, steps=3)
    runs.train_and_log(whole)
    assert apart(work.tensors[0]["lora"], learned(whole)) < 1e-3


@pytest.mark.long
def test_what_is_frozen_is_computed_by_one_process_and_known_to_both(done: dict[str, Done]) -> None:
    work = done["fill"]
    assert [fact["made"] for fact in work.facts] == [fact["calls"] for fact in work.facts] == [3, 3], "six over two"
    one, other = work.tensors
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    cache, network = Cache(toy_base(kl=True), toy_dataset(work.folder / "data", (1, 0, 2)), 64), toy_features()
    for index, flip in cache.samples():
        assert torch.equal(one[f"mean {index} {flip}"], cache.latent((index, flip))[0])
        for kind, expected in zip(("own", "negatives"), cache.features(network, (index, flip)), strict=True):
            assert torch.equal(one[f"{kind} {index} {flip}"], expected)


def test_shares_are_all_there_is_and_one_process_alone_asks_nobody() -> None:
    items = list(range(7))
    shares = [Distributed(rank, 3).share(items) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]] and sorted(sum(shares, [])) == items
    alone = Distributed()
    assert alone.main and alone.share(items) == items and alone.gather("x") == ["x"] and alone.first(3) == 3
    assert alone.worst(2, torch.device("cpu")) == 2 and alone.sum_values([1.5], torch.device("cpu")) == [1.5]


# --- the command line, as it is launched on a cluster ---


def export(tmp_path: Path, **changes: Any) -> Path:
    network = load_features("mini CLIP (layer 5)")
    losses = [DiffusionLoss(), MemorizationLoss(), ContrastiveLoss(network, weight=0.5)]
    shape = {"accumulation": 3, "every": 2, "steps": 40, "checkpoint_every": 1000, "validate_every": 0}
    return job.write_job(toy_run(tmp_path, losses, **{**shape, **changes}), tmp_path / "jobs" / "toys")


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
"""`--multi_gpu` is right without a GPU too: with `--cpu`, accelerate starts one process whatever is asked for."""


def launch(command: list[str], path: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    train = ["-m", "comfy_scoft", "train", str(path), "--out", str(out), "--threads", "1", *more]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, *train], env=environment(), cwd=ROOT, start_new_session=True, **pipes)


def ended(process: subprocess.Popen[str], seconds: float = 300.0) -> str:
    """All that a launched process and its children said, when they have ended; they are ended after `seconds`."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def lora_of(out: Path) -> dict[str, torch.Tensor]:
    (file,) = out.glob("toys_*.safetensors")
    return load_file(file)


@pytest.mark.long
def test_torchrun_trains_the_lora_of_one_process_and_goes_on_bit_for_bit_after_ctrl_c(tmp_path: Path) -> None:
    path = export(tmp_path)
    whole = launch(TORCHRUN, path, tmp_path / "whole")
    text = ended(whole)
    assert whole.returncode == 0, text
    assert {file.name for file in (tmp_path / "whole").iterdir()} == {"runs", "toys_00001.md", "toys_00001.safetensors"}
    assert [entry.name for entry in (tmp_path / "whole" / "runs").iterdir()] == ["toys"]
    rows = runs.read_metrics(tmp_path / "whole" / "runs" / "toys")
    assert [row["step"] for row in rows] == list(range(1, 41))

    _, alone, _ = job.run_job(job.read_job(path), tmp_path / "alone")
    found = lora_of(tmp_path / "whole")
    flat = [torch.cat([lora[key].float().flatten() for key in found]) for lora in (found, alone.lora)]
    assert found.keys() == alone.lora.keys() and apart(*flat) < 2e-2, "forty steps of rounding"

    cut = launch(TORCHRUN, path, tmp_path / "cut")
    folder, patience = tmp_path / "cut" / "runs" / "toys", time.monotonic() + 300
    while len(runs.read_metrics(folder)) < 4 and time.monotonic() < patience:
        time.sleep(0.02)
    cut.send_signal(signal.SIGINT)
    text = ended(cut)
    step = checkpoint.newest_step(folder)
    assert cut.returncode != 0 and 4 <= step < 40 and f"Stopped at step {step} and saved." in text, text
    again = launch(TORCHRUN, path, tmp_path / "cut", "--resume")
    text = ended(again)
    assert again.returncode == 0, text
    found_again = lora_of(tmp_path / "cut")
    assert all(torch.equal(found_again[key], found[key]) for key in found)
    assert runs.read_metrics(folder) == rows


@pytest.mark.long
def test_accelerate_launches_two_processes_too(tmp_path: Path) -> None:
    path = export(tmp_path, steps=3)
    plain = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    done = launch([*ACCELERATE, *plain], path, tmp_path / "out")
    text = ended(done)
    assert done.returncode == 0, text
    _, alone, rows = job.run_job(job.read_job(path), tmp_path / "alone")
    its_rows = runs.read_metrics(tmp_path / "out" / "runs" / "toys")
    assert [row["step"] for row in its_rows] == [1, 2, 3] and its_rows != rows, "two processes round differently"
    for row, wanted in zip(its_rows, rows, strict=True):
        assert row == pytest.approx(wanted, rel=1e-2)
    assert lora_of(tmp_path / "out").keys() == alone.lora.keys()
