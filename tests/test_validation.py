"""Held-out images: measured the same way every time, never learned, and overfitting is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import Interrupted, all_losses, learned, toy_base, toy_dataset, toy_run

from comfy_scoft.data.dataset import load_folder
from comfy_scoft.data.records import Dataset
from comfy_scoft.losses import DiffusionLoss
from comfy_scoft.mini_world import COMMUNITY
from comfy_scoft.models.lora import attach
from comfy_scoft.models.mini import layout
from comfy_scoft.models.single_file import load_base
from comfy_scoft.training import run_folder as runs
from comfy_scoft.training.batches import seed_of
from comfy_scoft.training.latent_cache import Cache
from comfy_scoft.training.run import Callbacks, Run
from comfy_scoft.training.trainer import train
from comfy_scoft.training.validation import HELD_OUT, TRAINED, measure, reading, spread


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    root = tmp_path_factory.mktemp("toys")
    return toy_dataset(root / "data"), toy_dataset(root / "held out", (0, 1), seed=44)


def measured(run: Run, batch: int = 4) -> dict[str, float]:
    attach(run.base.unet, run.lora, torch.Generator().manual_seed(0))
    assert run.validation is not None
    caches = Cache(run.base, run.dataset, 64), Cache(run.base, run.validation, 64)
    return measure(*caches, seed=run.settings.seed, batch=batch)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_it_is_the_mean_of_equation_1_by_hand_and_always_the_same(prediction: str, sets, tmp_path: Path) -> None:
    data, held_out = sets
    run = toy_run(tmp_path, [DiffusionLoss()], base=toy_base(prediction, kl=True), dataset=data, validation=held_out)
    found = measured(run)
    values = []
    base, table = run.base, run.base.schedule.alphas_cumprod
    for index, record in enumerate(held_out.records):
        noise = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(seed_of(7, 0x5C0F7, index)))
        z = Cache(base, held_out, 64).latent((index, False))[0]
        for k, t in enumerate((125, 375, 625, 875)):
            a = float(table[t])
            z_t = a**0.5 * z + (1 - a) ** 0.5 * noise[k]
            target = noise[k] if prediction == "epsilon" else a**0.5 * noise[k] - (1 - a) ** 0.5 * z
            with torch.no_grad():
                made = base.predict(z_t[None], torch.tensor([t]), [record.caption])[0]
            values.append(float((target - made).square().mean()))
    assert found[HELD_OUT] == pytest.approx(np.mean(values), rel=1e-5) and len(values) == 8
    torch.manual_seed(1)
    assert measured(run) == found, "to the bit, whatever was drawn in between"
    assert measured(run, batch=1) == pytest.approx(found, rel=1e-5)
    other = dataclasses.replace(run, settings=dataclasses.replace(run.settings, seed=8))
    assert measured(other)[HELD_OUT] != found[HELD_OUT]


def test_as_many_trained_pictures_as_held_out_ones_are_measured_evenly_spread(sets, tmp_path: Path) -> None:
    data, held_out = sets
    run = toy_run(tmp_path, [DiffusionLoss()], dataset=data, validation=held_out)
    before = run.base.calls
    measured(run)
    assert run.base.calls - before == 2 + 2
    assert spread([(i, False) for i in range(10)], 4) == [(0, False), (2, False), (5, False), (7, False)]
    assert spread([(0, False)], 4) == [(0, False)]


@pytest.mark.parametrize(
    "change",
    [
        {"ema": 0.9, "dropout": 0.5},
        *(pytest.param(c, marks=pytest.mark.long) for c in ({}, {"precision": "bf16"}, {"micro_batch": 1})),
    ],
)
def test_measuring_changes_nothing_that_is_learned(change: dict, sets, tmp_path: Path) -> None:
    data, held_out = sets
    found = []
    for every, validation in ((1, held_out), (2, held_out), (50, None), (0, held_out)):
        shape = {"dataset": data, "validation": validation, "validate_every": every, "accumulation": 2, "steps": 4}
        run = toy_run(tmp_path, all_losses(), run_folder=tmp_path / f"{every}", **shape, **change)
        found.append((train(run), learned(run)))
    steps = [[row["step"] for row in result.metrics if HELD_OUT in row] for result, _ in found]
    assert steps == [[0, 1, 2, 3, 4], [0, 2, 4], [], []]
    assert all(torch.equal(lora, found[0][1]) for _, lora in found)
    trained = [[row for row in result.metrics if HELD_OUT not in row] for result, _ in found]
    assert all(rows == trained[0] for rows in trained)


@pytest.mark.long
def test_the_rows_of_a_run_cut_in_two_are_those_of_the_uninterrupted_one(sets, tmp_path: Path) -> None:
    data, held_out = sets
    shape = {"dataset": data, "validation": held_out, "validate_every": 2, "steps": 6, "ema": 0.5}
    whole, expected = runs.train_and_log(toy_run(tmp_path, all_losses(), run_folder=tmp_path / "a", **shape))
    assert [row["step"] for row in expected if HELD_OUT in row] == [0, 2, 4, 6]

    for name, wanted, held in (("before", 3, False), ("at", 4, False), ("measured", 4, True)):

        def stop(step: int, row: dict, wanted: int = wanted, held: bool = held) -> None:
            if step == wanted and (HELD_OUT in row) == held:
                raise Interrupted

        run = toy_run(tmp_path, all_losses(), run_folder=tmp_path / name, **shape)
        with pytest.raises(Interrupted):
            runs.train_and_log(run, Callbacks(on_step=stop))
        again = toy_run(tmp_path, all_losses(), run_folder=tmp_path / name, resume=True, **shape)
        result, rows = runs.train_and_log(again)
        assert rows == expected == runs.read_metrics(run.folder), name
        assert all(torch.equal(result.lora[k], whole.lora[k]) for k in whole.lora)


def test_a_run_that_stopped_in_its_first_step_leaves_no_row_twice(sets, tmp_path: Path) -> None:
    data, held_out = sets

    def stop(step: int, row: dict) -> None:
        raise Interrupted

    shape = {"dataset": data, "validation": held_out, "steps": 2}
    with pytest.raises(Interrupted):
        runs.train_and_log(toy_run(tmp_path, [DiffusionLoss()], **shape), Callbacks(on_step=stop))
    _, rows = runs.train_and_log(toy_run(tmp_path, [DiffusionLoss()], **shape))
    assert [row["step"] for row in rows] == [0, 1, 2, 2] and rows == runs.read_metrics(tmp_path / "run")


def rows_of(held_out: list[float], trained: list[float]) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for i, (one, other) in enumerate(zip(held_out, trained, strict=True)):
        rows += [{"step": 10 * i, HELD_OUT: one, TRAINED: other}, {"step": 10 * i + 1, "diffusion": 1.0}]
    return rows


def test_overfitting_is_read_from_the_rows() -> None:
    text = reading(rows_of([1.0, 0.8, 0.84, 0.9], [1.0, 0.7, 0.5, 0.3]))
    assert text == (
        "Overfitting: the loss on held-out images was lowest at step 10 (0.8000) and is 12 % above that now, and the "
        "gap to trained-on images went from +0.0000 to +0.6000; take the LoRA of an earlier step, or train for fewer."
    )
    fine = reading(rows_of([1.0, 0.8, 0.81], [1.1, 0.8, 0.7]))
    assert fine.startswith("No overfitting seen: the loss on held-out images went from 1.0000 to 0.8100, and the gap")
    assert "from -0.1000 to +0.1100" in fine
    assert reading(rows_of([1.0], [1.0])) == reading([{"step": 1, "diffusion": 1.0}]) == reading([]) == ""


@pytest.mark.long
def test_a_run_that_learns_one_picture_by_heart_is_named(tmp_path: Path) -> None:
    """A hundred steps of the mini model on one image; other images of the same people were held out."""
    community, _ = load_folder(COMMUNITY)
    train_on, held_out = community.split("train").records[:1], community.split("test").records[:3]
    shape = {"dataset": community.replace(train_on), "validation": community.replace(held_out), "validate_every": 20}
    shape |= {"steps": 100, "schedule": "constant", "learning_rate": 4e-3, "rank": 32, "alpha": 32.0, "flip": False}
    base = load_base(layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT)
    run = toy_run(tmp_path, [DiffusionLoss()], base=base, targets="attention + feed-forward", **shape)
    _, rows = runs.train_and_log(run)
    held = [row for row in rows if HELD_OUT in row]
    assert held[-1][TRAINED] < 0.3 * held[0][TRAINED], json.dumps(held)
    assert held[-1][HELD_OUT] > 1.1 * min(row[HELD_OUT] for row in held), json.dumps(held)
    assert reading(rows).startswith("Overfitting: the loss on held-out images was lowest at step "), reading(rows)
