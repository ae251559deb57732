"""Runs that stop and go on: seeds, resuming, checkpoints, and what a fault must not destroy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toys import Interrupted, all_losses, learned, toy_base, toy_dataset, toy_features, toy_run

from comfy_scoft.common.errors import NonFiniteLoss
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, Loss, LossContext, MemorizationLoss
from comfy_scoft.models.lora import trainable
from comfy_scoft.training import checkpoint, run_folder, trainer
from comfy_scoft.training.run import Callbacks, Run
from comfy_scoft.training.trainer import train


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
    "accumulation, batch, calls, solver",
    [(1, 1, (1, 5, 9), "ddim"), (4, 1, (4, 11), "ddim"), (1, 4, (5,), "ddpm"), (4, 3, (6,), "ddim")],
)
def test_resuming_after_a_stop_anywhere_equals_the_uninterrupted_run_bit_for_bit(
    accumulation: int, batch: int, calls: tuple[int, ...], solver: str, tmp_path: Path
) -> None:
    """`calls`: the run is stopped before these UNet calls, one after another, and gone on with each time."""
    shape = {"accumulation": accumulation, "batch_size": batch, "dataset": toy_dataset(tmp_path / "data")}
    shape |= {"gradient_step": "random", "solver": solver}
    whole = toy_run(tmp_path, all_losses(), run_folder=tmp_path / "whole", **shape)
    train(whole)
    parts = None
    for call in calls:
        parts = toy_run(tmp_path, all_losses(), run_folder=tmp_path / "parts", resume=True, **shape)
        with pytest.raises(Interrupted):
            train(parts, Callbacks(check_interrupt=stop_at(call, Interrupted())))
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
        ({"seed": 9}, "train.seed 7 → 9"),
        ({"rank": 3}, "lora.rank 2 → 3"),
        ({"every": 5}, "rollout.every 2 → 5"),
        ({"clip": 0.5}, "optimizer.clip 1.0 → 0.5"),
        ({"solver": "ddpm"}, "rollout.solver none → ddpm"),
    ):
        other = toy_run(tmp_path, [DiffusionLoss()], dataset=run.dataset, resume=True, **change)
        with pytest.raises(ValueError, match=rf"other settings \({word}\)"):
            train(other)
    with pytest.raises(ValueError, match=r"other settings \(losses.1.weight 0.7 → 0.5\)"):
        train(toy_run(tmp_path, [DiffusionLoss(weight=0.5)], dataset=run.dataset, resume=True))
    fewer = run.dataset.replace(run.dataset.records[:2])
    with pytest.raises(ValueError, match=r"other settings \(dataset \w+ → \w+\)"):
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
class BrokenLoss(Loss):
    """Becomes NaN at its third call."""

    name: ClassVar[str] = "broken term"
    weight: float = 1.0
    at: int = 3
    seen: list = dataclasses.field(default_factory=list)

    def __call__(self, context: LossContext) -> Tensor:
        self.seen.append(1)
        value = context.prediction.square().flatten(1).mean(1)
        return value * float("nan") if len(self.seen) == self.at else value


def test_a_nan_loss_stops_names_its_term_and_keeps_the_last_good_lora(tmp_path: Path) -> None:
    good, run = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "good"), None
    states = []
    train(good, Callbacks(on_step=lambda step, row: states.append(learned(good).clone())))
    run = toy_run(tmp_path, [DiffusionLoss(), BrokenLoss(weight=0.0)])
    with pytest.raises(NonFiniteLoss, match="broken term"):
        train(run)
    saved = checkpoint.newest(run.folder)
    assert saved.step == 2
    kept = load_file(saved.folder / checkpoint.LORA)
    names = list(trainable(run.base.unet))
    assert torch.equal(torch.cat([kept[n].flatten() for n in names]), states[1])


def test_a_gradient_that_is_no_number_stops_before_the_lora_is_touched(tmp_path: Path, monkeypatch) -> None:
    run, real, calls = toy_run(tmp_path, [DiffusionLoss()]), trainer.weighted_loss, []

    def poisoned(*arguments) -> tuple[Tensor, dict[str, list[float]]]:
        total, terms = real(*arguments)
        calls.append(1)
        if len(calls) == 3:
            total.register_hook(lambda g: g * float("inf"))
        return total, terms

    monkeypatch.setattr(trainer, "weighted_loss", poisoned)
    with pytest.raises(NonFiniteLoss, match="gradient of step 3"):
        train(run)
    assert checkpoint.newest(run.folder).step == 2 and bool(learned(run).isfinite().all())


@pytest.mark.parametrize("step, ema", [(2, 0.0), (3, 0.0), (3, 0.9)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_that_is_no_number_stops_even_after_the_last_step_and_no_file_holds_it(
    value: float, step: int, ema: float, tmp_path: Path, monkeypatch
) -> None:
    run, real, calls = toy_run(tmp_path, [DiffusionLoss()], checkpoint_every=1, ema=ema), torch.optim.AdamW.step, []

    def poisoned(self: torch.optim.Optimizer, *arguments: Any) -> Any:
        calls.append(real(self, *arguments))
        if len(calls) == step:
            self.param_groups[-1]["params"][-1].data.view(-1)[0] = value

    monkeypatch.setattr(torch.optim.AdamW, "step", poisoned)
    with pytest.raises(NonFiniteLoss, match=f"^The update of step {step} gave weights that are not finite numbers, "):
        run_folder.train_and_log(run)
    assert checkpoint.newest(run.folder).step == step - 1
    files = list(run.folder.rglob("*.safetensors"))
    assert files and all(bool(v.float().isfinite().all()) for file in files for v in load_file(file).values())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(), RuntimeError("a fault of the machine")])
def test_whatever_stops_a_run_a_checkpoint_is_left(error: BaseException, tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()], steps=5)
    with pytest.raises(type(error)):
        train(run, Callbacks(check_interrupt=stop_at(4, error)))
    assert checkpoint.newest(run.folder).step == 3


def test_a_run_that_stopped_in_its_first_step_does_not_block_its_name(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()])
    with pytest.raises(Interrupted):
        train(run, Callbacks(check_interrupt=stop_at(1, Interrupted())))
    assert checkpoint.newest(run.folder).step == 0
    assert train(dataclasses.replace(run, losses=[DiffusionLoss(weight=0.5)])).steps == 3


@pytest.mark.parametrize("part", [checkpoint.LORA, checkpoint.OPTIMIZER])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_gives_the_same_lora(part: str, tmp_path: Path) -> None:
    data, said = toy_dataset(tmp_path / "data"), []
    shape = {"dataset": data, "steps": 5, "checkpoint_every": 2}
    whole = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "whole", **shape)
    train(whole)
    run = toy_run(tmp_path, [DiffusionLoss()], **shape)
    train(run)
    broken = checkpoint.newest(run.folder).folder / part
    broken.write_bytes(broken.read_bytes()[:7])
    train(dataclasses.replace(run, base=toy_base(), resume=True), Callbacks(on_message=said.append))
    assert said[0] == "checkpoint-00000005 is damaged, so the run goes on from step 4."
    one, other = saved_files(whole), saved_files(run)
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_where_no_checkpoint_can_be_read_the_run_says_so_and_leaves_them_as_they_are(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()])
    train(run)
    broken = checkpoint.newest(run.folder).folder / checkpoint.LORA
    broken.write_bytes(b"short")
    with pytest.raises(ValueError, match="No checkpoint of the run 'run' can be read"):
        train(dataclasses.replace(run, resume=True))
    assert broken.read_bytes() == b"short"


def test_what_does_not_decide_the_result_may_change_and_a_constant_rate_may_be_lengthened(tmp_path: Path) -> None:
    data = toy_dataset(tmp_path / "data")
    shape = {"dataset": data, "schedule": "constant"}
    whole = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "whole", steps=5, **shape)
    train(whole)
    train(toy_run(tmp_path, [DiffusionLoss()], steps=3, **shape))
    more = toy_run(tmp_path, [DiffusionLoss()], steps=5, resume=True, checkpoint_every=1, keep=9, **shape)
    assert train(more).steps == 5 and torch.equal(learned(whole), learned(more))
    falling = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "falling", dataset=data, steps=3)
    train(falling)
    with pytest.raises(ValueError, match="train.steps 3 → 5"):
        train(toy_run(tmp_path, [DiffusionLoss()], run_folder=falling.folder, dataset=data, steps=5, resume=True))


def test_checkpoints_come_in_time(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()], steps=5, checkpoint_every=2)
    seen: list[int] = []
    train(run, Callbacks(on_step=lambda step, row: seen.append(checkpoint.newest_step(run.folder))))
    assert seen == [-1, -1, 2, 2, 4], "a row is written before its checkpoint"
    assert checkpoint.newest_step(run.folder) == 5


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
        with pytest.raises(ValueError, match=name):
            toy_run(tmp_path, [DiffusionLoss()], **{name: value})
