"""The bounded move: its size, its direction, and what leaves an image exactly as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from preference_toys import latents, learned, random_preference
from toys import toy_base

from comfy_scoft.corrector.corrector import Correction, reach
from comfy_scoft.corrector.ddim import active, ddim_sample
from comfy_scoft.corrector.preference import image_log_odds
from comfy_scoft.corrector.prompt_gate import PlaceGate


def step(count: int = 4, seed: int = 6) -> tuple[torch.Tensor, ...]:
    """x, σ, x̂₀ and x̂₀(∅) of one sampling step, made up."""
    generator = torch.Generator().manual_seed(seed)
    x, denoised, unguided = (torch.randn(count, 4, 8, 8, generator=generator) for _ in range(3))
    return 3 * x, torch.full((count,), 2.0), denoised, unguided


def norms(change: torch.Tensor) -> torch.Tensor:
    return change.flatten(1).norm(dim=1)


@pytest.mark.parametrize("strength", [0.3, 2.0, 50.0])
@pytest.mark.parametrize("guided", [True, False])
def test_no_move_is_longer_than_its_bound(strength: float, guided: bool) -> None:
    x, sigma, denoised, unguided = step(16)
    given = unguided if guided else None
    moved = norms(Correction(random_preference(), strength)(x, sigma, denoised, given) - denoised)
    bound = strength * reach(x, sigma, denoised, given)
    assert bool((moved <= bound * (1 + 1e-5)).all()) and bool((moved > 0.1 * bound).all())


def test_the_move_is_the_gradient_at_the_size_that_is_stated() -> None:
    x, sigma, denoised, unguided = step()
    preference = random_preference()
    gradient, left = preference.gradient(x / 5**0.5, sigma)
    expected = 0.7 * left * norms(denoised - unguided) / norms(gradient)
    found = Correction(preference, 0.7)(x, sigma, denoised, unguided) - denoised
    assert torch.allclose(found, expected[:, None, None, None] * gradient, atol=1e-5)


def test_without_guidance_the_bound_is_the_noise_that_is_left() -> None:
    x, sigma, denoised, unguided = step(1)
    assert reach(x, sigma, denoised, unguided).item() == pytest.approx(norms(denoised - unguided).item(), rel=1e-6)
    assert reach(x, sigma, denoised, None).item() == pytest.approx((norms(x - denoised) / 3 / 5**0.5).item(), rel=1e-6)


def test_the_batch_and_its_order_do_not_matter() -> None:
    x, sigma, denoised, unguided = step(6)
    correction, order = Correction(random_preference(), 2.0), torch.tensor([3, 0, 5, 1, 4, 2])
    gate = torch.linspace(0, 1, 6)
    together = correction(x, sigma, denoised, unguided, gate)
    shuffled = correction(x[order], sigma, denoised[order], unguided[order], gate[order])
    assert torch.allclose(together[order], shuffled, atol=1e-5)
    for i in range(6):
        one = slice(i, i + 1)
        alone = correction(x[one], sigma[one], denoised[one], unguided[one], gate[one])
        assert torch.allclose(alone[0], together[i], atol=1e-5)


def test_a_move_makes_the_latent_more_preferred() -> None:
    preference, _ = learned(stripes=0.8)
    z = latents(12, 9)
    sigma = torch.full((12,), 0.5)
    x = z + 0.5 * torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    moved = Correction(preference, 0.3)(x, sigma, x, x + 1.0) / 1.25**0.5
    before, after = (image_log_odds(preference.head(point, sigma)) for point in (x / 1.25**0.5, moved))
    assert bool((after > before).all())


def test_a_closed_gate_changes_nothing_and_a_half_open_one_half() -> None:
    x, sigma, denoised, unguided = step(3)
    correction = Correction(random_preference(), 1.0)
    whole = correction(x, sigma, denoised, unguided) - denoised
    found = correction(x, sigma, denoised, unguided, torch.tensor([0.0, 0.5, 1.0])) - denoised
    assert torch.equal(found[0], torch.zeros_like(found[0]))
    assert torch.allclose(found[1], whole[1] / 2, atol=1e-6) and torch.allclose(found[2], whole[2], atol=1e-6)


def test_inputs_are_left_alone_and_inference_mode_and_half_precision_work() -> None:
    with torch.inference_mode():
        x, sigma, denoised, unguided = (part.half() for part in step())
        before = [part.clone() for part in (x, sigma, denoised, unguided)]
        found = Correction(random_preference(), 1.0)(x, sigma, denoised, unguided)
        assert found.dtype == torch.float16 and found.shape == denoised.shape and not torch.equal(found, denoised)
        assert all(torch.equal(a, b) for a, b in zip(before, (x, sigma, denoised, unguided), strict=True))


def test_a_preference_moves_to_another_device_inside_inference_mode() -> None:
    with torch.inference_mode():
        there = random_preference(place=PlaceGate(4)).to(torch.device("cpu"))
        assert not any(p.is_inference() for p in there.head.parameters())
        there.gradient(torch.zeros(1, 4, 8, 8), torch.ones(1))


def test_one_gate_serves_a_batch_and_no_gate_asks_nothing() -> None:
    gate = PlaceGate(2)
    with torch.no_grad():
        gate.weight.copy_(torch.tensor([100.0, 0.0]))
    correction = Correction(random_preference(place=gate))
    hidden = torch.zeros(2, 3, 2)
    hidden[0, 1, 0], hidden[1, :, 0] = 1.0, -1.0
    found = correction.gate(hidden, 4)
    assert found is not None and found.tolist() == pytest.approx([1.0, 0.0, 1.0, 0.0])
    assert Correction(random_preference()).gate(hidden, 4) is None


@pytest.mark.parametrize("wrong", [{"strength": -1.0}, {"strength": float("nan")}, {"start": -0.1}, {"end": 1.1}])
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"^(strength|start|end) is .+, but it must be a number from 0 to 10*\.$"):
        Correction(random_preference(), **wrong)


def test_latents_of_another_size_are_refused_in_one_sentence() -> None:
    x, sigma, denoised, unguided = step()
    with pytest.raises(ValueError, match="The latents have 4 channels and the preference was learned on 16"):
        Correction(random_preference(channels=16))(x, sigma, denoised, unguided)


def test_the_window_is_a_share_of_the_schedule() -> None:
    correction = Correction(random_preference(), 1.0, 0.25, 0.6)
    assert [t for t in (1000, 800, 750, 400, 399, 0) if active(correction, t, 1001)] == [750, 400]
    assert Correction(random_preference(), 0.0).idle and Correction(random_preference(), 1.0, 0.5, 0.5).idle


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_strength_nought_draws_the_very_same_picture(prediction: str) -> None:
    base = toy_base(prediction)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    prompts = ["a cook", "a tree"]
    plain = ddim_sample(base, noise, prompts, steps=3)
    correction = Correction(random_preference("mini"), 0.0)
    assert torch.equal(plain, ddim_sample(base, noise, prompts, correction, steps=3))
    assert not torch.allclose(
        plain, ddim_sample(base, noise, prompts, replace(correction, strength=1.0), steps=3), atol=1e-2
    )
    calls = base.calls
    alone = ddim_sample(base, noise, prompts, guidance=1.0, steps=3)
    assert base.calls == calls + 3 and not torch.allclose(alone, plain, atol=1e-3)


def test_a_picture_drawn_by_ddim_is_that_of_the_rollout() -> None:
    from comfy_scoft.losses.rollout import RolloutSettings, roll_out

    base = toy_base()
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    theirs = roll_out(base, noise, torch.tensor([999]), ["a cook"], RolloutSettings(steps=4, guidance=3.0)).z_0
    assert torch.allclose(ddim_sample(base, noise, ["a cook"], steps=4), theirs, atol=1e-4)
