from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..common.errors import UserError
from .context import Loss, LossContext, per_sample_mse


@dataclass(frozen=True)
class MemorizationLoss(Loss):
    """L_M (SCoFT, Eq. 2): ``mean‖ε_θ(z_t, t, c) − sg ε_θ(z_t, t, c_b)‖²``, released weight 0.3.

    It ties the cultural caption's prediction to that of a generic caption of the same image, drawn anew each step,
    so that a caption does not become the address of one image.
    reference: `current` takes the target from the network in training (paper and released code); `base` switches the
    LoRA off for it, which makes the target fixed.
    """

    name: ClassVar[str] = "memorization"
    needs_generic: ClassVar[bool] = True
    weight: float = 0.3
    reference: Literal["current", "base"] = "current"

    def __post_init__(self) -> None:
        if self.reference not in ("current", "base"):
            raise UserError(f"Memorization reference is {self.reference!r}, but it must be 'current' or 'base'.")

    @property
    def frozen(self) -> tuple[str, ...]:
        return ("generic",) if self.reference == "current" else ()

    def __call__(self, context: LossContext) -> Tensor:
        return per_sample_mse(context.prediction, context.reference(self.reference))
