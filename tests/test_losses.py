"""Each loss by sums done by hand, and against its formula written once more in float64 numpy."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import PlainFeatures, toy_base, toy_features

from comfy_scoft.losses import LOSSES, ContrastiveLoss, DiffusionLoss, LossContext, MemorizationLoss, PerceptualLoss
from comfy_scoft.models.lora import LoraSettings, attach
from comfy_scoft.models.noise_schedule import NoiseSchedule


def context(**known) -> LossContext:
    """A context whose UNet answers are given: prediction, generic; image; positive; negatives and mask; t; schedule."""
    prediction = known.get("prediction", torch.zeros(1, 1, 1, 2))
    schedule = known.get("schedule", NoiseSchedule(torch.tensor([0.9, 0.5, 0.2])))
    count = len(known.get("image", prediction))
    answers = {"prediction": prediction, "generic": known.get("generic")}
    return LossContext(
        base=SimpleNamespace(schedule=schedule),
        z_t=torch.zeros_like(prediction),
        t=known.get("t", torch.zeros(len(prediction), dtype=torch.long)),
        target=known.get("target", torch.zeros_like(prediction)),
        captions=("c",) * count,
        generic=("g",) * count,
        positive=lambda network: known["positive"],
        negatives=lambda network: (known["negatives"], known["mask"]),
        image=known.get("image"),
        _predictions={k: v for k, v in answers.items() if v is not None},
    )


def flat(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).view(len(rows), 1, 1, -1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    """1 − cosine over the first axis, mean over the others: (C, h, w) each."""
    total = []
    for y in range(a.shape[1]):
        for x in range(a.shape[2]):
            p, q = a[:, y, x], b[:, y, x]
            total.append(1.0 - p @ q / (math.sqrt(p @ p) * math.sqrt(q @ q)))
    return sum(total) / len(total)


def test_diffusion_by_hand() -> None:
    c = context(prediction=flat([1.0, 2.0], [0.0, 3.0]), target=flat([0.0, 4.0], [0.0, 1.0]))
    # ((1−0)² + (2−4)²)/2 = 2.5 and ((0−0)² + (3−1)²)/2 = 2
    assert DiffusionLoss()(c).tolist() == [2.5, 2.0]


@pytest.mark.parametrize("prediction, expected", [("epsilon", [0.5 / 9, 0.5, 1.0]), ("v_prediction", None)])
def test_min_snr_by_hand(prediction: str, expected: list[float] | None) -> None:
    # ᾱ = 0.9, 0.5, 0.2: SNR = 9, 1, 0.25. γ = 0.5: min(SNR, γ) = 0.5, 0.5, 0.25.
    # ε: divided by SNR = 0.0556, 0.5, 1.   v: divided by SNR + 1 = 10, 2, 1.25 = 0.05, 0.25, 0.2.
    expected = expected or [0.05, 0.25, 0.2]
    schedule = NoiseSchedule(torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64), prediction)
    c = context(
        schedule=schedule, t=torch.tensor([0, 1, 2]), prediction=flat([1.0, 1.0], [1.0, 1.0], [2.0, 0.0]),
        target=flat([0.0, 0.0], [2.0, 2.0], [1.0, 1.0]),
    )  # fmt: skip
    assert DiffusionLoss()(c).tolist() == [1.0, 1.0, 1.0]
    assert DiffusionLoss(min_snr_gamma=0.5)(c).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 5.0])
def test_diffusion_against_numpy(prediction: str, gamma: float) -> None:
    schedule = NoiseSchedule.scaled_linear(prediction=prediction)
    t = torch.tensor([0, 1, 250, 500, 750, 999])
    z, eps, answer = noise(6, 4, 5, 3, seed=1), noise(6, 4, 5, 3, seed=2), noise(6, 4, 5, 3, seed=3)
    c = context(schedule=schedule, t=t, prediction=answer, target=schedule.target(z, eps, t))
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    for i, loss in enumerate(DiffusionLoss(min_snr_gamma=gamma)(c).tolist()):
        bar = float(np.prod(1.0 - betas[: int(t[i]) + 1]))
        e, x, p = (v[i].double().numpy() for v in (eps, z, answer))
        target = e if prediction == "epsilon" else math.sqrt(bar) * e - math.sqrt(1 - bar) * x
        snr = bar / (1 - bar)
        weight = 1.0
        if gamma:
            weight = min(snr, gamma) / (snr if prediction == "epsilon" else snr + 1)
        assert loss == pytest.approx(weight * float(((target - p) ** 2).mean()), rel=2e-6)


def test_min_snr_at_zero_terminal_snr_is_finite() -> None:
    schedule = NoiseSchedule(torch.tensor([0.5, 0.0]), "v_prediction")
    c = context(schedule=schedule, t=torch.tensor([1]), prediction=flat([1.0, 1.0]))
    assert DiffusionLoss(min_snr_gamma=5.0)(c).tolist() == pytest.approx([0.0], abs=1e-9)


def test_memorization_by_hand_and_numpy() -> None:
    c = context(prediction=flat([1.0, 2.0]), generic=flat([0.0, -1.0]))
    assert MemorizationLoss()(c).tolist() == [(1.0 + 9.0) / 2]
    a, b = noise(3, 4, 2, 5, seed=4), noise(3, 4, 2, 5, seed=5)
    mine = MemorizationLoss()(context(prediction=a, generic=b)).numpy()
    assert mine == pytest.approx(((a.double() - b.double()).numpy() ** 2).reshape(3, -1).mean(1), rel=1e-6)


@pytest.mark.parametrize("reference", ["current", "base"])
def test_memorizations_reference_is_stopped_and_is_the_network_it_names(reference: str) -> None:
    base, plain = toy_base(), toy_base()
    parameters = attach(base.unet, LoraSettings(rank=2, alpha=2.0), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for i, p in enumerate(parameters.values()):
            p.copy_(0.3 * noise(*p.shape, seed=i))
    z, t = noise(2, 4, 8, 8, seed=9), torch.tensor([3, 800])

    def fresh() -> LossContext:
        return LossContext(base, z, t, z, ("a", "b"), ("p", "q"), lambda n: None, lambda n: None)

    with torch.no_grad():
        target = (base if reference == "current" else plain).predict(z, t, ["p", "q"])
        other = (plain if reference == "current" else base).predict(z, t, ["p", "q"])
    assert (target - other).abs().max() > 1e-2
    expected = (base.predict(z, t, ["a", "b"]) - target).square().mean((1, 2, 3))
    mine = MemorizationLoss(reference=reference)(fresh())
    assert torch.allclose(mine, expected, rtol=1e-5)
    wanted = torch.autograd.grad(expected.sum(), list(parameters.values()))
    for got, want in zip(torch.autograd.grad(mine.sum(), list(parameters.values())), wanted, strict=True):
        assert torch.allclose(got, want, rtol=1e-3, atol=1e-6)


def test_perceptual_by_hand_and_numpy() -> None:
    c = context(image=flat([1.0, 0.0]).double(), positive=flat([0.0, 2.0]).double())
    assert PerceptualLoss(PlainFeatures())(c).tolist() == [(1.0 + 4.0) / 2]
    network = toy_features()
    image, positive = noise(3, 3, 16, 16, seed=1), noise(3, 8, 4, 4, seed=2)
    mine = PerceptualLoss(network)(context(image=image, positive=positive))
    assert mine.dtype == torch.float32 and mine.shape == (3,)
    made = network.extract(image).double().numpy()
    wanted = [cosine_distance(made[i], positive[i].double().numpy()) for i in range(3)]
    assert mine.numpy() == pytest.approx(wanted, rel=1e-5)


def test_the_distance_by_hand() -> None:
    network = toy_features()
    a = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    b = torch.tensor([[4.0, 3.0], [-3.0, -4.0], [6.0, 8.0], [-4.0, 3.0]]).view(4, 2, 1, 1)
    # cosines 24/25, −1, 1, 0
    assert network.distance(a.expand(4, -1, -1, -1), b).tolist() == pytest.approx([0.04, 2.0, 0.0, 1.0], abs=1e-6)
    # over two positions: the mean of 0.04 and 2
    two = torch.cat([b[0:1], b[1:2]], dim=3)
    assert network.distance(a.expand(1, 2, 1, 2), two).tolist() == pytest.approx([1.02], abs=1e-6)


def test_features_are_of_the_normalised_resized_picture() -> None:
    """mean .5, std .5 undo the step to [0, 1]; an image of one color stays so under any resize."""
    network = toy_features()
    image = torch.tensor([0.5, -1.0, 0.25]).view(1, 3, 1, 1).expand(1, 3, 64, 40)
    assert torch.allclose(network.extract(image), network.module(image[..., :16, :16]), atol=1e-5)
    with pytest.raises(ValueError, match=r"images of shape \(B, 3, H, W\)"):
        network.extract(image[0])


def hand_contrast() -> dict[str, torch.Tensor]:
    """D⁺ = 1, 4, 0.25; D⁻ of sample 0: 9 and 1, of sample 1: none, of sample 2: 16 alone. Padding is NaN."""
    nan = float("nan")
    return {
        "image": flat([0.0], [0.0], [0.0]),
        "positive": flat([1.0], [2.0], [0.5]),
        "negatives": torch.tensor([[3.0, 1.0], [nan, nan], [nan, 4.0]]).view(3, 2, 1, 1, 1),
        "mask": torch.tensor([[True, True], [False, False], [False, True]]),
    }


def test_contrastive_by_hand_with_ragged_negatives_and_padding_of_nan() -> None:
    known = hand_contrast()
    image = known["image"].clone().requires_grad_()
    loss = ContrastiveLoss(PlainFeatures(), margin=2.0, negative_weight=0.25)(context(**{**known, "image": image}))
    # 1 − .25·5 + 2 = 1.75;   no negatives: the positive term 4, without a margin;   .25 − 4 + 2 = −1.75 -> 0
    assert loss.tolist() == [1.75, 4.0, 0.0]
    # ∂/∂x̂ of (x̂−1)² − .25·mean((x̂−3)², (x̂−1)²) at 0: −2 + .25·(6 + 2)/2 = −1;   of (x̂−2)²: −4;   inactive hinge: 0
    (gradient,) = torch.autograd.grad(loss.sum(), image)
    assert gradient.flatten().tolist() == [-1.0, -4.0, 0.0]


def test_the_difference_form_has_no_hinge_no_margin_and_no_weight() -> None:
    loss = ContrastiveLoss(PlainFeatures(), margin=2.0, negative_weight=0.5, form="difference")
    # 1 − 5;  4 alone;  .25 − 16
    assert loss(context(**hand_contrast())).tolist() == [-4.0, 4.0, -15.75]


@pytest.mark.parametrize("count", [0, 2])
def test_a_batch_without_any_negative_is_the_perceptual_loss(count: int) -> None:
    known = hand_contrast()
    known["negatives"], known["mask"] = torch.full((3, count, 1, 1, 1), float("nan")), torch.zeros(3, count).bool()
    for form in ("triplet", "difference"):
        contrastive = ContrastiveLoss(PlainFeatures(), form=form)(context(**known))
        assert torch.equal(contrastive, PerceptualLoss(PlainFeatures())(context(**known)))


@pytest.mark.parametrize("form", ["triplet", "difference"])
def test_contrastive_against_numpy(form: str) -> None:
    network, counts = toy_features(), (5, 0, 1, 3)
    image, positive, negatives = noise(4, 3, 16, 16), noise(4, 8, 4, 4, seed=1), noise(4, 5, 8, 4, 4, seed=2)
    mask = torch.tensor([[k < n for k in range(5)] for n in counts])
    negatives[~mask] = float("nan")
    loss = ContrastiveLoss(network, margin=0.1, negative_weight=0.7, form=form)
    mine = loss(context(image=image, positive=positive, negatives=negatives, mask=mask)).tolist()
    made, near, far = (v.double().numpy() for v in (network.extract(image), positive, negatives))
    for i, count in enumerate(counts):
        wanted = cosine_distance(made[i], near[i])
        if count:
            mean = sum(cosine_distance(made[i], far[i, k]) for k in range(count)) / count
            wanted = max(wanted - 0.7 * mean + 0.1, 0.0) if form == "triplet" else wanted - mean
        assert mine[i] == pytest.approx(wanted, rel=1e-5, abs=1e-7)


def test_released_weights_are_the_defaults() -> None:
    network = toy_features()
    made = (DiffusionLoss(), MemorizationLoss(), PerceptualLoss(network), ContrastiveLoss(network))
    assert [loss.weight for loss in made] == [0.7, 0.3, 0.05, 0.05]
    assert {loss.name: type(loss) for loss in made} == {k: v for k, v in LOSSES.items() if k != "prior"}


def test_bad_options_are_refused() -> None:
    for make, word in (
        (lambda: DiffusionLoss(min_snr_gamma=-1), "min_snr_gamma"),
        (lambda: MemorizationLoss(reference="other"), "reference"),
        (lambda: ContrastiveLoss(PlainFeatures(), form="other"), "form"),
    ):
        with pytest.raises(ValueError, match=word):
            make()


def test_frozen_predictions_are_one_call_and_the_same_as_alone() -> None:
    base, checked = toy_base(), []
    z, t = noise(2, 4, 8, 8), torch.tensor([3, 800])
    c = LossContext(
        base, z, t, z, ("a", "b"), ("p", "q"), None, None, check_interrupt=lambda: checked.append(base.calls)
    )
    caption, empty, generic = c.frozen("caption", "empty", "generic")
    assert base.calls == 1 and checked == [0]
    c.frozen("empty")
    assert base.calls == 1
    for got, texts in ((caption, ["a", "b"]), (empty, ["", ""]), (generic, ["p", "q"])):
        assert torch.allclose(got, base.predict(z, t, texts), atol=1e-5)
