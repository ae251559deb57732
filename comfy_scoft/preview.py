"""A picture of one prompt from one seed, drawn while training, so that one sees it move."""

from __future__ import annotations

import torch
from torch import Tensor

from .base_model import LATENT_FACTOR, BaseModel
from .rollout import RolloutSettings, roll_out

STEPS, GUIDANCE = 20, 4.5


def draw(base: BaseModel, prompt: str, side: int, seed: int = 0) -> Tensor:
    """The model's picture of a prompt now, (3, side, side) in [0, 1]: DDIM from pure noise, the seed's own."""
    z_t = torch.randn(
        (1, 4, side // LATENT_FACTOR, side // LATENT_FACTOR), generator=torch.Generator().manual_seed(seed)
    )
    t = torch.tensor([len(base.schedule) - 1], device=base.device)
    settings = RolloutSettings(steps=STEPS, guidance=GUIDANCE)
    rolled = roll_out(base, z_t.to(base.device), t, [prompt], settings)
    with torch.no_grad():
        return base.decode(rolled.z_0)[0].add(1.0).div(2.0).clamp(0.0, 1.0).float().cpu()
