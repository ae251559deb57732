"""The control of the benchmark: a perceptual loss whose gradient is as large as the contrastive one's would be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...losses import ContrastiveLoss, LossContext


@dataclass(frozen=True)
class MatchedPerceptualLoss(ContrastiveLoss):
    """L_P, scaled for each image so that its gradient at the rollout's latent z_0 has the norm that L_C's would have.

    That gradient is all that the trainer takes from a loss on the rollout's image (rollout.py), so the two losses
    then push equally hard at each image and differ in direction alone. The factor is a constant to autograd; where
    C's hinge is closed, it is 0. The settings are those of the contrastive loss that it stands in for.
    """

    name: ClassVar[str] = "perceptual at C's norm"

    def __call__(self, context: LossContext) -> Tensor:
        near = self.features.distance(context.features(self.features), context.positive(self.features)).float()
        contrastive = super().__call__(context)
        assert context.image is not None, "it says that it uses the rollout"
        latent = _leaf(context.image)
        own, other = (
            torch.autograd.grad(loss.sum(), latent, retain_graph=True)[0].flatten(1).norm(dim=1)
            for loss in (near, contrastive)
        )
        return near * (other / own.clamp_min(torch.finfo(own.dtype).tiny)).detach()


def _leaf(image: Tensor) -> Tensor:
    """The only tensor that the graph of `image` begins at: the latent that it was decoded from."""
    seen, nodes, found = set(), [image.grad_fn], []
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        nodes += [following for following, _ in node.next_functions]
    assert len(found) == 1, "everything but the latent is frozen"
    return found[0]
