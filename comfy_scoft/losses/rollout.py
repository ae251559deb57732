"""The short rollout from a noised training latent to an image, and its scalar chain κ.

With every step but one under no-grad, the final latent depends on the recorded prediction only through the linear
coefficients of the solver (no clipping). Write one step as ``z <- a_i z + b_i ε̃_i + c_i n_i`` with
``ε̃ = ε_∅ + s (ε_c − ε_∅)``, a stop-gradient on ``ε_∅`` and noise n_i; then for the recorded step j

    ∂z_0 / ∂ε_c = κ I,     κ = s · b_j · Π_{i>j} a_i,

one number per sample. A loss on the decoded image therefore needs no graph through the rollout: its gradient g at z_0
enters as ``⟨κ g, ε_c⟩``. For ε-prediction, with ``σ = √(1−ᾱ)/√ᾱ``, this is ``κ = s (σ_next − σ_j)`` for DDIM and
``κ = s (σ_next² − σ_j²) / σ_j`` for DDPM, which is 1 + σ_next/σ_j, nearly two, times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..common.settings import Choice, check, setting
from ..models.noise_schedule import NoiseSchedule
from ..models.stable_diffusion import BaseModel


class GradientStep(Choice):
    """The one sampling step whose prediction gets the gradient (paper: first)."""

    FIRST = "first"
    LAST = "last"
    RANDOM = "random"


class KappaMode(Choice):
    """`plain` is the exact chain. `normalised` keeps its sign and its root mean square over all timesteps, but gives
    each timestep the same weight (κ otherwise spans three orders of magnitude for ε-prediction)."""

    PLAIN = "plain"
    NORMALISED = "normalised"


class Grid(Choice):
    """`even` rounds evenly spaced timesteps; `released` is the authors' t, t−k, …, t−18k, 0 with k = t // 19."""

    EVEN = "even"
    RELEASED = "released"


class Solver(Choice):
    """`ddim` (η = 0) adds no noise, as in the paper; `ddpm` is ancestral sampling, as in the authors' code."""

    DDIM = "ddim"
    DDPM = "ddpm"


@dataclass(frozen=True)
class RolloutSettings:
    """How the image x̂ of the perceptual and contrastive losses is generated. Raises UserError for a bad value.

    A path has fewer steps where t has fewer distinct timesteps.
    """

    every: int = setting(
        10, "Do a rollout on every n-th forward/backward pass. Released code: 10.", min=1, max=1000, step=1
    )
    steps: int = setting(
        20, "Sampling steps per rollout. Each step runs the UNet. Released code: 20.", min=1, max=200, step=1
    )
    guidance: float = setting(
        4.5, "Classifier-free guidance scale (CFG) of the rollout. Released code: 4.5.", min=0.0, max=30.0, step=0.1
    )
    gradient_step: GradientStep = setting(
        GradientStep.FIRST, "The sampling step that gets the gradient. The paper found first to be best."
    )
    kappa: KappaMode = setting(
        KappaMode.PLAIN,
        "Gradient scale by timestep. plain: the exact gradient, much stronger at noisy timesteps. normalised: the same "
        "weight for every timestep.",
    )
    grid: Grid = setting(Grid.EVEN, "Timesteps of the rollout. even: evenly spaced. released: as in the authors' code.")
    solver: Solver = setting(
        Solver.DDIM,
        "Sampler of the rollout. ddim: the paper's, adds no noise. ddpm: the released code's, adds noise at each step; "
        "the perceptual and contrastive losses then weigh about 1.8 times as much.",
        later=True,
    )

    def __post_init__(self) -> None:
        check(self)


def timesteps(t: int, steps: int, grid: Grid = Grid.EVEN) -> list[int]:
    """Descending timesteps at which the network is called, from t to 0, without a duplicate. t = 0 gives [0].

    `steps` = 1 gives [t] alone: one jump to the image.
    """
    if steps == 1 or t == 0:
        return [t]
    if grid == Grid.RELEASED:
        stride = t // (steps - 1)
        return [t - i * stride for i in range(steps - 1)] + [0] if stride else [t, 0]
    count = min(steps, t + 1)
    return [round(t * (count - 1 - i) / (count - 1)) for i in range(count)]


def coefficients(
    schedule: NoiseSchedule, path: Sequence[int], solver: Solver = Solver.DDIM
) -> tuple[Tensor, Tensor, Tensor]:
    """a_i, b_i and c_i of ``z <- a_i z + b_i prediction + c_i noise`` for each step of a path, float64, (len(path),).

    c is 0 for DDIM, and for the last step. DDPM is that of Ho et al. 2020, Eq. 7, with the posterior's own variance
    (diffusers' `fixed_small`). The last step goes to ᾱ = 1, whatever the sampler's `set_alpha_to_one` says: otherwise
    that step is the identity.
    """
    table = schedule.alphas_cumprod
    now = table[torch.tensor(path)]
    after = torch.cat([now[1:], torch.ones(1, dtype=table.dtype)])
    rest = 1 - after  # square of the factor of ε in the next latent
    if solver == Solver.DDPM:
        rest = rest.square() * now / (after * (1 - now))
    if schedule.prediction == "v_prediction":
        a = (after * now).sqrt() + (rest * (1 - now)).sqrt()
        b = (rest * now).sqrt() - (after * (1 - now)).sqrt()
    else:
        a = (after / now).sqrt()
        b = rest.sqrt() - (after * (1 - now) / now).sqrt()
    return a, b, (1 - after - rest).clamp(min=0.0).sqrt()


def kappas(schedule: NoiseSchedule, path: Sequence[int], guidance: float, solver: Solver = Solver.DDIM) -> Tensor:
    """κ for each possible recorded step of a path, float64, shape (len(path),)."""
    a, b, _ = coefficients(schedule, path, solver)
    later = torch.cat([a.flip(0).cumprod(0).flip(0)[1:], torch.ones(1, dtype=a.dtype)])
    return guidance * b * later


@lru_cache(maxsize=8)
def _rms_kappa(schedule: NoiseSchedule, settings: RolloutSettings) -> float:
    """Root mean square of κ over all timesteps (and over the recorded step, when that is random)."""
    total = 0.0
    for t in range(len(schedule)):
        path = timesteps(t, settings.steps, settings.grid)
        values = kappas(schedule, path, settings.guidance, settings.solver)
        chosen = {GradientStep.FIRST: values[:1], GradientStep.LAST: values[-1:], GradientStep.RANDOM: values}[
            settings.gradient_step
        ]
        total += float(chosen.square().mean())
    return (total / len(schedule)) ** 0.5


@dataclass(frozen=True)
class Rollout:
    """Result of a rollout of B samples.

    z_0: (B, C, h, w) final latents, scaled, without a graph. kappa: (B,) float64, ∂z_0/∂ε_c at the recorded step.
    recorded_t: (B,) and recorded_z: (B, C, h, w), where the recorded prediction is made.
    """

    z_0: Tensor
    kappa: Tensor
    recorded_t: Tensor
    recorded_z: Tensor


@torch.no_grad()
def roll_out(
    base: BaseModel,
    z_t: Tensor,
    t: Tensor,
    captions: Sequence[str],
    settings: RolloutSettings,
    rollout_rand: Sequence[float] | None = None,
    first: tuple[Tensor, Tensor] | None = None,
    check_interrupt: Callable[[], None] = lambda: None,
    noise_seeds: Sequence[int] = (),
) -> Rollout:
    """Denoise z_t (B, C, h, w) at timesteps t (B,) to z_0 with guidance; caption and empty prompt in one call a step.

    rollout_rand: a number in [0, 1) for each sample, which decides the recorded step where that is random.
    `first` may hold the caption's and the empty prompt's prediction at (z_t, t), when they are at hand already.
    `check_interrupt` is called before each UNet call and may raise to stop. Samples with a shorter path leave the
    batch. noise_seeds: one for each sample, of the noise that a solver adds (not needed for DDIM).
    """
    paths = [timesteps(int(x), settings.steps, settings.grid) for x in t]
    steps = [coefficients(base.schedule, path, settings.solver) for path in paths]
    generators = [torch.Generator().manual_seed(seed) for seed in noise_seeds]
    rollout_rand = [0.0] * len(paths) if rollout_rand is None else rollout_rand
    recorded = [_recorded_index(len(p), settings.gradient_step, u) for p, u in zip(paths, rollout_rand, strict=True)]
    z, recorded_z = z_t.clone(), z_t.clone()
    for i in range(max(len(path) for path in paths)):
        active = [k for k, path in enumerate(paths) if i < len(path)]
        for k in active:
            if recorded[k] == i:
                recorded_z[k] = z[k]
        if i == 0 and first is not None:
            with_caption, without = first
        else:
            check_interrupt()
            now = torch.tensor([paths[k][i] for k in active], device=z.device)
            texts = [captions[k] for k in active] + [""] * len(active)
            with_caption, without = base.predict(z[active].repeat(2, 1, 1, 1), now.repeat(2), texts).chunk(2)
        guided = without + settings.guidance * (with_caption - without)
        a = _column([steps[k][0][i] for k in active], z)
        b = _column([steps[k][1][i] for k in active], z)
        z[active] = a * z[active] + b * guided.to(z.dtype)
        for k in active:
            if spread := float(steps[k][2][i]):
                z[k] += spread * torch.randn(z[k].shape, generator=generators[k]).to(z)
    every = [kappas(base.schedule, path, settings.guidance, settings.solver) for path in paths]
    kappa = torch.stack([values[j] for values, j in zip(every, recorded, strict=True)])
    if settings.kappa is KappaMode.NORMALISED:
        kappa = kappa.sign() * _rms_kappa(base.schedule, settings)
    when = torch.tensor([p[j] for p, j in zip(paths, recorded, strict=True)], device=z.device)
    return Rollout(z, kappa, when, recorded_z)


def _recorded_index(length: int, which: GradientStep, rand: float) -> int:
    if which == GradientStep.RANDOM:
        return int(rand * length)
    return 0 if which == GradientStep.FIRST else length - 1


def _column(values: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(values).to(like.device, like.dtype).view(-1, 1, 1, 1)
