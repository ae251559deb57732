"""The rollout against diffusers' DDIM sampler, and its scalar chain against the closed form and against autograd."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor
from toys import batch_loss, mean, toy_base, toy_features, toy_run

from comfy_scoft.losses import PerceptualLoss
from comfy_scoft.losses.rollout import Rollout, RolloutSettings, Solver, coefficients, kappas, roll_out, timesteps
from comfy_scoft.models.lora import LoraSettings, attach
from comfy_scoft.models.noise_schedule import NoiseSchedule
from comfy_scoft.models.stable_diffusion import BaseModel
from comfy_scoft.training import objective
from comfy_scoft.training.batches import samples_of_batch
from comfy_scoft.training.latent_cache import Cache

if TYPE_CHECKING:
    from diffusers import DDIMScheduler


TIMES = (0, 1, 18, 19, 37, 500, 999)
GUIDANCE = 4.5


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def sampler(schedule: NoiseSchedule) -> DDIMScheduler:
    """diffusers' DDIM on our table, ending at ᾱ = 1, without clipping."""
    from diffusers import DDIMScheduler

    found = DDIMScheduler(clip_sample=False, set_alpha_to_one=True, prediction_type=schedule.prediction)
    found.alphas_cumprod, found.final_alpha_cumprod = schedule.alphas_cumprod, torch.ones((), dtype=torch.float64)
    return found


def ddim(found: DDIMScheduler, prediction: Tensor, z: Tensor, now: int, after: int) -> Tensor:
    """One step of diffusers' sampler between any two timesteps; after = −1 is the image itself.

    The sampler goes back by `num_train_timesteps // num_inference_steps`, so that quotient is made to be our jump.
    """
    found.num_inference_steps = 1
    found.register_to_config(num_train_timesteps=now - after)
    return found.step(prediction, now, z, eta=0.0).prev_sample


def trained(base: BaseModel) -> list[torch.nn.Parameter]:
    """Attach a LoRA that does something (a fresh one has B = 0 and no gradient in A), in the UNet's number type."""
    parameters = attach(base.unet, LoraSettings(rank=2, alpha=2.0), torch.Generator().manual_seed(0))
    base.unet.to(base.dtype)
    with torch.no_grad():
        for i, p in enumerate(parameters.values()):
            p.copy_(0.2 * noise(*p.shape, seed=i))
    return list(parameters.values())


@lru_cache(maxsize=8)
def world(prediction: str, dtype: torch.dtype) -> tuple[BaseModel, list[torch.nn.Parameter]]:
    base = toy_base(prediction, dtype)
    return base, trained(base)


def guided(base: BaseModel, z: Tensor, t: int, caption: str, grad: bool) -> Tensor:
    """ε_∅ + s (ε_c − ε_∅), the empty prompt's without a gradient always."""
    with torch.no_grad():
        without, with_caption = base.predict(z.repeat(2, 1, 1, 1), torch.tensor([t, t]), ["", caption]).chunk(2)
    if grad:
        with_caption = base.predict(z, torch.tensor([t]), [caption])
    return without + GUIDANCE * (with_caption - without)


@lru_cache(maxsize=64)
def trace(prediction: str, dtype: torch.dtype, t: int, grid: str = "even") -> tuple[list[Tensor], list[Tensor]]:
    """The latents z_j and guided predictions of diffusers' sampler along the path from t; the last latent is z_0."""
    base, _ = world(prediction, dtype)
    path, found = timesteps(t, 20, grid), sampler(base.schedule)
    latents, predictions = [noise(1, 4, 8, 8, seed=t, dtype=dtype)], []
    for now, after in zip(path, [*path[1:], -1], strict=True):
        predictions.append(guided(base, latents[-1], now, f"caption {t}", grad=False))
        latents.append(ddim(found, predictions[-1], latents[-1], now, after).to(dtype))
    return latents, predictions


def through_everything(
    prediction: str, dtype: torch.dtype, t: int, j: int, grid: str = "even"
) -> tuple[Tensor, Tensor]:
    """z_0 with autograd through the whole sampler, and the prediction recorded at step j (guided, ε_∅ stopped)."""
    base, _ = world(prediction, dtype)
    path, found = timesteps(t, 20, grid), sampler(base.schedule)
    latents, predictions = trace(prediction, dtype, t, grid)
    z = latents[0]
    recorded = guided(base, latents[j], path[j], f"caption {t}", grad=True)
    for i, (now, after) in enumerate(zip(path, [*path[1:], -1], strict=True)):
        z = ddim(found, recorded if i == j else predictions[i], z, now, after).to(dtype)
    return z, recorded


def rolled(prediction: str, dtype: torch.dtype, times: tuple[int, ...], **settings) -> Rollout:
    base, _ = world(prediction, dtype)
    z = torch.cat([noise(1, 4, 8, 8, seed=t, dtype=dtype) for t in times])
    texts = [f"caption {t}" for t in times]
    choices = torch.rand(len(times), generator=torch.Generator().manual_seed(5)).tolist()
    return roll_out(base, z, torch.tensor(times), texts, RolloutSettings(**settings), choices)


def ddpm_step(
    schedule: NoiseSchedule, prediction: Tensor, z: Tensor, now: int, after: int, drawn: Tensor, monkeypatch
) -> Tensor:
    """One step of diffusers' DDPM sampler, which the authors' code uses, between any two timesteps; `drawn` is its
    noise."""
    from diffusers import DDPMScheduler
    from diffusers.schedulers import scheduling_ddpm

    found = DDPMScheduler(clip_sample=False, prediction_type=schedule.prediction)
    found.alphas_cumprod, found.one = schedule.alphas_cumprod, torch.ones((), dtype=torch.float64)
    found.set_timesteps(timesteps=[now, after] if after >= 0 else [now])
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **more: drawn)
    return found.step(prediction, now, z).prev_sample


def closeness(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("grid", ["even", "released"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 50])
def test_every_grid_falls_from_t_to_0_without_a_duplicate(grid: str, steps: int) -> None:
    for t in range(1000):
        path = timesteps(t, steps, grid)
        assert path[0] == t and 1 <= len(path) <= steps
        assert all(a > b for a, b in zip(path, path[1:], strict=False))
        assert path[-1] == 0 or steps == 1
        if grid == "even" and len(path) > 1:
            assert len(path) == min(steps, t + 1)
            assert all(abs(x - t * (1 - i / (len(path) - 1))) <= 0.5 + 1e-9 for i, x in enumerate(path))


def test_the_released_grid_is_its_formula() -> None:
    assert timesteps(0, 20, "released") == [0]
    assert timesteps(18, 20, "released") == [18, 0]
    assert timesteps(19, 20, "released") == list(range(19, -1, -1))
    assert timesteps(37, 20, "released") == [*range(37, 18, -1), 0]  # k = 1: a last jump from 19 to 0
    assert timesteps(999, 20, "released") == [*range(999, 62, -52), 0]  # k = 52: 999, 947, …, 63, 0
    assert timesteps(500, 20, "released") == [*range(500, 31, -26), 0]  # k = 26: 500, 474, …, 32, 0


@pytest.mark.parametrize("grid", ["even", "released"])
def test_kappa_is_the_closed_form_for_epsilon(grid: str) -> None:
    """κ = s (σ_next − σ_j), σ = √((1−ᾱ)/ᾱ), for every step of every path."""
    schedule = NoiseSchedule.scaled_linear()
    sigma = ((1 - schedule.alphas_cumprod) / schedule.alphas_cumprod).sqrt()
    for t in range(0, 1000, 3):
        path = timesteps(t, 20, grid)
        at = torch.cat([sigma[path], torch.zeros(1, dtype=torch.float64)])
        assert torch.allclose(kappas(schedule, path, GUIDANCE), GUIDANCE * (at[1:] - at[:-1]), rtol=1e-9, atol=1e-12)


def test_stated_values_of_kappa() -> None:
    """The figures of the design, at guidance 4.5: the released grid's for ε, and the even grid's for v."""
    schedule, v = NoiseSchedule.scaled_linear(), NoiseSchedule.scaled_linear(prediction="v_prediction")

    def first(s: NoiseSchedule, t: int, grid: str) -> float:
        return float(kappas(s, timesteps(t, 20, grid), GUIDANCE)[0])

    assert first(schedule, 37, "released") == pytest.approx(-0.01272, abs=5e-5)
    assert first(schedule, 37, "even") == pytest.approx(-0.02555, abs=5e-5)
    assert first(schedule, 999, "released") == pytest.approx(-17.25, abs=5e-3)
    assert first(schedule, 999, "even") == pytest.approx(-17.52, abs=5e-3)
    assert first(schedule, 18, "released") == pytest.approx(-0.4575, abs=5e-4)  # the saw tooth …
    assert first(schedule, 19, "released") == pytest.approx(-0.0163, abs=5e-4)
    assert first(schedule, 18, "even") == pytest.approx(-0.0166, abs=5e-4)  # … that the even grid has not
    sizes = [abs(first(v, t, "even")) for t in range(1000)]
    assert min(sizes) == pytest.approx(0.0136, abs=5e-4) and max(sizes) == pytest.approx(0.1876, abs=5e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.long
def test_z_0_is_that_of_diffusers_ddim(prediction: str) -> None:
    """Also batch invariance: the traces are made one sample at a time, the rollout mixes paths of 1 to 20 steps."""
    z_0 = rolled(prediction, torch.float64, TIMES[:4]).z_0, rolled(prediction, torch.float64, TIMES[4:]).z_0
    for got, t in zip(torch.cat(z_0), TIMES, strict=True):
        assert closeness(got, trace(prediction, torch.float64, t)[0][-1][0]) < 1e-9
    single = rolled(prediction, torch.float64, (37,), grid="released").z_0
    assert closeness(single, trace(prediction, torch.float64, 37, "released")[0][-1]) < 1e-9


def test_a_longer_path_in_the_batch_leaves_the_shorter_ones_alone() -> None:
    together, alone = rolled("epsilon", torch.float32, (999, 3, 0)), rolled("epsilon", torch.float32, (3,))
    assert closeness(together.z_0[1:2], alone.z_0) < 1e-5 and together.kappa[1] == alone.kappa[0]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("choice", ["random", *(pytest.param(c, marks=pytest.mark.long) for c in ("first", "last"))])
def test_kappa_and_lora_gradient_equal_autograd_through_the_whole_rollout(prediction: str, choice: str) -> None:
    """⟨κ g, ε_c⟩ for a random g against d⟨g, z_0⟩ through diffusers' sampler; float64, mixed t, batches of 4 and 3."""
    base, parameters = world(prediction, torch.float64)
    for times in (TIMES[:4], TIMES[4:]):
        result = rolled(prediction, torch.float64, times, gradient_step=choice)
        g = noise(*result.z_0.shape, seed=11, dtype=torch.float64)
        captions = [f"caption {t}" for t in times]
        mine = base.predict(result.recorded_z, result.recorded_t, captions)
        got = torch.autograd.grad((result.kappa.view(-1, 1, 1, 1) * g * mine).sum(), parameters)
        total = 0.0
        for i, t in enumerate(times):
            path = timesteps(t, 20)
            j = path.index(int(result.recorded_t[i]))
            assert choice == "random" or j == (0 if choice == "first" else len(path) - 1)
            z_0, recorded = through_everything(prediction, torch.float64, t, j)
            (slope,) = torch.autograd.grad((g[i] * z_0).sum(), recorded, retain_graph=True)
            kappa = slope * GUIDANCE / g[i]  # ∂z_0/∂ε_c is the guidance times ∂z_0/∂ε̃: one number everywhere
            assert float((kappa - result.kappa[i]).abs().max() / result.kappa[i].abs()) < 1e-6
            total = total + (g[i] * z_0).sum()
        want = torch.autograd.grad(total, parameters)
        assert closeness(torch.cat([p.flatten() for p in got]), torch.cat([p.flatten() for p in want])) < 1e-6


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("choice", ["random", *(pytest.param(c, marks=pytest.mark.long) for c in ("first", "last"))])
def test_ddpm_and_its_kappa_equal_diffusers_and_autograd_through_the_whole_rollout(
    prediction: str, choice: str, monkeypatch
) -> None:
    """z_0 with the same noise, and ∂z_0/∂ε_c through every step of diffusers' DDPM; float64, paths of 1 to 8 steps."""
    base, _ = world(prediction, torch.float64)
    times, seeds = (0, 2, 37, 500, 999), [11, 12, 13, 14, 15]
    z = torch.cat([noise(1, 4, 8, 8, seed=t, dtype=torch.float64) for t in times])
    texts = [f"caption {t}" for t in times]
    settings = RolloutSettings(steps=8, gradient_step=choice, grid="released", solver="ddpm")
    rand = torch.rand(len(times), generator=torch.Generator().manual_seed(5)).tolist()
    result = roll_out(base, z, torch.tensor(times), texts, settings, rand, noise_seeds=seeds)
    for i, t in enumerate(times):
        path, generator = timesteps(t, 8, "released"), torch.Generator().manual_seed(seeds[i])
        j, now_z = path.index(int(result.recorded_t[i])), z[i : i + 1]
        for n, (now, after) in enumerate(zip(path, [*path[1:], -1], strict=True)):
            answer = guided(base, now_z.detach(), now, texts[i], grad=False)
            if n == j:
                assert closeness(result.recorded_z[i], now_z[0].detach()) < 1e-9 or t == 0
                recorded = answer.clone().requires_grad_()
                answer = recorded
            drawn = torch.randn(4, 8, 8, generator=generator).double() if after >= 0 else torch.zeros(4, 8, 8)
            now_z = ddpm_step(base.schedule, answer, now_z, now, after, drawn, monkeypatch)
        assert closeness(result.z_0[i], now_z[0].detach()) < 1e-8
        g = noise(1, 4, 8, 8, seed=i, dtype=torch.float64)
        (slope,) = torch.autograd.grad((g * now_z).sum(), recorded)
        assert float((slope * GUIDANCE / g / result.kappa[i] - 1.0).abs().max()) < 1e-6


def test_ddpms_kappa_is_its_closed_form_and_what_the_settings_page_says_of_it() -> None:
    """κ = s (σ_next² − σ_j²) / σ_j: of the first step 0.51 to 0.58 of it is left with DDIM at t ≥ 100."""
    schedule = NoiseSchedule.scaled_linear()
    sigma = ((1 - schedule.alphas_cumprod) / schedule.alphas_cumprod).sqrt()
    firsts: dict[tuple[str, str], list[float]] = {("even", "ddim"): [], ("released", "ddpm"): [], ("even", "ddpm"): []}
    for t in range(1000):
        for (grid, solver), values in firsts.items():
            path = timesteps(t, 20, grid)
            found = kappas(schedule, path, GUIDANCE, Solver(solver))
            values.append(float(found[0]))
            at = torch.cat([sigma[path], torch.zeros(1, dtype=torch.float64)])
            if solver == "ddpm":
                assert torch.allclose(found, GUIDANCE * (at[1:] ** 2 - at[:-1] ** 2) / at[:-1], rtol=1e-9, atol=1e-12)
    ours, theirs, even = (torch.tensor(values) for values in firsts.values())
    left = (ours / even)[100:]
    assert (round(float(left.min()), 2), round(float(left.max()), 2)) == (0.51, 0.58)
    size = [round(float(values.square().mean().sqrt()), 2) for values in (ours, theirs)]
    assert size == [4.46, 7.83]


def test_only_ddpm_needs_noise_and_ends_without() -> None:
    schedule, path = NoiseSchedule.scaled_linear(), timesteps(999, 20)
    assert not coefficients(schedule, path)[2].any()
    spread = coefficients(schedule, path, Solver.DDPM)[2]
    assert spread[-1] == 0 and (spread[:-1] > 0).all()


@pytest.mark.parametrize("choice", ["first", "random"])
def test_the_same_in_float32(choice: str) -> None:
    base, parameters = world("epsilon", torch.float32)
    result = rolled("epsilon", torch.float32, (37, 999), gradient_step=choice)
    mine = base.predict(result.recorded_z, result.recorded_t, ["caption 37", "caption 999"])
    g = noise(2, 4, 8, 8, seed=12)
    got = torch.autograd.grad((result.kappa.float().view(-1, 1, 1, 1) * g * mine).sum(), parameters)
    index = [timesteps(t, 20).index(int(r)) for t, r in zip((37, 999), result.recorded_t, strict=True)]
    made = [through_everything("epsilon", torch.float32, t, j)[0] for t, j in zip((37, 999), index, strict=True)]
    want = torch.autograd.grad((g * torch.cat(made)).sum(), parameters)
    assert closeness(torch.cat([p.flatten() for p in got]), torch.cat([p.flatten() for p in want])) < 1e-4


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("choice", ["first", "last", "random"])
def test_the_trainers_surrogate_equals_autograd_through_decoder_and_features(
    prediction: str, choice: str, tmp_path, monkeypatch
) -> None:
    """The whole of a rollout micro-step: gradient of weight · mean L_P(decode(z_0)) with respect to the LoRA."""
    network, base = toy_features(), toy_base(prediction, torch.float64, kl=True)
    loss = PerceptualLoss(network, weight=3.0)
    run = toy_run(tmp_path, [loss], base=base, batch_size=3, gradient_step=choice, rollout_steps=4)
    parameters, cache, seen = trained(base), Cache(base, run.dataset, 64), {}

    def spy(*args, **more):
        seen.update(context=args, result=roll_out(*args, **more))
        return seen["result"]

    monkeypatch.setattr(objective, "roll_out", spy)
    total, terms = batch_loss(run, cache)
    got = torch.autograd.grad(total, parameters)
    _, z_t, t, captions, *_ = seen["context"]
    samples = [d.sample for d in samples_of_batch(cache, run.settings, run.rollout, 1000, 0)]
    made = []
    for i in range(3):
        path, found, z = timesteps(int(t[i]), 4), sampler(base.schedule), z_t[i : i + 1].double()
        j = path.index(int(seen["result"].recorded_t[i]))
        for n, (now, after) in enumerate(zip(path, [*path[1:], -1], strict=True)):
            z = ddim(found, guided(base, z.detach(), now, captions[i], grad=n == j), z, now, after)
        made.append(z)
    near = network.distance(network.extract(base.decode(torch.cat(made))), cache.positive(network, samples))
    assert mean(terms["perceptual"]) == pytest.approx(float(near.mean().detach()), rel=1e-4)
    want = torch.autograd.grad(3.0 * near.mean(), parameters)
    assert closeness(torch.cat([p.flatten() for p in got]), torch.cat([p.flatten() for p in want])) < 1e-4


@pytest.mark.parametrize("choice", ["first", "last", "random"])
def test_normalised_kappa_has_the_plain_ones_root_mean_square(choice: str) -> None:
    base = toy_base()
    squares = []
    for t in range(1000):
        values = kappas(base.schedule, timesteps(t, 20), GUIDANCE)
        squares.append(float({"first": values[0] ** 2, "last": values[-1] ** 2, "random": (values**2).mean()}[choice]))
    settings = RolloutSettings(gradient_step=choice, kappa="normalised")
    z, t = torch.zeros(2, 4, 8, 8), torch.tensor([1, 0])
    kappa = roll_out(base, z, t, ["a", "b"], settings, [0.0, 0.99]).kappa
    assert kappa.tolist() == pytest.approx([-((sum(squares) / 1000) ** 0.5)] * 2, rel=1e-9)


def test_a_prediction_at_hand_is_not_made_again_and_every_call_is_checked() -> None:
    base, checked = toy_base(), []
    z, t = noise(2, 4, 8, 8), torch.tensor([999, 4])
    whole = roll_out(base, z, t, ["a", "b"], RolloutSettings(), check_interrupt=lambda: checked.append(base.calls))
    assert base.calls == 20 and checked == list(range(20))
    first = base.predict(z, t, ["a", "b"]).detach(), base.predict(z, t, ["", ""]).detach()
    before = base.calls
    again = roll_out(base, z, t, ["a", "b"], RolloutSettings(), first=first)
    assert base.calls - before == 19
    assert torch.allclose(whole.z_0, again.z_0, atol=1e-3, rtol=1e-4) and not again.z_0.requires_grad


def test_random_records_every_step() -> None:
    base, seen = toy_base(), set()
    settings = RolloutSettings(gradient_step="random", steps=3)
    choices = [i / 8 for i in range(8)]
    first = torch.zeros(8, 4, 8, 8), torch.zeros(8, 4, 8, 8)
    t = torch.full((8,), 2)
    seen = roll_out(base, first[0], t, ["a"] * 8, settings, choices, first).recorded_t.tolist()
    assert seen == [2, 2, 2, 1, 1, 1, 0, 0]


def test_bad_options_are_refused() -> None:
    for options in ({"every": 0}, {"steps": 0}, {"gradient_step": "second"}, {"kappa": "x"}, {"grid": "x"}):
        (name,) = options
        with pytest.raises(ValueError, match=f"^{name} is .+, but it must be "):
            RolloutSettings(**options)
