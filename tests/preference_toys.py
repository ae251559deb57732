"""Small sets of latents that differ in a known way, and preferences learned from them in a second."""

from __future__ import annotations

import torch
from torch import Tensor

from comfy_scoft.corrector.evaluation import Evaluation
from comfy_scoft.corrector.preference import Preference, PreferenceHead
from comfy_scoft.corrector.prompt_gate import PlaceGate
from comfy_scoft.corrector.training import PreferenceSettings, initial, learn
from comfy_scoft.models.noise_schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.scaled_linear()
QUICK = PreferenceSettings(steps=120, batch_size=32, width=16, seed=3)


def latents(count: int, seed: int, shift: float = 0.0, stripes: float = 0.0, size: int = 8) -> Tensor:
    """Smooth random latents; `shift` moves their first channel, `stripes` adds lines to it that keep its mean."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 4, 2, 2, generator=generator)
    found = 0.5 * torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    found[:, 0] += shift
    found[:, 0] += stripes * (torch.arange(size)[:, None] % 2 * 2.0 - 1.0)
    return found


def learned(shift: float = 0.0, stripes: float = 0.0, count: int = 30) -> tuple[Preference, Evaluation]:
    sets = latents(count, 1, shift, stripes), latents(count, 2, -shift)
    return learn(*sets, SCHEDULE, "mini", QUICK)


def random_preference(
    family: str = "sd1", channels: int = 4, seed: int = 5, place: PlaceGate | None = None
) -> Preference:
    """Unlearned, but not silent."""
    with torch.inference_mode(False):  # as a learned one is, wherever it was learned
        head = initial(PreferenceHead(channels, 16, 2), torch.Generator().manual_seed(seed))
    return Preference(head.requires_grad_(False).eval(), family, 1.5, place, {"made": "by hand"})
