"""TensorBoard as a tracker: its own reader finds the figures of metrics.jsonl."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys import Interrupted, all_losses, toy_dataset, toy_run

from comfy_scoft.losses import DiffusionLoss
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training.run import Callbacks


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by name, as TensorBoard shows them."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def single(value: float) -> float:
    """As a float of 32 bits, which is what TensorBoard keeps."""
    return struct.unpack("f", struct.pack("f", value))[0]


def figures(rows: list[dict[str, float]]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key != "step":
                found.setdefault(key, []).append((int(row["step"]), single(value)))
    return found


def test_tensorboard_reads_the_values_of_the_metrics_over_a_resume_too(tmp_path: Path) -> None:
    data, held_out = toy_dataset(tmp_path / "data"), toy_dataset(tmp_path / "held out", (0,), seed=9)
    shape = {"dataset": data, "validation": held_out, "validate_every": 2, "steps": 5, "tracker": "TensorBoard"}

    def stop(step: int, row: dict[str, float]) -> None:
        if step == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        runs.train_and_log(toy_run(tmp_path, all_losses(), **shape), Callbacks(on_step=stop))
    _, rows = runs.train_and_log(toy_run(tmp_path, all_losses(), resume=True, **shape))
    folder = tmp_path / "run" / "tensorboard"
    found, expected = read(folder), figures(rows)
    assert {"diffusion", "contrastive", "validation", "training_pictures", "learning_rate"} <= expected.keys()
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert sorted(set(found[key])) == sorted(values), key


def test_the_tracker_changes_nothing_that_is_learned_and_off_writes_no_events(tmp_path: Path) -> None:
    data, found = toy_dataset(tmp_path / "data"), []
    for tracker in ("off", "TensorBoard"):
        run = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / tracker, dataset=data, tracker=tracker)
        found.append(runs.train_and_log(run))
        assert bool(list(run.folder.rglob("events.out.tfevents*"))) == (tracker == "TensorBoard")
    assert found[0][1] == found[1][1]


def test_a_missing_tensorboard_is_one_sentence_before_anything_is_trained(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    run = toy_run(tmp_path, [DiffusionLoss()], tracker="TensorBoard")
    with pytest.raises(ValueError) as fault:
        runs.train_and_log(run)
    assert str(fault.value) == (
        "The tracker is TensorBoard, which is not installed; run `python install.py tensorboard` in this pack's folder "
        "with ComfyUI's own Python, or set the tracker to off."
    )
    assert run.base.calls == 0
    runs.discard_empty(run.folder)
    assert not run.folder.exists()
