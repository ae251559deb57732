"""A preview: an image of one prompt from one seed, generated during training, so that its progress can be compared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..losses.rollout import RolloutSettings, roll_out, timesteps
from ..models.stable_diffusion import LATENT_CHANNELS, LATENT_FACTOR, BaseModel
from . import memory
from .settings import TrainSettings

STEPS, GUIDANCE = 20, 4.5


def is_due(settings: TrainSettings, step: int) -> bool:
    """Whether a preview is generated after so many optimizer steps."""
    return bool(settings.preview_prompt) and settings.preview_every > 0 and step % settings.preview_every == 0


def planned_calls(base: BaseModel) -> int:
    """The UNet calls of one preview: prompt and empty prompt together in one call a step."""
    return len(timesteps(len(base.schedule) - 1, STEPS))


def generate(
    base: BaseModel, settings: TrainSettings, check_interrupt: Callable[[], None] = lambda: None
) -> Tensor | None:
    """The model's image of `preview_prompt` now, (3, side, side) in [0, 1]: DDIM from the noise of the run's seed.

    None where memory runs out: a missing preview is no reason to stop. check_interrupt: called before each UNet call.
    """
    side = settings.resolution // LATENT_FACTOR
    shape = (1, LATENT_CHANNELS, side, side)
    z_t = torch.randn(shape, generator=torch.Generator().manual_seed(settings.seed)).to(base.device)
    t = torch.tensor([len(base.schedule) - 1], device=base.device)
    path = RolloutSettings(steps=STEPS, guidance=GUIDANCE)
    try:
        rolled = roll_out(base, z_t, t, [settings.preview_prompt], path, check_interrupt=check_interrupt)
        with torch.no_grad():
            return base.decode(rolled.z_0)[0].add(1.0).div(2.0).clamp(0.0, 1.0).float().cpu()
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out(error):
            raise
    memory.free()
    return None
