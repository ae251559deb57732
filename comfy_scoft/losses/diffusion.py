from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..common.settings import setting
from .context import Calls, Loss, LossContext, per_sample_mse


@dataclass(frozen=True)
class DiffusionLoss(Loss):
    """L_LDM (SCoFT, Eq. 1): ``w_t · mean‖target − ε_θ(z_t, t, c)‖²``, released weight 0.7.

    min_snr_gamma: 0 is w_t = 1; γ > 0 is the min-SNR weight (Hang et al. 2023): min(SNR, γ)/SNR for ε-prediction,
    min(SNR, γ)/(SNR + 1) for v-prediction.
    """

    name: ClassVar[str] = "diffusion"
    weight: float = setting(0.7, "Loss weight. 0: logged, but not trained on.", min=0.0, max=100.0, step=0.05)
    min_snr_gamma: float = setting(
        0.0, "Min-SNR gamma: balances the timesteps. 0: off; 5 is usual.", min=0.0, max=100.0, step=0.5
    )

    @property
    def calls(self) -> Calls:
        return Calls(prediction=True)

    def __call__(self, context: LossContext) -> Tensor:
        loss = per_sample_mse(context.prediction, context.target)
        if self.min_snr_gamma == 0:
            return loss
        snr = context.base.schedule.snr(context.t).to(loss)
        shift = 1.0 if context.base.schedule.prediction == "v_prediction" else 0.0
        # At zero terminal SNR an ε-model's weight is 1 in the limit; the clamp keeps 0/0 out.
        return loss * snr.clamp(max=self.min_snr_gamma).clamp(min=1e-12) / (snr + shift).clamp(min=1e-12)
