from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..common.settings import Choice, setting
from ..features import FeatureNetwork
from .context import Loss, LossContext


class Form(Choice):
    TRIPLET = "triplet"
    DIFFERENCE = "difference"


@dataclass(frozen=True)
class ContrastiveLoss(Loss):
    """L_C (SCoFT, Eq. 4): ``max(D(f(x̂), f(x)) − λ · mean_k D(f(x̂), f(x⁻_k)) + m, 0)``, released weight 0.05.

    It contains a positive term of its own, so that it can stand in place of L_P. The paper sums both; the authors'
    example has L_P beside it with another network. An image without negatives contributes its positive term alone.
    margin m and negative_weight λ: the paper's values are lost in its text; these defaults are our choice (a margin of
    0.2 is the usual one for unit-scale embedding distances), not the authors'.
    form: `triplet` is the equation; `difference` is the released code: ``D⁺ − mean D⁻``, no hinge, no margin, λ = 1.
    """

    name: ClassVar[str] = "contrastive"
    uses_rollout: ClassVar[bool] = True
    needs_negatives: ClassVar[bool] = True
    features: FeatureNetwork = field()
    weight: float = setting(0.05, "Loss weight. 0: logged, but not trained on.", min=0.0, max=100.0, step=0.01)
    margin: float = setting(
        0.2,
        "Triplet margin: how much closer the training image must be than the negatives. Our default; the paper does "
        "not give its value.",
        min=0.0,
        max=2.0,
        step=0.05,
    )
    negative_weight: float = setting(
        1.0,
        "Weight of the negatives in the triplet form. Our default; the paper does not give its value.",
        min=0.0,
        max=10.0,
        step=0.1,
    )
    form: Form = setting(
        Form.TRIPLET,
        "triplet: the paper's equation. difference: the released code, the distance to the training image minus the "
        "mean distance to the negatives, without a margin.",
    )

    def __call__(self, context: LossContext) -> Tensor:
        generated = context.features(self.features)
        near = self.features.distance(generated, context.positive(self.features)).float()
        negatives, mask = context.negatives(self.features)
        if not mask.any():
            return near
        # Padding is left out before the distance, not after it: 0 · NaN would come back through its gradient.
        spread = generated.unsqueeze(1).expand(negatives.shape)
        distances = self.features.distance(spread[mask], negatives[mask]).float()
        far = torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, distances)
        far = far.sum(1) / mask.sum(1).clamp(min=1)
        if self.form is Form.DIFFERENCE:
            loss = near - far
        else:
            loss = (near - self.negative_weight * far + self.margin).clamp(min=0.0)
        return torch.where(mask.any(1), loss, near)
