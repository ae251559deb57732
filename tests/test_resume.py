"""Runs that stop and go on: seeds, resuming, checkpoints, and what a fault must not destroy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toys import all_losses, learned, toy_base, toy_dataset, toy_features, toy_run

from comfy_scoft import checkpoint, trainer
from comfy_scoft.cache import Cache
from comfy_scoft.errors import Interrupted, NonFiniteLoss
from comfy_scoft.lora import trainable
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, LossContext, MemorizationLoss
from comfy_scoft.trainer import Run, train


def stop_at(call: int, error: BaseException):
    """A `check` that raises at its n-th call."""
    seen = [0]

    def check() -> None:
        seen[0] += 1
        if seen[0] == call:
            raise error

    return check


def saved_files(run: Run) -> dict[str, Tensor]:
    """LoRA and optimizer state of the newest checkpoint."""
    folder = checkpoint.newest(run.folder).folder
    return {
        f"{name}:{k}": v
        for name in (checkpoint.LORA, checkpoint.OPTIMIZER)
        for k, v in load_file(folder / name).items()
    }


def test_same_seed_same_lora_bit_for_bit_and_another_seed_differs(tmp_path: Path) -> None:
    data = toy_dataset(tmp_path / "data")
    torch.manual_seed(1)
    a = toy_run(tmp_path, all_losses(), dataset=data, run_folder=tmp_path / "a", batch_size=2, gradient_step="random")
    first = train(a)
    b = toy_run(tmp_path, all_losses(), dataset=data, run_folder=tmp_path / "b", batch_size=2, gradient_step="random")
    torch.manual_seed(2)  # no global number may matter
    state = torch.get_rng_state()
    second = train(b)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(learned(a), learned(b)) and first.metrics == second.metrics
    assert all(torch.equal(first.lora[k], second.lora[k]) for k in first.lora)
    c = toy_run(tmp_path, all_losses(), dataset=data, run_folder=tmp_path / "c", batch_size=2, seed=8)
    train(c)
    assert (learned(a) - learned(c)).abs().max() > 1e-3


@pytest.mark.parametrize(
    "accumulation, batch, calls", [(1, 1, (1, 5, 9)), (4, 1, (13, 40)), (1, 4, (7,)), (4, 3, (25,))]
)
def test_resuming_after_a_stop_anywhere_equals_the_uninterrupted_run_bit_for_bit(
    accumulation: int, batch: int, calls: tuple[int, ...], tmp_path: Path
) -> None:
    """`calls`: the run is stopped before these UNet calls, one after another, and gone on with each time."""
    shape = {"accumulation": accumulation, "batch_size": batch, "dataset": toy_dataset(tmp_path / "data")}
    shape["gradient_step"] = "random"
    whole = toy_run(tmp_path, all_losses(), run_folder=tmp_path / "whole", **shape)
    train(whole)
    parts = None
    for call in calls:
        parts = toy_run(tmp_path, all_losses(), run_folder=tmp_path / "parts", resume=True, **shape)
        with pytest.raises(Interrupted):
            train(parts, check=stop_at(call, Interrupted()))
    parts = dataclasses.replace(parts, base=toy_base())
    result = train(parts)
    assert result.steps == 3 and torch.equal(learned(whole), learned(parts))
    one, other = saved_files(whole), saved_files(parts)
    assert one.keys() == other.keys() and len(one) == 4 * len(trainable(whole.base.unet))
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()])
    first = train(run)
    again = train(dataclasses.replace(run, base=toy_base(), resume=True))
    assert again.steps == 3 and again.metrics == []
    assert all(torch.equal(first.lora[k], again.lora[k]) for k in first.lora)


def test_a_run_is_never_mixed_with_another(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()])
    train(run)
    with pytest.raises(ValueError, match="exists already"):
        train(run)
    for change, word in (
        ({"seed": 9}, "train"),
        ({"rank": 3}, "lora"),
        ({"every": 5}, "rollout"),
        ({"clip": 0.5}, "optimizer"),
    ):
        other = toy_run(tmp_path, [DiffusionLoss()], dataset=run.dataset, resume=True, **change)
        with pytest.raises(ValueError, match=rf"other settings \({word}\)"):
            train(other)
    with pytest.raises(ValueError, match=r"other settings \(losses\)"):
        train(toy_run(tmp_path, [DiffusionLoss(weight=0.5)], dataset=run.dataset, resume=True))
    fewer = run.dataset.replace(run.dataset.records[:2])
    with pytest.raises(ValueError, match=r"other settings \(dataset\)"):
        train(toy_run(tmp_path, [DiffusionLoss()], dataset=fewer, resume=True))


def test_training_works_twice_on_one_base_model(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()])
    first = train(run)
    second = train(dataclasses.replace(run, folder=tmp_path / "second"))
    assert all(torch.equal(first.lora[k], second.lora[k]) for k in first.lora)


def test_dropout_is_seeded_and_leaves_frozen_predictions_and_the_global_generator_alone(tmp_path: Path) -> None:
    runs = [toy_run(tmp_path, all_losses(), run_folder=tmp_path / str(i), dropout=0.5) for i in range(2)]
    for i, run in enumerate(runs):
        torch.manual_seed(i)
        state = torch.get_rng_state()
        train(run)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(learned(runs[0]), learned(runs[1]))
    base, z, t = runs[0].base, torch.ones(1, 4, 8, 8), torch.tensor([500])
    with torch.no_grad():
        assert torch.equal(base.predict(z, t, ["a"]), base.predict(z, t, ["a"]))
    assert not torch.equal(base.predict(z, t, ["a"]), base.predict(z, t, ["a"]))


@dataclasses.dataclass(frozen=True)
class BrokenLoss:
    """Becomes NaN at its third call."""

    name: ClassVar[str] = "broken term"
    uses_rollout: ClassVar[bool] = False
    weight: float = 1.0
    at: int = 3
    calls: list = dataclasses.field(default_factory=list)

    def __call__(self, context: LossContext) -> Tensor:
        self.calls.append(1)
        value = context.prediction.square().flatten(1).mean(1)
        return value * float("nan") if len(self.calls) == self.at else value


def test_a_nan_loss_stops_names_its_term_and_keeps_the_last_good_lora(tmp_path: Path) -> None:
    good, run = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "good"), None
    states = []
    train(good, observe=lambda step, row: states.append(learned(good).clone()))
    run = toy_run(tmp_path, [DiffusionLoss(), BrokenLoss(weight=0.0)])
    with pytest.raises(NonFiniteLoss, match="broken term"):
        train(run)
    saved = checkpoint.newest(run.folder)
    assert saved.step == 2
    kept = load_file(saved.folder / checkpoint.LORA)
    names = list(trainable(run.base.unet))
    assert torch.equal(torch.cat([kept[n].flatten() for n in names]), states[1])


def test_a_gradient_that_is_no_number_stops_before_the_lora_is_touched(tmp_path: Path, monkeypatch) -> None:
    run, real = toy_run(tmp_path, [DiffusionLoss()]), trainer.micro_step

    def poisoned(run: Run, cache: Cache, micro: int, check) -> tuple[Tensor, dict[str, float]]:
        total, terms = real(run, cache, micro, check)
        if micro == 2:
            total.register_hook(lambda g: g * float("inf"))
        return total, terms

    monkeypatch.setattr(trainer, "micro_step", poisoned)
    with pytest.raises(NonFiniteLoss, match="gradient of step 3"):
        train(run)
    assert checkpoint.newest(run.folder).step == 2 and bool(learned(run).isfinite().all())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(), RuntimeError("out of memory")])
def test_whatever_stops_a_run_a_checkpoint_is_left(error: BaseException, tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()], steps=5)
    with pytest.raises(type(error)):
        train(run, check=stop_at(4, error))
    assert checkpoint.newest(run.folder).step == 3


def test_a_run_that_stopped_in_its_first_step_does_not_block_its_name(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()])
    with pytest.raises(Interrupted):
        train(run, check=stop_at(1, Interrupted()))
    assert checkpoint.newest(run.folder).step == 0
    assert train(dataclasses.replace(run, losses=[DiffusionLoss(weight=0.5)])).steps == 3


@pytest.mark.parametrize("part", [checkpoint.LORA, checkpoint.OPTIMIZER])
def test_a_damaged_checkpoint_is_named_in_one_sentence_and_left_as_it_is(part: str, tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()])
    train(run)
    damaged = checkpoint.newest(run.folder).folder / part
    damaged.write_bytes(damaged.read_bytes()[:7])
    with pytest.raises(ValueError, match=rf"The checkpoint {damaged.parent.name} of the run 'run' is damaged;"):
        train(dataclasses.replace(run, resume=True))
    assert damaged.stat().st_size == 7 and damaged.parent.is_dir()


def test_checkpoints_come_in_time(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()], steps=5, checkpoint_every=2)
    seen: list[int] = []
    train(run, observe=lambda step, row: seen.append(checkpoint.newest_step(run.folder)))
    assert seen == [-1, 2, 2, 4, 5]


def test_what_cannot_train_is_refused_in_one_sentence(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()])
    bare = run.dataset.replace(dataclasses.replace(r, generic_captions=()) for r in run.dataset.records)
    alone = run.dataset.replace(dataclasses.replace(r, negatives=()) for r in run.dataset.records)
    for change, words in (
        ({"dataset": run.dataset.replace([])}, "no records"),
        ({"losses": []}, "No loss"),
        ({"losses": [DiffusionLoss(), MemorizationLoss()], "dataset": bare}, "generic captions"),
        ({"losses": [ContrastiveLoss(toy_features())], "dataset": alone}, "negatives, but no record has one"),
    ):
        with pytest.raises(ValueError, match=words):
            train(dataclasses.replace(run, **change))
    for name, value in (("steps", 0), ("batch_size", 0), ("resolution", 100), ("precision", "fp8"), ("seed", -1)):
        with pytest.raises(ValueError, match=str(value)):
            toy_run(tmp_path, [DiffusionLoss()], **{name: value})
    for name, value in (("learning_rate", 0.0), ("warmup", -1)):
        with pytest.raises(ValueError, match=name.replace("_", " ")):
            toy_run(tmp_path, [DiffusionLoss()], **{name: value})
