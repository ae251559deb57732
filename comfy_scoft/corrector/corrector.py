"""The bounded move: how far, and in which direction, a denoised latent is corrected at one sampling step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.settings import check, setting
from .preference import Preference

UNGUIDED = 1 / 3
"""At CFG 1, the bound as a share of the noise. With it a strength corrects about as much as at CFG 3 in the mini world
(development half)."""


@dataclass(frozen=True)
class Correction:
    """Moves the denoised latent x̂₀ of each sampling step in a window:

        x̂₀ ← x̂₀ + Δ,   Δ = strength · g · (1 − e^J) · r · ∇J / ‖∇J‖,   so ‖Δ‖ ≤ strength · r,

    for each image, with J the log-preference of the noisy latent z_t, g the prompt's gate (1 without one) and r the
    size of the guidance's own update (`reach`). The less is left to correct, the shorter is the move.

    strength: 0 changes nothing. start and end: shares of the schedule, 0 its noisiest and 1 its last timestep, as in
    ComfyUI's other nodes.
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
        """Whether nothing is ever moved."""
        return self.strength == 0.0 or self.start >= self.end

    def gate(self, hidden: Tensor | None, count: int) -> Tensor | None:
        """The prompts' gate (count,), from their hidden states (1 or more, tokens, width); None for "not asked".

        Hidden states of fewer rows are repeated over the batch, as ComfyUI does with a conditioning.
        """
        if self.preference.place is None or hidden is None:
            return None
        with torch.no_grad():
            found = self.preference.place(hidden)
        return found.repeat(-(-count // len(found)))[:count]

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        denoised: Tensor,
        unguided: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> Tensor:
        """The corrected x̂₀, in the shape and number type of `denoised` (B, C, h, w).

        x: the noisy latent z + σ ε; sigma: σ (B,); unguided: x̂₀ without the prompt, None at CFG 1; gate: (B,) in [0, 1]
        or None for 1. Raises UserError for latents with another number of channels.
        """
        head = self.preference.head
        if x.shape[1] != head.channels:
            raise UserError(
                f"The latents have {x.shape[1]} channels and the preference was learned on {head.channels}: use a "
                "model of the family it was learned for."
            )
        with torch.no_grad():
            wide = sigma.float().reshape(-1, 1, 1, 1)
            found, left = self.preference.gradient(
                x.float() / (1.0 + wide.square()).sqrt(), sigma.float().expand(len(x))
            )
            size = self.strength * left * reach(x, sigma, denoised, unguided)
            if gate is not None:
                size = size * gate.to(size)
            norm = found.flatten(1).norm(dim=1)
            factor = torch.where(norm > 0, size / norm.clamp_min(1e-30), torch.zeros_like(size))
            return denoised + (factor.reshape(-1, 1, 1, 1) * found).to(denoised.dtype)


def reach(x: Tensor, sigma: Tensor, denoised: Tensor, unguided: Tensor | None) -> Tensor:
    """The size (B,) that bounds a move: ‖x̂₀ − x̂₀(∅)‖, what guidance itself moved, as an L2 norm.

    At CFG 1 the sampler computes no x̂₀(∅). Then it is the share UNGUIDED of ‖x − x̂₀‖ / √(1+σ²) = √(1−ᾱ) ‖ε̂‖, the noise
    that is still in the latent as the UNet reads it. Like guidance's update it falls to zero with the noise.
    """
    if unguided is not None:
        return (denoised - unguided).float().flatten(1).norm(dim=1)
    return UNGUIDED * (x - denoised).float().flatten(1).norm(dim=1) / (1.0 + sigma.float().square()).sqrt()
