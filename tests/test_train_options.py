"""Every option of a run that is accepted does what it says, and a run with it goes on bit for bit."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from toys import Interrupted, all_losses, learned, toy_base, toy_dataset, toy_features, toy_run

from comfy_scoft.common.errors import NonFiniteLoss
from comfy_scoft.data.records import Dataset
from comfy_scoft.losses import DiffusionLoss, PerceptualLoss, named
from comfy_scoft.models.lora import attach, trainable
from comfy_scoft.models.placement import unet_dtype
from comfy_scoft.reports.plots.charts import term_names
from comfy_scoft.training import checkpoint, trainer
from comfy_scoft.training.batches import passes_of, samples_of_batch
from comfy_scoft.training.latent_cache import Cache
from comfy_scoft.training.memory import MemoryOptions
from comfy_scoft.training.objective import weighted_loss
from comfy_scoft.training.run import Callbacks, Run
from comfy_scoft.training.run_folder import weighted_losses
from comfy_scoft.training.trainer import Result, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return toy_dataset(tmp_path_factory.mktemp("toys") / "data")


def fresh(precision: str = "fp32") -> Any:
    base = toy_base()
    nn.Module.to(base.unet, unet_dtype(precision))
    return base


def cut(run: Run, step: int) -> Result:
    """Train a run with an interrupt after `step` steps, and go on with a model that has never seen it."""

    def stop(now: int, row: dict[str, float]) -> None:
        if now == step:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(run, Callbacks(on_step=stop))
    run.base, run.resume = fresh(run.settings.precision), True
    return train(run)


def cut_and_whole(tmp_path: Path, losses: list[Any], step: int = 2, **changes: Any) -> Result:
    """The result of the uninterrupted run, after holding that the one cut in two is the same to the bit."""
    precision = changes.get("precision", "fp32")
    runs = [toy_run(tmp_path, losses, run_folder=tmp_path / n, base=fresh(precision), **changes) for n in ("a", "b")]
    whole, parts = train(runs[0]), cut(runs[1], step)
    assert torch.equal(learned(runs[0]), learned(runs[1])) and bool(learned(runs[0]).isfinite().all())
    assert all(torch.equal(whole.lora[key], parts.lora[key]) for key in whole.lora)
    assert whole.metrics[step:] == parts.metrics
    return whole


# --- optimizer, schedule, average ---


RATES = {"AdamW": 1e-2, "AdamW8bit": 1e-2, "Prodigy": 1.0, "Adafactor": 1e-2}


@pytest.mark.parametrize("optimizer", RATES)
def test_each_optimizer_trains_and_goes_on_bit_for_bit(optimizer: str, data: Dataset, tmp_path: Path) -> None:
    """At rank 300 a LoRA's larger halves have the 4096 numbers from which on bitsandbytes keeps 8 bits."""
    shape = {"optimizer": optimizer, "learning_rate": RATES[optimizer], "rank": 300, "steps": 4, "dataset": data}
    result = cut_and_whole(tmp_path, [DiffusionLoss()], **shape)
    assert any(bool(value.any()) for key, value in result.lora.items() if "lora_up" in key)
    saved = checkpoint.newest(tmp_path / "a")
    kinds = {value.dtype for value in load_file(saved.folder / checkpoint.OPTIMIZER).values()}
    assert saved.state["optimizer"]["optimizer"] == optimizer and (torch.uint8 in kinds) == (optimizer == "AdamW8bit")


def test_a_schedule_with_warm_up_ends_exactly_under_accumulation(data: Dataset, tmp_path: Path) -> None:
    """Five optimizer steps of three micro-steps, two of them warm-up; then from 1 to 0 in three."""
    by_hand = {"constant": [1, 1, 1], "linear": [1, 2 / 3, 1 / 3], "cosine": [1, 0.75, 0.25]}
    for schedule, after in by_hand.items():
        shape = {"schedule": schedule, "warmup": 2, "accumulation": 3, "steps": 5, "learning_rate": 0.01}
        run = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / schedule, dataset=data, **shape)
        rates = [row["learning_rate"] for row in train(run).metrics]
        assert rates == pytest.approx([0.005, 0.01, *(0.01 * part for part in after)])
        assert run.optimizer.rate(5, 5) == pytest.approx(0.01 if schedule == "constant" else 0.0, abs=1e-18)


@pytest.mark.long
def test_the_average_is_exported_and_the_trained_values_stay_in_training(data: Dataset, tmp_path: Path) -> None:
    values: list[Tensor] = []
    shape = {"steps": 5, "dataset": data, "learning_rate": 0.05, "schedule": "constant"}
    plain = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "plain", **shape)
    train(plain, Callbacks(on_step=lambda step, row: values.append(learned(plain).clone())))
    result = cut_and_whole(tmp_path, [DiffusionLoss()], step=3, ema=0.9, **shape)
    average = values[0].double()
    for n, value in enumerate(values[1:], start=1):
        decay = min(0.9, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * value
    exported = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "c", ema=0.9, **shape)
    train(exported)
    assert torch.equal(learned(exported), values[-1]), "what is trained is not the average"
    parts = []
    for name in trainable(exported.base.unet):
        key = "lora_unet_" + name.replace(".default", "").replace(".", "_")
        half = "lora_down" if "lora_A" in name else "lora_up"
        key = key.replace("_lora_A_weight", "").replace("_lora_B_weight", "")
        parts.append(result.lora[f"{key}.{half}.weight"].flatten())
    assert torch.allclose(torch.cat(parts).double(), average, rtol=1e-3, atol=1e-4), "fp16 of the average by hand"
    assert (average - values[-1].double()).abs().max() > 5e-3


# --- precision ---


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_goes_on_bit_for_bit(precision: str, data: Dataset, tmp_path: Path) -> None:
    cut_and_whole(tmp_path, all_losses(), precision=precision, dataset=data, batch_size=2)


def overflowing(monkeypatch: pytest.MonkeyPatch, steps: range) -> None:
    """Make the gradients of these optimizer steps (from 1; one image each) infinite."""
    real = trainer.forward_and_backward

    def backward(of: trainer.Trainer) -> trainer.Terms:
        terms = real(of)
        if of.state.step + 1 in steps:
            next(iter(of.state.parameters.values())).grad.fill_(float("inf"))
        return terms

    monkeypatch.setattr(trainer, "forward_and_backward", backward)


@pytest.mark.long
def test_a_step_that_overflows_in_fp16_is_skipped_and_said_and_the_run_goes_on_bit_for_bit(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflowing(monkeypatch, range(2, 4))
    for step in (1, 2, 3):
        shape = {"precision": "fp16", "steps": 5, "dataset": data, "ema": 0.5}
        result = cut_and_whole(tmp_path / str(step), [DiffusionLoss()], step=step, **shape)
        assert [row.get("skipped", 0.0) for row in result.metrics] == [0.0, 1.0, 1.0, 0.0, 0.0]
    scale = checkpoint.newest(tmp_path / "1" / "a").state["scaler"]["scale"]
    assert scale == 65536.0 / 4


@pytest.mark.long
def test_after_twenty_skipped_steps_in_a_row_the_next_stops_the_run(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflowing(monkeypatch, range(2, 23))
    run = toy_run(tmp_path, [DiffusionLoss()], precision="fp16", steps=30, dataset=data)
    with pytest.raises(NonFiniteLoss, match="The gradient of step 22 is not a finite number"):
        train(run)
    assert checkpoint.newest(run.folder).step == 21
    monkeypatch.undo()
    overflowing(monkeypatch, range(2, 22))
    other = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "b", precision="fp16", steps=23, dataset=data)
    assert sum(row.get("skipped", 0.0) for row in train(other).metrics) == 20


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_steps_in_which_no_picture_has_a_rollout_teach_nothing(precision: str, data: Dataset, tmp_path: Path) -> None:
    """With losses on the rollout's image alone; the optimizer and the loss scale stand still too."""
    shape = {"precision": precision, "every": 3, "steps": 5, "dataset": data}
    result = cut_and_whole(tmp_path, [PerceptualLoss(toy_features())], step=3, **shape)
    assert [row["grad_norm"] > 0 for row in result.metrics] == [True, False, False, True, False]


# --- how a step is made ---


def gradient(run: Run, memory_options: MemoryOptions) -> Tensor:
    """Of the first optimizer step, with a LoRA that does something."""
    parameters = list(attach(run.base.unet, run.lora, torch.Generator().manual_seed(0)).values())
    with torch.no_grad():
        for i, p in enumerate(parameters):
            p.copy_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    memory_options.apply(run.base)
    cache = Cache(run.base, run.dataset, run.settings.resolution)
    micro = range(run.settings.accumulation)
    drawn = [d for m in micro for d in samples_of_batch(cache, run.settings, run.rollout, len(run.base.schedule), m)]
    for some in passes_of(drawn, memory_options.micro_batch):
        weighted_loss(run, cache, some, memory_options, lambda: None)[0].backward()
    return torch.cat([p.grad.flatten() for p in parameters])


@pytest.mark.parametrize("which, solver", [("first", "ddim"), ("last", "ddim"), ("random", "ddim"), ("last", "ddpm")])
def test_pictures_in_one_pass_do_not_change_the_gradient(
    which: str, solver: str, data: Dataset, tmp_path: Path
) -> None:
    """Six images, three of them with a rollout, in passes of 6, 2 and 1, and of 4 and 2."""
    shape = {"batch_size": 3, "accumulation": 2, "gradient_step": which, "solver": solver, "dataset": data}
    whole = gradient(toy_run(tmp_path, all_losses(), **shape), MemoryOptions())
    for most in (1, 2, 4):
        parts = gradient(toy_run(tmp_path, all_losses(), **shape), MemoryOptions(micro_batch=most))
        assert float((whole - parts).norm() / whole.norm()) < 2e-5


@pytest.mark.long
def test_micro_batch_changes_the_lora_by_rounding_only(data: Dataset, tmp_path: Path) -> None:
    found = []
    for most in (0, 1, 2):
        shape = {"batch_size": 2, "accumulation": 2, "micro_batch": most, "dataset": data}
        run = toy_run(tmp_path, all_losses(), run_folder=tmp_path / str(most), **shape)
        found.append((train(run).metrics, learned(run)))
    for rows, lora in found[1:]:
        assert float((lora - found[0][1]).norm() / found[0][1].norm()) < 1e-3
        assert [row.keys() for row in rows] == [row.keys() for row in found[0][0]]
        assert [row["diffusion"] for row in rows] == pytest.approx([row["diffusion"] for row in found[0][0]], rel=1e-3)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_recomputes_the_same_gradient(dropout: float, data: Dataset, tmp_path: Path) -> None:
    found = {}
    for kind in ("off", "UNet", "UNet and decoder"):
        run = toy_run(tmp_path, all_losses(), base=toy_base(kl=True), batch_size=2, dropout=dropout, dataset=data)
        found[kind] = gradient(run, MemoryOptions(checkpointing=kind))  # type: ignore[arg-type]  # a name of the menu
        assert run.base.unet.is_gradient_checkpointing == (kind != "off")
        assert run.base.vae.is_gradient_checkpointing == (kind == "UNet and decoder")
        MemoryOptions().apply(run.base)
        assert not run.base.unet.is_gradient_checkpointing and not run.base.vae.is_gradient_checkpointing
    for kind in ("UNet", "UNet and decoder"):
        assert float((found[kind] - found["off"]).norm() / found["off"].norm()) < 1e-5


@pytest.mark.parametrize("change", [{"dora": True}, {"checkpointing": "UNet and decoder"}, {"noise_offset": 0.1}])
@pytest.mark.long
def test_a_run_with_an_option_goes_on_bit_for_bit(change: dict, data: Dataset, tmp_path: Path) -> None:
    result = cut_and_whole(tmp_path, all_losses(), dataset=data, **change)
    assert any("dora_scale" in key for key in result.lora) == ("dora" in change)


def test_noise_offset_shifts_whole_channels_by_its_share_and_off_changes_no_draw(data: Dataset, tmp_path: Path) -> None:
    """The mean of 64 numbers has variance 1/64; an offset of 0.5 adds 0.25."""
    draws = {}
    for offset in (0.0, 0.5):
        run = toy_run(tmp_path, [DiffusionLoss()], noise_offset=offset, dataset=data)
        cache = Cache(run.base, data, 64)
        draws[offset] = [samples_of_batch(cache, run.settings, run.rollout, 1000, m)[0] for m in range(300)]
    for offset, expected in ((0.0, 1 / 64), (0.5, 1 / 64 + 0.25)):
        means = torch.stack([draw.noise.mean((1, 2)) for draw in draws[offset]])
        assert float(means.var()) == pytest.approx(expected, rel=0.15)
    for one, other in zip(*draws.values(), strict=True):
        assert torch.equal(one.z, other.z) and (one.t, one.generic, one.rollout_rand, one.loss_rand) == (
            other.t,
            other.generic,
            other.rollout_rand,
            other.loss_rand,
        )
        shift = other.noise - one.noise
        assert torch.allclose(shift, shift[:, :1, :1].expand_as(shift), atol=1e-6)


def test_a_run_goes_on_from_another_lora(data: Dataset, tmp_path: Path) -> None:
    first = train(toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "first", dataset=data))
    shape = {"start": first.lora, "steps": 1, "learning_rate": 1e-8, "weight_decay": 0.0, "dataset": data}
    again = train(toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "again", **shape))
    for key, value in first.lora.items():
        assert torch.allclose(again.lora[key].float(), value.float(), atol=1e-3), key
    run = toy_run(tmp_path, [DiffusionLoss()], run_folder=tmp_path / "again", resume=True, **shape)
    other = {key: value * 2 for key, value in first.lora.items()}
    with pytest.raises(ValueError, match="other settings .lora.start "):
        train(dataclasses.replace(run, start=other))


def test_losses_of_one_kind_have_names_of_their_own_everywhere(data: Dataset, tmp_path: Path) -> None:
    one, other = toy_features(3), dataclasses.replace(toy_features(5), name="other")
    losses = [DiffusionLoss(), PerceptualLoss(one), PerceptualLoss(other, weight=2.0), DiffusionLoss(weight=0.1)]
    names = ["diffusion", "perceptual (toy)", "perceptual (other)", "diffusion 2"]
    assert [name for name, _ in named(losses)] == names
    assert [name for name, _ in named(losses[:2])] == ["diffusion", "perceptual"]
    run = toy_run(tmp_path, losses, steps=1, dataset=data)
    (row,) = train(run).metrics
    assert term_names([row]) == names and row["diffusion"] == row["diffusion 2"]
    assert row["perceptual (toy)"] != row["perceptual (other)"]
    expected = sum(loss.weight * row[name] for name, loss in named(losses))
    assert weighted_losses([row], losses) == [pytest.approx(expected)] and math.isfinite(expected)
