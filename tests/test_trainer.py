"""The training loop: what it computes and when, the arithmetic of a step, and what it must leave alone."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from toys import Interrupted, all_losses, batch_loss, learned, toy_base, toy_dataset, toy_features, toy_run, toy_unet

from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, MemorizationLoss, PerceptualLoss
from comfy_scoft.models.lora import attach, trainable
from comfy_scoft.training.batches import TrainingSample, samples_of_batch
from comfy_scoft.training.latent_cache import Cache
from comfy_scoft.training.run import Callbacks, Run
from comfy_scoft.training.settings import OptimizerSettings
from comfy_scoft.training.trainer import Result, train


def awake(run: Run) -> list[nn.Parameter]:
    """Attach the run's LoRA with numbers that do something: a fresh one has B = 0."""
    parameters = attach(run.base.unet, run.lora, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for i, p in enumerate(parameters.values()):
            p.copy_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return list(parameters.values())


def gradient(run: Run, micro: int = 0) -> Tensor:
    parameters = awake(run)
    total, _ = batch_loss(run, Cache(run.base, run.dataset, run.settings.resolution), micro)
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, parameters)])


# --- what is computed, and when ---


@pytest.mark.parametrize("choice, extra", [("first", 0), ("last", 1), ("random", 1)])
@pytest.mark.parametrize("reference, own", [("current", 0), ("base", 1)])
def test_unet_calls_of_a_micro_step(choice: str, extra: int, reference: str, own: int, tmp_path: Path) -> None:
    """One call with a graph and one frozen; on a rollout 19 more, and one more to record another step than the first.

    With the base model as reference, its call (LoRA off) is the frozen one; a rollout then needs its own besides.
    """
    network = toy_features()
    losses = [DiffusionLoss(), MemorizationLoss(reference=reference), PerceptualLoss(network), ContrastiveLoss(network)]
    run = toy_run(tmp_path, losses, rollout_steps=20, every=10, gradient_step=choice)
    awake(run)
    cache, checked = Cache(run.base, run.dataset, 64), []
    while True:  # a seed whose first timestep has a full path
        if drawn(run, cache, 0)[0].t >= 19:
            break
        run = dataclasses.replace(run, settings=dataclasses.replace(run.settings, seed=run.settings.seed + 1))
    for micro, expected in ((0, 2 + 19 + extra + own), (1, 2), (9, 2), (10, None)):
        before = run.base.calls
        checked.clear()
        batch_loss(run, cache, micro, lambda: checked.append(run.base.calls))
        assert checked == list(range(before, run.base.calls)), "check comes before each UNet call"
        assert run.base.calls - before == expected if expected else run.base.calls - before > 2


def drawn(run: Run, cache: Cache, micro: int) -> list[TrainingSample]:
    return samples_of_batch(cache, run.settings, run.rollout, len(run.base.schedule), micro)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_rollout_comes_at_every_nth_micro_step_of_the_whole_run(accumulation: int, tmp_path: Path) -> None:
    """Over epochs (of three images), over optimizer steps and over a resume: micro-steps 0, 5, 10, …"""
    data = toy_dataset(tmp_path / "data", (1, 1, 1))
    shape = {"accumulation": accumulation, "steps": 24 // accumulation, "every": 5, "rollout_steps": 1, "dataset": data}
    losses = [DiffusionLoss(), PerceptualLoss(toy_features())]
    rows: dict[int, dict[str, float]] = {}

    def half(step: int, row: dict[str, float]) -> None:
        rows[step] = row
        if step == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(toy_run(tmp_path, losses, **shape), Callbacks(on_step=half))
    train(
        toy_run(tmp_path, losses, resume=True, **shape), Callbacks(on_step=lambda step, row: rows.update({step: row}))
    )
    assert list(rows) == list(range(1, 24 // accumulation + 1))
    expected = {micro // accumulation + 1 for micro in range(0, 24, 5)}
    assert {step for step, row in rows.items() if "perceptual" in row} == expected
    assert {step for step, row in rows.items() if "kappa" in row} == expected
    assert all("diffusion" in row for row in rows.values())


def test_rollout_losses_alone_can_train(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [PerceptualLoss(toy_features())], every=3, steps=4)
    result = train(run)
    assert [row["grad_norm"] > 0 for row in result.metrics] == [True, False, False, True]


def test_each_epoch_is_a_permutation_and_captions_and_flips_are_drawn_anew(tmp_path: Path) -> None:
    run = toy_run(tmp_path, [DiffusionLoss()], dataset=toy_dataset(tmp_path / "data", (0,) * 5), batch_size=2)
    cache = Cache(run.base, run.dataset, 64)
    seen, times, generic = [], [], set()
    for micro in range(40):
        for draw in drawn(run, cache, micro):
            seen.append(draw.sample)
            times.append(draw.t)
            generic.add(draw.generic)
            assert draw.generic in run.dataset.records[draw.sample[0]].generic_captions
    epochs = [[i for i, _ in seen[k : k + 5]] for k in range(0, 80, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs) and len({tuple(e) for e in epochs}) > 8
    assert generic == {text for record in run.dataset.records for text in record.generic_captions}
    assert 25 <= sum(flipped for _, flipped in seen) <= 55
    assert len(set(times)) > 65 and 350 < sum(times) / 80 < 650 and min(times) < 100 and max(times) > 900
    unflipped = dataclasses.replace(run, settings=dataclasses.replace(run.settings, flip=False))
    assert not any(draw.sample[1] for m in range(9) for draw in drawn(unflipped, cache, m))


def test_positive_and_negatives_share_crop_and_flip_through_the_cache(tmp_path: Path) -> None:
    """A negative that is the image itself, at twice the size, has the image's features, flipped or not."""
    data, network = toy_dataset(tmp_path, (1,), size=128), toy_features()
    with Image.open(data.records[0].image) as image:
        image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC).save(data.records[0].negatives[0])
    cache = Cache(toy_base(), data, 64)
    found = {}
    for flip in (False, True):
        positive, (negatives, mask) = cache.positive(network, [(0, flip)]), cache.negatives(network, [(0, flip)])
        assert mask.tolist() == [[True]] and network.distance(positive, negatives[:, 0]).item() < 1e-3
        found[flip] = positive
        latent = cache.latent((0, flip))[0]
        pixels = cache.pixels((0, flip))[0]
        assert torch.allclose(latent, cache.base.encode(pixels[None])[0][0], atol=1e-5)
    assert network.distance(found[False], found[True]).item() > 0.05
    assert torch.equal(cache.pixels((0, False))[0].flip(-1), cache.pixels((0, True))[0])


def test_ragged_negatives_are_padded_and_masked_in_order(tmp_path: Path) -> None:
    cache, network = Cache(toy_base(), toy_dataset(tmp_path, (2, 0, 1)), 64), toy_features()
    negatives, mask = cache.negatives(network, [(2, False), (1, False), (0, True)])
    assert negatives.shape == (3, 2, 8, 4, 4) and mask.tolist() == [[True, False], [False, False], [True, True]]
    _, pixels = cache.pixels((0, True))
    assert torch.allclose(negatives[2], network.extract(pixels), atol=1e-5) and not negatives[~mask].any()
    none, empty = cache.negatives(network, [(1, False), (1, True)])
    assert none.shape[:2] == (2, 0) and empty.shape == (2, 0)


# --- arithmetic of a step ---


def test_one_optimizer_step_is_adamw_on_the_clipped_mean_of_the_micro_gradients(tmp_path: Path) -> None:
    """First AdamW step by hand: p ← p (1 − lr·wd) − lr · g / (|g| + 1e-8), g clipped to norm 0.01."""
    run = toy_run(tmp_path, all_losses(), accumulation=4, steps=1, clip=0.01, weight_decay=0.1, learning_rate=0.02)
    start = list(attach(run.base.unet, run.lora, torch.Generator().manual_seed(7)).values())
    before = torch.cat([p.detach().flatten() for p in start])
    cache, mean = Cache(run.base, run.dataset, 64), 0.0
    for micro in range(4):
        total, _ = batch_loss(run, cache, micro)
        mean = mean + torch.cat([g.flatten() for g in torch.autograd.grad(total, start)]) / 4
    result = train(run)
    assert result.metrics[0]["grad_norm"] == pytest.approx(float(mean.norm()), rel=1e-4) and mean.norm() > 0.01
    g = mean * 0.01 / mean.norm()
    expected = before * (1 - 0.02 * 0.1) - 0.02 * g / (g.abs() + 1e-8)
    assert torch.allclose(learned(run), expected, atol=2e-5)


def test_the_schedule_ends_at_zero_whatever_the_accumulation(tmp_path: Path) -> None:
    paper = OptimizerSettings()
    assert paper.rate(0, 3000) == 1e-4 and paper.rate(1500, 3000) == pytest.approx(5e-5)
    assert 0 < paper.rate(2999, 3000) < 1e-10
    run = toy_run(tmp_path, [DiffusionLoss()], accumulation=4, steps=4, learning_rate=1e-3)
    rates = [row["learning_rate"] for row in train(run).metrics]
    assert rates == pytest.approx([1e-3 * 0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)])
    linear = OptimizerSettings(learning_rate=1.0, schedule="linear", warmup=2)
    assert [linear.rate(i, 6) for i in range(6)] == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])
    assert OptimizerSettings(learning_rate=1.0, schedule="constant").rate(9, 10) == 1.0


def test_the_order_of_losses_matters_by_no_more_than_rounding(tmp_path: Path) -> None:
    one = gradient(toy_run(tmp_path, all_losses(), batch_size=2))
    other = gradient(toy_run(tmp_path, all_losses()[::-1], batch_size=2))
    assert float((one - other).norm() / one.norm()) < 1e-4


def test_a_weight_of_zero_contributes_nothing(tmp_path: Path) -> None:
    network = toy_features()
    plain = gradient(toy_run(tmp_path, [DiffusionLoss()]))
    zeros = [MemorizationLoss(weight=0.0), PerceptualLoss(network, weight=0.0), ContrastiveLoss(network, weight=0.0)]
    assert torch.allclose(plain, gradient(toy_run(tmp_path, [DiffusionLoss(), *zeros])), rtol=0, atol=1e-7)
    assert float((plain - gradient(toy_run(tmp_path, all_losses()))).norm()) > 1e-3


def test_weights_are_linear_and_terms_are_logged_without_them(tmp_path: Path) -> None:
    network = toy_features()
    pairs = [(DiffusionLoss, {}), (PerceptualLoss, {"features": network})]
    single = [gradient(toy_run(tmp_path, [kind(weight=1.0, **more)])) for kind, more in pairs]
    both = gradient(
        toy_run(tmp_path, [kind(weight=w, **more) for w, (kind, more) in zip((2.0, 3.0), pairs, strict=True)])
    )
    assert torch.allclose(both, 2.0 * single[0] + 3.0 * single[1], rtol=1e-3, atol=1e-5)
    rows = [
        train(toy_run(tmp_path, [DiffusionLoss(weight=w)], run_folder=tmp_path / str(w))).metrics for w in (1.0, 2.0)
    ]
    assert rows[0][0]["diffusion"] == rows[1][0]["diffusion"]


def test_bf16_gives_nearly_the_same_gradient_and_trains(tmp_path: Path) -> None:
    """On a rollout micro-step too: what frozen calls have cast must not cut the LoRA off."""
    exact = gradient(toy_run(tmp_path, all_losses(), batch_size=2))
    rough = gradient(toy_run(tmp_path, all_losses(), batch_size=2, precision="bf16"))
    assert 1e-6 < float((exact - rough).norm() / exact.norm()) < 0.3
    run = toy_run(tmp_path, all_losses(), precision="bf16")
    assert all(math.isfinite(v) for row in train(run).metrics for v in row.values())
    assert all(p.dtype == torch.float32 for p in trainable(run.base.unet).values())


# --- what must be left alone ---


def test_the_base_model_is_byte_identical_after_training(tmp_path: Path) -> None:
    losses = all_losses()
    run = toy_run(tmp_path, losses)
    frozen = {"vae": run.base.vae, "features": losses[2].features.module}
    before = {k: {n: v.clone() for n, v in m.state_dict().items()} for k, m in frozen.items()}
    train(run)
    after = {k.replace(".base_layer", ""): v for k, v in run.base.unet.state_dict().items() if ".lora_" not in k}
    fresh = toy_unet().state_dict()
    assert after.keys() == fresh.keys() and all(torch.equal(after[k], fresh[k]) for k in fresh)
    for name, module in frozen.items():
        assert all(torch.equal(v, before[name][n]) for n, v in module.state_dict().items())
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())
    assert all(p.grad is None for n, p in run.base.unet.named_parameters() if "lora_" not in n)


# --- endurance ---


@pytest.mark.parametrize(
    ("prediction", "steps"),
    [("epsilon", 3), *(pytest.param(kind, 25, marks=pytest.mark.long) for kind in ("epsilon", "v_prediction"))],
)
@pytest.mark.long
def test_contrastive_micro_steps_of_mixed_batch_sizes_stay_finite(prediction: str, steps: int, tmp_path: Path) -> None:
    """Ragged negatives, t over the whole range, a rollout in each micro-step; at a rate that moves the LoRA."""
    data, seen = toy_dataset(tmp_path / "data", (2, 0, 1, 3, 0)), []
    for batch in (1, 2, 3, 4):
        shape = {"batch_size": batch, "steps": steps, "every": 1, "rollout_steps": 2, "seed": batch, "dataset": data}
        losses = [DiffusionLoss(), ContrastiveLoss(toy_features())]
        run = toy_run(tmp_path, losses, base=toy_base(prediction), run_folder=tmp_path / str(batch), **shape)
        result: Result = train(run)
        seen += [v for row in result.metrics for v in row.values()]
        assert all("contrastive" in row for row in result.metrics) and bool(learned(run).isfinite().all())
    assert len(seen) == 4 * steps * 7 and all(math.isfinite(v) for v in seen)
