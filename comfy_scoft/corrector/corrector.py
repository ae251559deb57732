"""The correction of a denoised latent at one sampling step, with bounded size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.settings import check, setting
from .preference import Preference

UNGUIDED = 1 / 3
"""The bound at CFG 1 as a share of the noise, chosen so that a strength corrects about as much as at CFG 3 in the mini
world (development half)."""


@dataclass(frozen=True)
class Correction:
    """Moves the denoised latent x̂₀ at each sampling step in a window:

        x̂₀ ← x̂₀ + Δ,   Δ = strength · g · (1 − e^J) · r · ∇J / ‖∇J‖,   so ‖Δ‖ ≤ strength · r,

    for each image, with J the log-preference of the noisy latent z_t, g the prompt's gate (1 without one) and r the
    size of the guidance update (`reach`). 1 − e^J shortens the move as the latent becomes preferred.

    strength: in [0, 100]. start, end: shares of the schedule, 0 the noisiest and 1 the last timestep, as in ComfyUI's
    other nodes.
    """

    preference: Preference
    strength: float = setting(
        3.0,
        "Longest step, relative to the guidance's own. 0: off. Too much harms the image, so compare a few values.",
        min=0.0,
        max=100.0,
        step=0.05,
    )
    start: float = setting(
        0.0,
        "Where the correction starts, as a share of the sampling schedule. 0: the first step.",
        min=0.0,
        max=1.0,
        step=0.01,
    )
    end: float = setting(
        0.6, "Where the correction ends. The steps after it run uncorrected.", min=0.0, max=1.0, step=0.01
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def idle(self) -> bool:
        """Whether the correction changes nothing."""
        return self.strength == 0.0 or self.start >= self.end

    def gate(self, hidden: Tensor | None, count: int) -> Tensor | None:
        """The prompts' gate (count,) from their hidden states (rows, tokens, width); None without a gate.

        Fewer rows than `count` are repeated over the batch, as ComfyUI does with conditioning.
        """
        if self.preference.place is None or hidden is None:
            return None
        with torch.no_grad():
            gate = self.preference.place(hidden)
        return gate.repeat(-(-count // len(gate)))[:count]

    def __call__(
        self, x: Tensor, sigma: Tensor, denoised: Tensor, unguided: Tensor | None = None, gate: Tensor | None = None
    ) -> Tensor:
        """The corrected x̂₀, in the shape and dtype of `denoised` (B, C, h, w).

        x: the noisy latent z + σ ε; sigma: σ (B,); unguided: x̂₀ without the prompt, None at CFG 1; gate: (B,) in 0 … 1,
        None is 1. Raises UserError for latents with another number of channels.
        """
        head = self.preference.head
        if x.shape[1] != head.channels:
            raise UserError(
                f"The latents have {x.shape[1]} channels and the preference was learned on {head.channels}: use a "
                "model of the family it was learned for."
            )
        with torch.no_grad():
            scale = (1.0 + sigma.float().reshape(-1, 1, 1, 1).square()).sqrt()
            gradient, left = self.preference.gradient(x.float() / scale, sigma.float().expand(len(x)))
            size = self.strength * left * reach(x, sigma, denoised, unguided)
            if gate is not None:
                size = size * gate.to(size)
            norm = gradient.flatten(1).norm(dim=1)
            factor = torch.where(norm > 0, size / norm.clamp_min(1e-30), torch.zeros_like(size))
            return denoised + (factor.reshape(-1, 1, 1, 1) * gradient).to(denoised.dtype)


def reach(x: Tensor, sigma: Tensor, denoised: Tensor, unguided: Tensor | None) -> Tensor:
    """The bound (B,) of a move: the L2 norm of the guidance update, ‖x̂₀ − x̂₀(∅)‖.

    At CFG 1, without x̂₀(∅), it is UNGUIDED · ‖x − x̂₀‖ / √(1+σ²) = UNGUIDED · √(1−ᾱ) ‖ε̂‖, a share of the noise in the
    latent as the UNet reads it. Both fall to zero with the noise.
    """
    if unguided is not None:
        return (denoised - unguided).float().flatten(1).norm(dim=1)
    return UNGUIDED * (x - denoised).float().flatten(1).norm(dim=1) / (1.0 + sigma.float().square()).sqrt()
