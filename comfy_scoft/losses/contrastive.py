from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor

from ..common.errors import UserError
from .context import Loss, LossContext

if TYPE_CHECKING:
    from ..features import FeatureNetwork


Form = Literal["triplet", "difference"]
TRIPLET, DIFFERENCE = get_args(Form)


@dataclass(frozen=True)
class ContrastiveLoss(Loss):
    """L_C (SCoFT, Eq. 4): ``max(D(f(x̂), f(x)) − λ · mean_k D(f(x̂), f(x⁻_k)) + m, 0)``, released weight 0.05.

    It contains the positive term, so it stands in place of L_P (+MPC), not beside it. An image without negatives
    contributes its positive term alone.
    margin m and negative_weight λ: the paper's values are lost in its text; these defaults are our choice (a margin of
    0.2 is the usual one for unit-scale embedding distances), not the authors'.
    form: `triplet` is the equation; `difference` is the released code: ``D⁺ − mean D⁻``, no hinge, no margin, λ = 1.
    """

    name: ClassVar[str] = "contrastive"
    uses_rollout: ClassVar[bool] = True
    needs_negatives: ClassVar[bool] = True
    features: FeatureNetwork = field()
    weight: float = 0.05
    margin: float = 0.2
    negative_weight: float = 1.0
    form: Form = TRIPLET

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise UserError(f"Contrastive form is {self.form!r}, but it must be 'triplet' or 'difference'.")

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
        if self.form == DIFFERENCE:
            loss = near - far
        else:
            loss = (near - self.negative_weight * far + self.margin).clamp(min=0.0)
        return torch.where(mask.any(1), loss, near)
