"""What held-out images say of a preference: accuracy by timestep, calibration, and whether color alone does it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..metrics.intervals import wilson_interval
from ..models.noise_schedule import NoiseSchedule
from .preference import Preference, image_log_odds, sigmas

POINTS = 10
"""Timesteps that are measured, evenly spread."""
DRAWS = 4
"""Noises for each held-out image and timestep."""
CELLS = 64
"""Cells of an image and scale that calibration looks at."""
BINS = 10
COLDEST, HOTTEST = 0.02, 50.0
SEED = 11
CHANCE, LEARNED = 0.5, 0.65
"""Balanced accuracy without any knowledge, and the least over the cleaner half of the timesteps that counts as some."""
CLOSE = 0.02
FEW = 10

Pair = tuple[Tensor, Tensor]
"""Preferred and stereotyped latents."""


@dataclass(frozen=True)
class Evidence:
    """Figures on held-out images, of which there are `held_out` (preferred, stereotyped).

    timesteps; accuracy: balanced, 0 … 1, at each; low and high: its 95 % interval by the number of images; color:
    the accuracy of a linear classifier on the noisy latent's mean color alone. ece: expected calibration error of the
    cells' probabilities, before and after the temperature, each half of the images calibrated on the other.
    reliability: (mean probability, share preferred, count) of each bin, after it.
    """

    timesteps: tuple[int, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    color: tuple[float, ...]
    temperature: float
    ece: tuple[float, float]
    reliability: tuple[tuple[float, float, int], ...]
    learned_from: tuple[int, int]
    held_out: tuple[int, int]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def warnings(self) -> list[str]:
        """Sentences that a person should read before using the preference; empty where all is well."""
        found = []
        clean = self.accuracy[: len(self.accuracy) // 2]
        learned = sum(clean) / len(clean)
        if learned < LEARNED:
            found.append(
                f"It has learned nothing: at low noise it is right in {learned:.0%} of held-out images, and guessing "
                "in 50%; give more images, or sets that differ."
            )
        elif sum(self.color) / len(self.color) >= sum(self.accuracy) / len(self.accuracy) - CLOSE:
            found.append(
                "Color alone tells the sets apart as well: what else differs may not have been learned, and the "
                "correction may change light and color; give sets with the same scenes, such as negatives."
            )
        if sum(self.held_out) < FEW:
            found.append(f"Only {sum(self.held_out)} images were held out, so these figures are rough.")
        return found


@torch.no_grad()
def measure(preference: Preference, learned_from: Pair, held_out: Pair, schedule: NoiseSchedule) -> Evidence:
    """Measures an uncalibrated preference (temperature 1) on held-out latents, and finds its temperature."""
    generator = torch.Generator().manual_seed(SEED)
    span = len(schedule) / POINTS
    points = [min(len(schedule) - 1, int(span * (i + 0.5))) for i in range(POINTS)]
    right, color, cells = [], [], []
    for t in points:
        z_t, sigma, wanted = _drawn(held_out, schedule, t, generator)
        maps = preference.head(z_t, sigma)
        right.append(_balanced(image_log_odds(maps), wanted))
        cells.append(_some_cells(maps))
        seen, _, known = _drawn(learned_from, schedule, t, generator)
        color.append(_balanced(_color_alone(seen, known, z_t), wanted))
    answers, truth = torch.stack(cells), wanted.repeat_interleave(cells[0].shape[0] // len(wanted))
    count = sum(map(len, held_out))
    ends = [wilson_interval(round(value * count), count) for value in right]
    image = torch.arange(len(truth)) // (len(truth) // count)
    crossed = answers.clone()
    for half in (image % 2 == 0, image % 2 == 1):
        crossed[:, half] /= fitted_temperature(answers[:, ~half], truth[~half])
    return Evidence(
        tuple(points),
        tuple(right),
        tuple(end.low for end in ends),
        tuple(end.high for end in ends),
        tuple(color),
        fitted_temperature(answers, truth),
        (calibration_error(answers, truth), calibration_error(crossed, truth)),
        _reliability(crossed, truth),
        (len(learned_from[0]), len(learned_from[1])),
        (len(held_out[0]), len(held_out[1])),
    )


def _drawn(pair: Pair, schedule: NoiseSchedule, t: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Every image DRAWS times with fresh noise at t: z_t, σ, and +1 for preferred, −1 for stereotyped."""
    z = torch.cat(pair).repeat_interleave(DRAWS, 0)
    now = torch.full((len(z),), t)
    wanted = torch.cat([torch.ones(len(pair[0])), -torch.ones(len(pair[1]))]).repeat_interleave(DRAWS)
    z_t = schedule.add_noise(z, torch.randn(z.shape, generator=generator), now)
    return z_t, sigmas(schedule, now), wanted


def _some_cells(maps: list[Tensor]) -> Tensor:
    """Log-odds (images · cells,) of at most CELLS cells an image and scale, evenly spread; image after image."""
    flat = [found.flatten(1) for found in maps]
    return torch.cat([found[:, :: -(-found.shape[1] // CELLS)] for found in flat], dim=1).flatten()


def _balanced(odds: Tensor, wanted: Tensor) -> float:
    """Accuracy, both sets weighing the same."""
    right = (odds * wanted > 0).float()
    return float((right[wanted > 0].mean() + right[wanted < 0].mean()) / 2)


def _color_alone(seen: Tensor, known: Tensor, asked: Tensor) -> Tensor:
    """Answers (M,) by linear discriminant analysis of the mean over the image, `channels` numbers each."""
    one, other = seen[known > 0].mean((2, 3)), seen[known < 0].mean((2, 3))
    centerd = torch.cat([one - one.mean(0), other - other.mean(0)])
    spread = centerd.T @ centerd / len(centerd) + 1e-6 * torch.eye(seen.shape[1])
    direction = torch.linalg.solve(spread, one.mean(0) - other.mean(0))
    return (asked.mean((2, 3)) - (one.mean(0) + other.mean(0)) / 2) @ direction


def _weights(wanted: Tensor) -> Tensor:
    """Both sets weigh the same, whatever their sizes."""
    return torch.where(wanted > 0, 0.5 / (wanted > 0).sum(), 0.5 / (wanted < 0).sum())


def fitted_temperature(odds: Tensor, wanted: Tensor) -> float:
    """The T that makes σ(odds / T) likeliest (Guo et al. 2017), both sets weighing the same; COLDEST … HOTTEST.

    odds: (timesteps, answers); wanted: (answers,) of ±1. 1.0 where one of the sets is absent. The likelihood is concave
    in 1/T, so its slope is brought to zero by halving.
    """
    if bool((wanted > 0).all()) or bool((wanted < 0).all()):
        return 1.0
    weight, signed = _weights(wanted), wanted * odds
    low, high = math.log(1 / HOTTEST), math.log(1 / COLDEST)
    for _ in range(24):
        middle = (low + high) / 2
        slope = (signed * (-math.exp(middle) * signed).sigmoid()).mean(0) @ weight
        low, high = (middle, high) if slope > 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def _binned(odds: Tensor, wanted: Tensor) -> list[tuple[float, float, float, int]]:
    """(weight, mean probability, share preferred, count) of each bin that is not empty."""
    probability = odds.sigmoid().flatten()
    truth = (wanted > 0).float().expand_as(odds).flatten()
    weight = (_weights(wanted) / len(odds)).expand_as(odds).flatten()
    which = (probability * BINS).long().clamp_max(BINS - 1)
    found = []
    for k in range(BINS):
        mine = which == k
        if mine.any():
            mass = weight[mine].sum()
            mean = (weight[mine] * probability[mine]).sum() / mass
            share = (weight[mine] * truth[mine]).sum() / mass
            found.append((float(mass), float(mean), float(share), int(mine.sum())))
    return found


def calibration_error(odds: Tensor, wanted: Tensor) -> float:
    """Expected calibration error (0 … 1) over BINS equally wide bins of probability, both sets weighing the same."""
    return sum(mass * abs(mean - share) for mass, mean, share, _ in _binned(odds, wanted))


def _reliability(odds: Tensor, wanted: Tensor) -> tuple[tuple[float, float, int], ...]:
    return tuple((mean, share, count) for _, mean, share, count in _binned(odds, wanted))
