"""The preference: a small network that classifies noisy latents as of one or the other of two sets, cell by cell.

Its output is a map of log-odds ℓ_i, one for each cell of the latent, from the cell's 3 × 3 neighborhood, and every cell
is trained to classify on its own. A classifier with one output for the image may rely on the easiest cue, such as the
background, and its gradient would change only that; here the cells on a face have to learn what differs in faces.
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
"""Range to which noise levels σ are clamped; a zero-terminal-SNR schedule ends above."""
CELLS = 8
MAX_LEVELS = 4
WAVES = 8


def levels_for(height: int, width: int) -> int:
    """Number of scales for latents of this size: the latent, and halvings that are at least CELLS wide and high."""
    return 1 + min(MAX_LEVELS - 1, max(0, int(math.log2(max(min(height, width), CELLS) / CELLS))))


class PreferenceHead(nn.Module):
    """Noisy latents (B, channels, h, w) of any size and noise levels (B,) -> maps of log-odds, one for each scale.

    z_t is scaled as for the base model's UNet, √ᾱ z + √(1−ᾱ) ε. It is conditioned on the noise level
    σ = √((1−ᾱ)/ᾱ), which does not depend on the schedule's timesteps.
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
        """Log-odds (B, h / 2^level, w / 2^level) of each level; positive where the latent looks preferred."""
        scale_shift = self.time(_waves(sigma)).chunk(self.levels, dim=1)
        hidden, maps = self.enter(z_t), []
        for level in range(self.levels):
            if level and min(hidden.shape[-2:]) > 1:
                hidden = F.avg_pool2d(hidden, 2)
            scale, shift = scale_shift[level][..., None, None].chunk(2, dim=1)
            residual = F.silu(self.look[level](F.silu(hidden * (1.0 + scale) + shift)))
            hidden = hidden + self.join[level](residual)
            maps.append(self.answer[level](F.silu(hidden))[:, 0])
        return maps


def _waves(sigma: Tensor) -> Tensor:
    """Sines and cosines (B, 2 WAVES) of ¼ ln σ (Karras et al. 2022, table 1)."""
    phase = 0.25 * math.pi / 2 * sigma.float().clamp(SMALLEST, LARGEST).log()
    rates = torch.exp(torch.linspace(0.0, math.log(WAVES), WAVES, device=sigma.device))
    angle = phase[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(sigma.dtype)


def sigmas(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Noise levels σ = √((1−ᾱ)/ᾱ), float32, in the shape of the integer timesteps `t`."""
    alpha_bar = schedule.alpha_bar(t).clamp_min(LARGEST**-2)
    return ((1.0 - alpha_bar) / alpha_bar).sqrt().float()


def noised(z: Tensor, schedule: NoiseSchedule, t: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """z_t (B, C, h, w) and noise levels σ (B,) of clean latents at timesteps (B,)."""
    return schedule.add_noise(z, torch.randn(z.shape, generator=generator), t), sigmas(schedule, t)


@dataclass(frozen=True)
class Preference:
    """A preference learned from two sets of images of one model family.

    family: of the base model ("sd1", "sd2", "sdxl", "mini"). temperature: divides the log-odds, so that a cell's
    probability σ(ℓ_i / T) is calibrated. place: the prompt gate, None to correct every prompt. facts: evaluation on
    held-out images and training settings, as plain JSON values.
    """

    head: PreferenceHead
    family: str
    temperature: float = 1.0
    place: PlaceGate | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device) -> Preference:
        """A copy on another device."""
        with torch.inference_mode(False):  # weights created in inference mode have no gradient
            place = None if self.place is None else copy.deepcopy(self.place).to(device)
            return replace(self, head=copy.deepcopy(self.head).to(device), place=place)

    def gradient(self, z_t: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """∇J at z_t (B, C, h, w) and noise levels σ (B,), in z_t's shape, and 1 − e^J (B,), J the log-preference.

        e^J is the geometric mean of the cells' probabilities, so 1 − e^J in [0, 1] is how much is left to correct.
        Works in inference mode, in which ComfyUI runs nodes.
        """
        with torch.inference_mode(False), torch.enable_grad():
            leaf = z_t.detach().clone().requires_grad_(True)
            maps = self.head(leaf, sigma.detach().clone())
            log = log_preference([log_odds / self.temperature for log_odds in maps])
            (gradient,) = torch.autograd.grad(log.sum(), leaf)
        return gradient, 1.0 - log.detach().exp()


def image_log_odds(maps: list[Tensor]) -> Tensor:
    """Log-odds of each image (B,): the mean over cells, then over scales, so that the image size does not matter."""
    return torch.stack([log_odds.flatten(1).mean(1) for log_odds in maps]).mean(0)


def log_preference(maps: list[Tensor], sign: Tensor | float = 1.0) -> Tensor:
    """mean_i log σ(sign · ℓ_i) (B,), over cells and then over scales; `sign` is ±1, or (B,) of them.

    Its gradient vanishes in cells that already look preferred. With the sign of each image's set it is minus the
    training loss.
    """
    sign = torch.as_tensor(sign, dtype=maps[0].dtype, device=maps[0].device).reshape(-1, 1)
    return torch.stack([F.logsigmoid(sign * log_odds.flatten(1)).mean(1) for log_odds in maps]).mean(0)
