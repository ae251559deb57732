"""Long contrastive training over all timesteps, ragged negatives and batches of 1 to 4: no crash, no NaN."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from toys import learned, toy_base, toy_dataset, toy_features, toy_run

from comfy_scoft.features import load_features
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, MemorizationLoss
from comfy_scoft.models.mini import layout
from comfy_scoft.models.single_file import load_base
from comfy_scoft.training.batches import samples_of_batch
from comfy_scoft.training.run import Run
from comfy_scoft.training.trainer import train

RAGGED = (2, 0, 1, 3, 0, 5, 1)


def finite(run: Run, micro_steps: int) -> set[int]:
    """Train, hold that each figure of each step is a number, and return the timesteps that were met."""
    result = train(run)
    settings = run.settings
    assert result.steps * settings.accumulation == micro_steps
    assert all(math.isfinite(value) for row in result.metrics for value in row.values())
    assert all("contrastive" in row and "kappa" in row for row in result.metrics)
    assert bool(learned(run).isfinite().all()) and all(bool(v.isfinite().all()) for v in result.lora.values())
    cache, length = run.caches()[0], len(run.base.schedule)
    return {d.t for m in range(micro_steps) for d in samples_of_batch(cache, settings, run.rollout, length, m)}


@pytest.mark.parametrize(
    "steps", [pytest.param(25, marks=pytest.mark.long), pytest.param(250, marks=pytest.mark.recorded)]
)
def test_one_and_ten_thousand_contrastive_micro_steps_of_a_toy(steps: int, tmp_path: Path) -> None:
    """Ten micro-steps an optimizer step, each image with a rollout of two steps; the rate moves the LoRA far."""
    data, met = toy_dataset(tmp_path / "data", RAGGED), set()
    kinds = (("epsilon", "plain", "first"), ("v_prediction", "plain", "random"), ("epsilon", "normalised", "last"))
    for batch, (prediction, kappa, which) in zip((1, 2, 3, 4), (*kinds, kinds[0]), strict=True):
        shape = {"batch_size": batch, "accumulation": 10, "steps": steps, "every": 1, "rollout_steps": 2, "seed": batch}
        shape |= {"kappa": kappa, "gradient_step": which, "dataset": data, "base": toy_base(prediction)}
        losses = [DiffusionLoss(), ContrastiveLoss(toy_features())]
        met |= finite(toy_run(tmp_path, losses, run_folder=tmp_path / str(batch), **shape), 10 * steps)
    assert len(met) > 700 if steps < 250 else met == set(range(1000)), "every timestep was met, 0 and 999 too"


@pytest.mark.parametrize(
    "steps", [pytest.param(4, marks=pytest.mark.long), pytest.param(15, marks=pytest.mark.recorded)]
)
def test_many_contrastive_micro_steps_of_the_mini_model(steps: int, tmp_path: Path) -> None:
    """Five micro-steps an optimizer step, with each batch size, a rollout of three steps at each; all of the method's
    losses."""
    weights, met = Path(layout.__file__).parent / "weights", set()
    network = load_features("mini CLIP (layer 5)", weights / "clip" / "scoft-mini-clip.safetensors")
    data = toy_dataset(tmp_path / "data", RAGGED)
    for batch in (1, 2, 3, 4):
        base = load_base(weights / "checkpoints" / "scoft-mini.safetensors")
        losses = [DiffusionLoss(), MemorizationLoss(), ContrastiveLoss(network)]
        shape = {"batch_size": batch, "accumulation": 5, "steps": steps, "every": 1, "rollout_steps": 3, "seed": batch}
        shape |= {"dataset": data, "base": base, "rank": 16, "alpha": 16.0, "learning_rate": 1e-3}
        met |= finite(toy_run(tmp_path, losses, run_folder=tmp_path / str(batch), **shape), 5 * steps)
    assert len(met) > (450 if steps == 15 else 150) and min(met) < 50 and max(met) > 950
