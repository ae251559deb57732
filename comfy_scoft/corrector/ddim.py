"""DDIM sampling with a correction outside ComfyUI, for measurements and the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..losses.rollout import timesteps
from ..models.stable_diffusion import BaseModel, repeated
from .corrector import Correction


@torch.no_grad()
def ddim_sample(
    base: BaseModel,
    noise: Tensor,
    prompts: Sequence[str],
    correction: Correction | None = None,
    guidance: float = 3.0,
    steps: int = 20,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Sample scaled latents (N, 4, h, w) for N prompts from `noise` (N, 4, h, w), on evenly spaced timesteps.

    The same as ComfyUI's sampler "ddim" with the scheduler "normal". guidance: 1 skips the empty prompt.
    check: called before each UNet call; may raise to stop.
    """
    path = timesteps(len(base.schedule) - 1, steps)
    z, text = noise.clone(), list(prompts)
    gate = None
    if correction is not None and correction.preference.place is not None:
        gate = correction.gate(repeated([base.embed(prompt).hidden for prompt in text]), len(text))
    for i, t in enumerate(path):
        check()
        now = torch.full((len(z),), t, device=z.device)
        alpha_bar = float(base.schedule.alphas_cumprod[t])
        signal, spread = alpha_bar**0.5, (1.0 - alpha_bar) ** 0.5
        unguided = None
        if guidance == 1.0:
            denoised = _denoised(base, z, base.predict(z, now, text), signal, spread)
        else:
            predictions = base.predict(z.repeat(2, 1, 1, 1), now.repeat(2), text + [""] * len(text)).chunk(2)
            prompted, unguided = (_denoised(base, z, prediction, signal, spread) for prediction in predictions)
            denoised = unguided + guidance * (prompted - unguided)
        if correction is not None and active(correction, t, len(base.schedule)):
            sigma = torch.full((len(z),), spread / signal, device=z.device)
            denoised = correction(z / signal, sigma, denoised, unguided, gate)
        following = float(base.schedule.alphas_cumprod[path[i + 1]]) if i + 1 < len(path) else 1.0
        noise_left = (z - signal * denoised) / spread
        z = following**0.5 * denoised + (1.0 - following) ** 0.5 * noise_left
    return z


def _denoised(base: BaseModel, z_t: Tensor, prediction: Tensor, signal: float, spread: float) -> Tensor:
    """x̂₀ of the UNet's prediction at z_t."""
    if base.schedule.prediction == "epsilon":
        return (z_t - spread * prediction) / signal
    return signal * z_t - spread * prediction


def active(correction: Correction, t: int, length: int) -> bool:
    """Whether timestep t of `length` is in the correction's window."""
    done = 1.0 - t / (length - 1)
    return not correction.idle and correction.start <= done <= correction.end
