"""The preference: a small network on noisy latents that tells two sets of images apart, place by place.

It answers with a map of log-odds ℓ_i, one for each cell of the latent, and each cell sees only its 3 x 3 neighbours.
The training asks every cell for the right answer on its own. A classifier with one answer an image may look at the
easiest cue alone, such as the background, and its gradient then moves nothing else; here the cells on a face have to
find what is different about faces.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.noise_schedule import NoiseSchedule
from .prompt_gate import PlaceGate

SMALLEST, LARGEST = 1e-3, 1e3
"""Noise levels σ that the network distinguishes; a zero-terminal-SNR schedule ends above."""
CELLS = 8
MOST_LEVELS = 4
WAVES = 8


def levels_for(height: int, width: int) -> int:
    """Scales for latents of this size: the latent itself, and halves of it that are at least CELLS wide and high."""
    return 1 + min(MOST_LEVELS - 1, max(0, int(math.log2(max(min(height, width), CELLS) / CELLS))))


class PreferenceHead(nn.Module):
    """Noisy latents (B, channels, h, w) of any size and noise levels (B,) -> maps of log-odds, one for each scale.

    z_t is scaled as the base model's UNet reads it, √ᾱ z + √(1−ᾱ) ε; the noise level is σ = √((1−ᾱ)/ᾱ), so the network
    is tied to no schedule's timesteps.
    """

    def __init__(self, channels: int = 4, width: int = 32, levels: int = 1) -> None:
        super().__init__()
        self.channels, self.width, self.levels = channels, width, levels
        self.time = nn.Sequential(nn.Linear(2 * WAVES, width), nn.SiLU(), nn.Linear(width, 2 * width * levels))
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.look = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) if level else nn.Conv2d(width, width, 1) for level in range(levels)
        )
        self.join = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(levels))
        self.answer = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in range(levels))

    def forward(self, z_t: Tensor, sigma: Tensor) -> list[Tensor]:
        """One map (B, h / 2^level, w / 2^level) of log-odds a level; positive where the latent looks preferred."""
        scale_shift = self.time(_waves(sigma)).chunk(self.levels, dim=1)
        hidden, maps = self.enter(z_t), []
        for level in range(self.levels):
            if level and min(hidden.shape[-2:]) > 1:
                hidden = F.avg_pool2d(hidden, 2)
            scale, shift = scale_shift[level][..., None, None].chunk(2, dim=1)
            seen = F.silu(self.look[level](F.silu(hidden * (1.0 + scale) + shift)))
            hidden = hidden + self.join[level](seen)
            maps.append(self.answer[level](F.silu(hidden))[:, 0])
        return maps


def _waves(sigma: Tensor) -> Tensor:
    """ln σ as sines and cosines (B, 2 WAVES); a quarter of it, as in Karras et al. 2022, table 1."""
    place = 0.25 * math.pi / 2 * sigma.float().clamp(SMALLEST, LARGEST).log()
    rates = torch.exp(torch.linspace(0.0, math.log(WAVES), WAVES, device=sigma.device))
    angle = place[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(sigma.dtype)


def sigmas(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Noise levels σ = √((1−ᾱ)/ᾱ), float32, in the shape of the integer timesteps `t`."""
    alpha_bar = schedule.alpha_bar(t).clamp_min(LARGEST**-2)
    return ((1.0 - alpha_bar) / alpha_bar).sqrt().float()


@dataclass(frozen=True)
class Preference:
    """What was learned from two sets of images of one model family.

    family: of the base model ("sd1", "sd2", "sdxl", "mini"). temperature: divides the log-odds, so that a cell's
    probability σ(ℓ_i / T) means what it says. place: how far a prompt asks for the place, None where it is not asked.
    facts: what was measured on held-out images, and with which settings it was learned; plain JSON values.
    """

    head: PreferenceHead
    family: str
    temperature: float = 1.0
    place: PlaceGate | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device) -> Preference:
        """The same on another device; this one stays where it is."""
        with torch.inference_mode(False):  # weights born in inference mode would refuse the gradient
            place = None if self.place is None else copy.deepcopy(self.place).to(device)
            return replace(self, head=copy.deepcopy(self.head).to(device), place=place)

    def gradient(self, z_t: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """∇J at z_t (B, C, h, w) and noise levels σ (B,), in z_t's shape, and 1 − e^J (B,), J the log-preference.

        e^J is the geometric mean of the cells' probabilities, so 1 − e^J in [0, 1] says how much is left to correct.
        Works inside inference mode, where ComfyUI's nodes run.
        """
        with torch.inference_mode(False), torch.enable_grad():
            leaf = z_t.detach().clone().requires_grad_(True)
            maps = self.head(leaf, sigma.detach().clone())
            log = log_preference([found / self.temperature for found in maps])
            (gradient,) = torch.autograd.grad(log.sum(), leaf)
        return gradient, 1.0 - log.detach().exp()


def image_log_odds(maps: list[Tensor]) -> Tensor:
    """One number an image (B,): the mean over cells, then over scales, so that an image's size does not matter."""
    return torch.stack([found.flatten(1).mean(1) for found in maps]).mean(0)


def log_preference(maps: list[Tensor], wanted: Tensor | float = 1.0) -> Tensor:
    """mean_i log σ(wanted · ℓ_i) (B,), over cells and then over scales; `wanted` is +1 or −1, or (B,) of them.

    Its gradient leaves cells alone that look preferred already. With the set's own sign it is minus the training loss.
    """
    sign = torch.as_tensor(wanted, dtype=maps[0].dtype, device=maps[0].device).reshape(-1, 1)
    return torch.stack([F.logsigmoid(sign * found.flatten(1)).mean(1) for found in maps]).mean(0)
