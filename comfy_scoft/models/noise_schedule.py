"""The noise schedule of a Stable Diffusion base model: one float64 table that every other part reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.errors import UserError

PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class NoiseSchedule:
    """The cumulative signal share of each timestep, and what the UNet predicts.

    alphas_cumprod: (T,) float64, ᾱ_t in (0, 1], falling with t. A zero-terminal-SNR model may end at (nearly) 0.
    prediction: "epsilon" (the noise) or "v_prediction" (v = √ᾱ ε − √(1−ᾱ) z; Salimans & Ho 2022, appendix D).
    Raises UserError for another table or prediction type.
    """

    alphas_cumprod: Tensor
    prediction: str = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise UserError(
                f"The prediction type {self.prediction!r} is not known: SCoFT needs a base model that predicts "
                "'epsilon' or 'v_prediction'."
            )
        table = self.alphas_cumprod
        if table.ndim != 1 or len(table) == 0 or not bool(((table >= 0) & (table <= 1)).all()):
            raise UserError(
                f"The noise schedule must be a list of values between 0 and 1, but it has shape {tuple(table.shape)}: "
                "choose another base model."
            )
        object.__setattr__(self, "alphas_cumprod", table.detach().to("cpu", torch.float64))

    @classmethod
    def scaled_linear(
        cls, steps: int = 1000, start: float = 0.00085, end: float = 0.012, prediction: str = "epsilon"
    ) -> NoiseSchedule:
        """The schedule of Stable Diffusion 1.x, 2.x and XL: √β runs linearly from √start to √end."""
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        return cls(torch.cumprod(1.0 - betas, dim=0), prediction)

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def alpha_bar(self, t: Tensor) -> Tensor:
        """ᾱ_t, float64, in the shape and on the device of the integer tensor `t` (values 0 … T−1)."""
        if t.numel() and not 0 <= int(t.min()) <= int(t.max()) < len(self):
            raise UserError(f"A timestep lies outside 0 … {len(self) - 1}: sample t below the schedule's length.")
        return self.alphas_cumprod.to(t.device)[t]

    def add_noise(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t = √ᾱ_t z + √(1−ᾱ_t) ε for `z`, `noise` (B, C, h, w) and `t` (B,)."""
        signal, spread = self._coefficients(z, noise, t)
        return signal * z + spread * noise

    def target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the UNet should answer at z_t: ε, or v = √ᾱ_t ε − √(1−ᾱ_t) z. Shapes as in `add_noise`."""
        signal, spread = self._coefficients(z, noise, t)
        if self.prediction == "epsilon":
            return noise
        return signal * noise - spread * z

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio ᾱ_t / (1−ᾱ_t), float64, in the shape of `t`."""
        alpha_bar = self.alpha_bar(t)
        return alpha_bar / (1.0 - alpha_bar)

    def _coefficients(self, z: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if z.shape != noise.shape or t.shape != z.shape[:1]:
            raise UserError(
                f"Latents {tuple(z.shape)}, noise {tuple(noise.shape)} and timesteps {tuple(t.shape)} do not belong "
                "together: give noise the shape of the latents and one timestep for each sample."
            )
        alpha_bar = self.alpha_bar(t).reshape(-1, *[1] * (z.ndim - 1))
        return alpha_bar.sqrt().to(z), (1.0 - alpha_bar).sqrt().to(z)
