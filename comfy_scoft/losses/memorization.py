from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..common.settings import setting
from .context import Calls, Loss, LossContext, Reference, per_sample_mse


@dataclass(frozen=True)
class MemorizationLoss(Loss):
    """L_M (SCoFT, Eq. 2): ``mean‖ε_θ(z_t, t, c) − sg ε_θ(z_t, t, c_b)‖²``, released weight 0.3.

    It ties the cultural caption's prediction to that of a generic caption of the same image, sampled anew each step,
    so that a caption does not come to mean one image.
    reference: `current` takes the target from the network in training (paper and released code); `base` switches the
    LoRA off for it, which makes the target fixed.
    """

    name: ClassVar[str] = "memorization"
    needs_generic: ClassVar[bool] = True
    weight: float = setting(0.3, "Loss weight. 0: logged, but not trained on.", min=0.0, max=100.0, step=0.05)
    reference: Reference = setting(
        Reference.CURRENT,
        "Which network predicts the target from the generic caption. current: the one being trained (paper). base: the "
        "base model without the LoRA, a fixed target.",
    )

    @property
    def calls(self) -> Calls:
        if self.reference is Reference.BASE:
            return Calls(prediction=True, base_generic=True)
        return Calls(prediction=True, frozen=("generic",))

    def __call__(self, context: LossContext) -> Tensor:
        return per_sample_mse(context.prediction, context.reference(self.reference))
