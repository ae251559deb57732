"""An image of one prompt from one seed, drawn while training, so that one sees it move."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..losses.rollout import RolloutSettings, roll_out
from ..models.stable_diffusion import LATENT_FACTOR, BaseModel
from . import memory
from .settings import TrainSettings

STEPS, GUIDANCE = 20, 4.5


def draw(base: BaseModel, settings: TrainSettings, check: Callable[[], None] = lambda: None) -> Tensor | None:
    """The model's image of `preview_prompt` now, (3, side, side) in [0, 1]: DDIM from pure noise, the seed's own.

    None where memory runs out: an image to look at is no reason to stop. check: called before each UNet call.
    """
    side = settings.resolution // LATENT_FACTOR
    z_t = torch.randn((1, 4, side, side), generator=torch.Generator().manual_seed(settings.seed)).to(base.device)
    t = torch.tensor([len(base.schedule) - 1], device=base.device)
    path = RolloutSettings(steps=STEPS, guidance=GUIDANCE)
    try:
        rolled = roll_out(base, z_t, t, [settings.preview_prompt], path, check=check)
        with torch.no_grad():
            return base.decode(rolled.z_0)[0].add(1.0).div(2.0).clamp(0.0, 1.0).float().cpu()
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out(error):
            raise
    memory.free()
    return None
