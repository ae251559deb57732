"""Planned UNet calls are the calls that are made: of each loss, rollouts, passes, validation, previews, resumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import Interrupted, all_losses, toy_base, toy_dataset, toy_features, toy_run

from comfy_scoft.data.records import Dataset
from comfy_scoft.losses import (
    Calls,
    ContrastiveLoss,
    DiffusionLoss,
    Loss,
    LossContext,
    MemorizationLoss,
    PerceptualLoss,
    PriorLoss,
)
from comfy_scoft.losses.context import per_sample_mse
from comfy_scoft.losses.rollout import RolloutSettings
from comfy_scoft.models import lora
from comfy_scoft.training import step_plan, trainer
from comfy_scoft.training.run import Callbacks, Run
from comfy_scoft.training.settings import TrainSettings
from comfy_scoft.training.step_plan import Counts, graphs, pass_counts, planned_calls

NETWORK = toy_features()


@dataclasses.dataclass(frozen=True)
class FrozenPair(Loss):
    """Uses two frozen predictions, and on a rollout's image one of its own."""

    name = "pair"
    weight: float = 0.1

    @property
    def calls(self) -> Calls:
        return Calls(frozen=("caption", "empty"))

    def __call__(self, context: LossContext) -> torch.Tensor:
        return per_sample_mse(*context.frozen("caption", "empty"))


@dataclasses.dataclass(frozen=True)
class OwnAtTheImage(Loss):
    """A loss on the rollout's image that also asks for predictions at (z_t, t)."""

    name = "own at the image"
    uses_rollout = True
    weight: float = 0.1

    @property
    def calls(self) -> Calls:
        return Calls(frozen=("generic",), own_base=2)

    def __call__(self, context: LossContext) -> torch.Tensor:
        assert context.image is not None
        bases = [context.predict_base(context.captions) for _ in range(2)]
        return context.image.flatten(1).mean(1) + sum(per_sample_mse(b, *context.frozen("generic")) for b in bases)


LOSSES: dict[str, list[Loss]] = {
    "diffusion": [DiffusionLoss()],
    "memorization": [MemorizationLoss()],
    "both": [DiffusionLoss(), MemorizationLoss(), MemorizationLoss(weight=0.1)],
    "base reference": [DiffusionLoss(), MemorizationLoss(reference="base"), MemorizationLoss(reference="base")],
    "prior": [PriorLoss()],
    "diffusion and prior": [DiffusionLoss(), PriorLoss()],
    "two priors": [DiffusionLoss(), PriorLoss(), PriorLoss(0.5, "{caption}")],
    "perceptual": [PerceptualLoss(NETWORK)],
    "contrastive": [DiffusionLoss(), ContrastiveLoss(NETWORK)],
    "all": [*all_losses(), MemorizationLoss(reference="base"), PriorLoss()],
    "others": [FrozenPair(), OwnAtTheImage(), MemorizationLoss()],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return toy_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return toy_dataset(tmp_path_factory.mktemp("held out"), (0, 0, 0), seed=9)


def planned_and_made(run: Run, **callbacks: Any) -> tuple[list[int], int]:
    """The plans that a run tells, and the calls that it makes; it makes them for people who watch and others alike."""
    told: list[int] = []
    trainer.train(run, Callbacks(on_plan=told.append, **callbacks))
    return told, run.base.calls


def anew(run: Run, **changes: Any) -> Run:
    """The same run on a base model that has made no call."""
    return dataclasses.replace(run, base=toy_base(), cache=None, held_out=None, **changes)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "gradient_step", ["random", *(pytest.param(c, marks=pytest.mark.long) for c in ("first", "last"))]
)
def test_every_loss_makes_the_calls_that_are_planned(
    name: str, gradient_step: str, data: Dataset, tmp_path: Path
) -> None:
    shape = {"accumulation": 3, "steps": 2, "every": 2, "rollout_steps": 4, "gradient_step": gradient_step}
    run = toy_run(tmp_path, LOSSES[name], dataset=data, **shape)
    (planned,), made = planned_and_made(run)
    assert planned == made > 0


SHAPES: dict[str, dict[str, Any]] = {
    "one image in a pass": {"batch_size": 2, "accumulation": 2, "micro_batch": 1, "every": 1},
    "a pass that is not full": {"batch_size": 2, "accumulation": 3, "micro_batch": 4, "every": 2},
    "all rollouts": {"every": 1, "batch_size": 3},
    "no rollout in some steps": {"every": 4, "accumulation": 3, "steps": 5},
    "the released grid": {"every": 1, "grid": "released", "rollout_steps": 5},
    "one step": {"every": 1, "rollout_steps": 1},
    "buckets": {"buckets": True, "batch_size": 3, "every": 1},
    "noise offset and no flips": {"noise_offset": 0.1, "flip": False, "batch_size": 3, "every": 1},
    "DoRA with dropout": {"dora": True, "dropout": 0.1, "every": 1},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "an average": {"ema": 0.9},
    "v": {"base": "v_prediction", "every": 1},
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_of_a_run_makes_the_calls_that_are_planned(name: str, tmp_path: Path) -> None:
    """Images of three shapes, so that buckets make passes of their own."""
    wide = toy_dataset(tmp_path / "wide", (1, 0), size=72)
    narrow = toy_dataset(tmp_path / "narrow", (1, 2), size=200, seed=5)
    records = (*wide.records, *narrow.records)
    shape = {"rollout_steps": 3, "steps": 3, **SHAPES[name]}
    shape["base"] = toy_base(shape.get("base", "epsilon"))
    run = toy_run(tmp_path, LOSSES["all"], dataset=Dataset(tmp_path, records, "mixed"), **shape)
    (planned,), made = planned_and_made(run)
    assert planned == made > 0


@pytest.mark.parametrize("short", [0, 2, 50])
def test_small_timesteps_need_fewer_calls_and_the_plan_knows_which(
    short: int, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a schedule of few steps most rollouts are shorter than they may be."""
    base = toy_base()
    base.schedule = dataclasses.replace(base.schedule, alphas_cumprod=base.schedule.alphas_cumprod[: short + 1])
    run = toy_run(tmp_path, all_losses(), dataset=data, base=base, every=1, rollout_steps=20, steps=4, batch_size=2)
    (planned,), made = planned_and_made(run)
    most = 4 * (2 + 19)
    assert planned == made and (made < most or short == 50)


@pytest.mark.parametrize(
    "every, previews", [(2, 3), *(pytest.param(*c, marks=pytest.mark.long) for c in ((1, 0), (3, 2), (0, 1)))]
)
def test_validation_and_previews_are_planned(
    every: int, previews: int, data: Dataset, held_out: Dataset, tmp_path: Path
) -> None:
    shape = {"steps": 4, "validation": held_out, "validate_every": every, "preview_every": previews}
    run = toy_run(tmp_path, LOSSES["both"], dataset=data, preview_prompt="a thing", **shape)
    shown: list[int] = []
    (planned,), made = planned_and_made(run, on_preview=lambda step, image: shown.append(step))
    assert planned == made and len(shown) == (len(range(0, 5, previews)) if previews else 0)
    quiet = anew(run, folder=tmp_path / "quiet", validation=None)
    quiet.settings = dataclasses.replace(run.settings, preview_prompt="")
    assert planned_and_made(quiet) == ([8], 8), "two calls a step are the training"


@pytest.mark.parametrize("stop", [1, 20, 41])
@pytest.mark.long
def test_a_run_that_is_resumed_plans_what_is_left(stop: int, data: Dataset, held_out: Dataset, tmp_path: Path) -> None:
    shape = {"steps": 6, "accumulation": 2, "checkpoint_every": 2, "validation": held_out, "validate_every": 2}
    run = toy_run(tmp_path, LOSSES["all"], dataset=data, **shape)

    def check() -> None:
        if run.base.calls == stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        trainer.train(run, Callbacks(check_interrupt=check))
    (planned,), made = planned_and_made(anew(run, resume=True))
    assert planned == made
    (planned,), made = planned_and_made(anew(run, resume=True))
    assert planned == made == 6, "a finished run measures its held-out images once more"


@pytest.mark.long
def test_a_run_that_gets_less_memory_plans_again(data: Dataset, tmp_path: Path) -> None:
    """The call that runs out of memory counts as made only where it was finished."""
    run = toy_run(tmp_path, LOSSES["all"], dataset=data, batch_size=2, accumulation=2, steps=4, preview_every=2,
                  preview_prompt="a thing")  # fmt: skip
    predict = run.base.predict

    def scarce(z: torch.Tensor, t: torch.Tensor, captions: Any) -> torch.Tensor:
        if run.base.calls > 60 and len(z) > 6:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return predict(z, t, captions)

    run.base.predict = scarce  # type: ignore[method-assign]
    told, made = planned_and_made(run)
    assert len(told) > 1 and told[-1] == made > told[0]


def test_a_process_plans_its_own_share(data: Dataset, tmp_path: Path) -> None:
    """Both shares together are the passes of one process, one image each; only the first process looks."""
    shape = {"batch_size": 2, "accumulation": 2, "micro_batch": 1, "every": 1, "preview_every": 1}
    run = toy_run(tmp_path, LOSSES["all"], dataset=data, preview_prompt="a thing", **shape)
    alone = planned_calls(run, 1)
    shares = []
    for rank in (0, 1):
        run.distributed = dataclasses.replace(run.distributed, rank=rank, count=2)
        shares.append(planned_calls(run, 1))
    assert sum(shares) == alone and shares[0] - shares[1] > 40


def test_counts_of_a_pass_by_hand() -> None:
    """Three images, two of them with rollouts of 4 and 2 timesteps."""
    rollout = RolloutSettings(steps=4)
    plain = [DiffusionLoss(), MemorizationLoss(), PriorLoss()]
    assert pass_counts([DiffusionLoss()], rollout, 3, (4, 2)) == Counts(1, 0, 3), "no loss uses the rollouts"
    assert pass_counts(plain, rollout, 3) == Counts(calls=4, frozen=6, trained=6)
    with_image = [*plain, PerceptualLoss(NETWORK)]
    # One call of 3 generic captions and 2 · 2 first steps; then 2 images · 3 and 2 · 1 further steps in 3 calls.
    assert pass_counts(with_image, rollout, 3, (4, 2)) == Counts(calls=4 + 3, frozen=3 + 4 + 8 + 3, trained=6)
    last = dataclasses.replace(rollout, gradient_step="last")
    assert pass_counts(with_image, last, 3, (4, 2)) == Counts(calls=4 + 3 + 1, frozen=18, trained=6 + 2)
    assert pass_counts([PerceptualLoss(NETWORK)], rollout, 3) == Counts()


def test_graphs_that_are_held_at_once() -> None:
    first, last = RolloutSettings(), RolloutSettings(gradient_step="last")
    image = PerceptualLoss(NETWORK)
    assert graphs([DiffusionLoss(), MemorizationLoss()], first) == (1, 0)
    assert graphs([DiffusionLoss(), PriorLoss(), image], first) == (2, 0)
    assert graphs([DiffusionLoss(), image], last) == (1, 1)
    assert graphs([image], first) == (1, 0) and graphs([image], last) == (0, 1)


def test_the_expected_counts_are_the_mean_of_the_exact_ones(data: Dataset, tmp_path: Path) -> None:
    """Over 400 steps, within 3 %."""
    run = toy_run(tmp_path, LOSSES["all"], dataset=data, steps=400, every=2, rollout_steps=20, batch_size=2)
    base, length = toy_base(), 60
    base.schedule = dataclasses.replace(base.schedule, alphas_cumprod=base.schedule.alphas_cumprod[:length])
    run = dataclasses.replace(run, base=base)
    exact = Counts()
    for step in range(400):
        exact += step_plan.step_counts(run, 0, step)
    expected = step_plan.expected_counts(run.losses, run.settings, run.rollout, length)
    assert expected.frozen == pytest.approx(exact.frozen, rel=0.03) and expected.trained == exact.trained


@pytest.mark.parametrize("first", [0, 150])
def test_what_is_expected_at_once_is_near_the_plan(
    first: int, data: Dataset, held_out: Dataset, tmp_path: Path
) -> None:
    """Within a tenth, of 200 steps with rollouts, validation and previews."""
    shape = {
        "steps": 200,
        "every": 3,
        "rollout_steps": 20,
        "accumulation": 4,
        "validation": held_out,
        "validate_every": 20,
    }
    run = toy_run(tmp_path, LOSSES["all"], dataset=data, preview_every=50, preview_prompt="a thing", **shape)
    assert step_plan.expected_calls(run, first) == pytest.approx(planned_calls(run, 0, first), rel=0.1)


def test_planning_a_long_run_takes_little_time_beside_it(data: Dataset, tmp_path: Path) -> None:
    """The paper's run: 3000 steps of 4 images at 512 px, a rollout in every tenth batch. It has 35 thousand calls."""
    import time

    run = Run(toy_base(), data, all_losses(), tmp_path / "run", TrainSettings(), lora.LoraSettings())
    begun = time.process_time()
    calls = planned_calls(run, 0)
    assert time.process_time() - begun < 20 and 30_000 > calls > 3000 * 2 + 1200 * 15


def test_a_rollout_of_the_paper_takes_39_62_images_on_average() -> None:
    """20 steps from each t of 1000, but t + 1 of them below t = 19; caption and empty prompt at each."""
    steps = sum(range(1, 20)) + 981 * 20
    counts = step_plan.expected_counts([PerceptualLoss(NETWORK)], TrainSettings(), RolloutSettings(), 1000)
    assert counts.frozen / 1200 == pytest.approx(2 * steps / 1000) == pytest.approx(39.62)
