from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..common.settings import setting
from ..features import FeatureNetwork
from .context import Loss, LossContext


@dataclass(frozen=True)
class PerceptualLoss(Loss):
    """L_P (SCoFT, Eq. 3): ``D(f(x̂), f(x))`` between the rollout's image and the training image.

    Released weights: 0.05 where it stands in place of L_C, and 0.01 beside L_C, there with the VGG16 distance.
    """

    name: ClassVar[str] = "perceptual"
    uses_rollout: ClassVar[bool] = True
    features: FeatureNetwork = field()
    weight: float = setting(0.05, "Loss weight. 0: logged, but not trained on.", min=0.0, max=100.0, step=0.01)

    def __call__(self, context: LossContext) -> Tensor:
        return self.features.distance(context.features(self.features), context.positive(self.features)).float()
