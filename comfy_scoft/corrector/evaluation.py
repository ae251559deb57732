"""Evaluation of a preference on held-out images: accuracy by timestep, calibration, and a color-only baseline."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from ..metrics.intervals import wilson_interval
from ..models.noise_schedule import NoiseSchedule
from .preference import Preference, image_log_odds, noised

POINTS = 10
"""Timesteps measured, evenly spaced."""
NOISES = 4
"""Noise samples for each held-out image and timestep."""
CELLS = 64
"""Cells of each image and scale used for calibration."""
BINS = 10
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.02, 50.0
SEED = 11
LEARNED = 0.65
"""Minimum balanced accuracy over the less noisy half of the timesteps; chance is 0.5."""
CLOSE = 0.02
FEW = 10

LatentPair = tuple[Tensor, Tensor]
"""Preferred and stereotyped latents."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics on held-out images.

    accuracy: balanced, in [0, 1], at each of `timesteps`; low, high: its 95 % interval by the number of images; color:
    the accuracy of a linear classifier on the noisy latent's mean color. ece: expected calibration error of the
    cells' probabilities before and after temperature scaling, each half of the images calibrated on the other.
    reliability: (mean probability, share preferred, count) of each bin after it. learned_from, held_out: number of
    preferred and stereotyped images.
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
        """Plain values for the preference file."""
        return {COLOR_KEY if name == "color" else name: value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Any) -> Evaluation | None:
        """The inverse of `as_json`; None for anything else."""
        try:
            values = {"color" if name == COLOR_KEY else name: value for name, value in dict(data).items()}
            found = TypeAdapter(cls).validate_python(values)
        except (TypeError, ValueError):  # pydantic's ValidationError is a ValueError
            return None
        lengths = {len(row) for row in (found.timesteps, found.accuracy, found.low, found.high, found.color)}
        return found if len(lengths) == 1 and lengths != {0} else None

    def warnings(self) -> list[str]:
        """Sentences to read before using the preference; empty if there is nothing to warn of."""
        sentences = []
        low_noise = self.accuracy[: len(self.accuracy) // 2]
        learned = sum(low_noise) / len(low_noise)
        if learned < LEARNED:
            sentences.append(
                f"The preference learned nothing: at low noise it classifies {learned:.0%} of held-out images "
                "correctly (chance: 50%); give more images, or sets that differ."
            )
        elif sum(self.color) / len(self.color) >= sum(self.accuracy) / len(self.accuracy) - CLOSE:
            sentences.append(
                "Mean color alone classifies the sets as well: other differences may not have been learned, and the "
                "correction may change light and color; give sets with the same scenes, such as negatives."
            )
        if sum(self.held_out) < FEW:
            sentences.append(f"Only {sum(self.held_out)} images were held out, so these metrics are rough.")
        return sentences


COLOR_KEY = "colour"
"""The key of `Evaluation.color` in preference files."""


@torch.no_grad()
def measure(
    preference: Preference, learned_from: LatentPair, held_out: LatentPair, schedule: NoiseSchedule
) -> Evaluation:
    """Evaluate an uncalibrated preference (temperature 1) on held-out latents, and fit its temperature."""
    generator = torch.Generator().manual_seed(SEED)
    span = len(schedule) / POINTS
    points = [min(len(schedule) - 1, int(span * (i + 0.5))) for i in range(POINTS)]
    accuracy, color, cells = [], [], []
    for t in points:
        z_t, sigma, sign = _noised(held_out, schedule, t, generator)
        maps = preference.head(z_t, sigma)
        accuracy.append(_balanced_accuracy(image_log_odds(maps), sign))
        cells.append(_some_cells(maps))
        training_z_t, _, training_sign = _noised(learned_from, schedule, t, generator)
        color.append(_balanced_accuracy(_color_log_odds(training_z_t, training_sign, z_t), sign))
    odds, truth = torch.stack(cells), sign.repeat_interleave(cells[0].shape[0] // len(sign))
    count = sum(map(len, held_out))
    _, low, high = zip(*(wilson_interval(round(value * count), count) for value in accuracy), strict=True)
    image = torch.arange(len(truth)) // (len(truth) // count)
    calibrated = odds.clone()
    for half in (image % 2 == 0, image % 2 == 1):
        calibrated[:, half] /= fitted_temperature(odds[:, ~half], truth[~half])
    return Evaluation(
        tuple(points),
        tuple(accuracy),
        low,
        high,
        tuple(color),
        fitted_temperature(odds, truth),
        (calibration_error(odds, truth), calibration_error(calibrated, truth)),
        tuple((mean, share, count) for _, mean, share, count in _binned(calibrated, truth)),
        (len(learned_from[0]), len(learned_from[1])),
        (len(held_out[0]), len(held_out[1])),
    )


def _noised(
    pair: LatentPair, schedule: NoiseSchedule, t: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Every image NOISES times with different noise at t: z_t, σ, and +1 for preferred, −1 for stereotyped."""
    z = torch.cat(pair).repeat_interleave(NOISES, 0)
    sign = torch.cat([torch.ones(len(pair[0])), -torch.ones(len(pair[1]))]).repeat_interleave(NOISES)
    return *noised(z, schedule, torch.full((len(z),), t), generator), sign


def _some_cells(maps: list[Tensor]) -> Tensor:
    """Log-odds (images · cells,) of at most CELLS evenly spaced cells of each image and scale, image by image."""
    flat = [log_odds.flatten(1) for log_odds in maps]
    return torch.cat([cells[:, :: -(-cells.shape[1] // CELLS)] for cells in flat], dim=1).flatten()


def _balanced_accuracy(odds: Tensor, sign: Tensor) -> float:
    """Accuracy with both sets weighted equally."""
    correct = (odds * sign > 0).float()
    return float((correct[sign > 0].mean() + correct[sign < 0].mean()) / 2)


def _color_log_odds(training: Tensor, sign: Tensor, z_t: Tensor) -> Tensor:
    """Log-odds (M,) of z_t by linear discriminant analysis of mean colors (`channels` values) of training latents."""
    one, other = training[sign > 0].mean((2, 3)), training[sign < 0].mean((2, 3))
    centered = torch.cat([one - one.mean(0), other - other.mean(0)])
    covariance = centered.T @ centered / len(centered) + 1e-6 * torch.eye(training.shape[1])
    direction = torch.linalg.solve(covariance, one.mean(0) - other.mean(0))
    return (z_t.mean((2, 3)) - (one.mean(0) + other.mean(0)) / 2) @ direction


def _weights(sign: Tensor) -> Tensor:
    """Weights that sum to 0.5 for each set."""
    return torch.where(sign > 0, 0.5 / (sign > 0).sum(), 0.5 / (sign < 0).sum())


def fitted_temperature(odds: Tensor, sign: Tensor) -> float:
    """The T with the highest likelihood of σ(odds / T) (Guo et al. 2017), both sets weighted equally.

    odds: (timesteps, cells); sign: (cells,) of ±1. T is in MIN_TEMPERATURE … MAX_TEMPERATURE, or 1.0 if one of the sets
    is empty. The likelihood is concave in 1/T, so its maximum is found by bisection of its slope.
    """
    if bool((sign > 0).all()) or bool((sign < 0).all()):
        return 1.0
    weight, signed = _weights(sign), sign * odds
    low, high = math.log(1 / MAX_TEMPERATURE), math.log(1 / MIN_TEMPERATURE)
    for _ in range(24):
        middle = (low + high) / 2
        slope = (signed * (-math.exp(middle) * signed).sigmoid()).mean(0) @ weight
        low, high = (middle, high) if slope > 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def _binned(odds: Tensor, sign: Tensor) -> list[tuple[float, float, float, int]]:
    """(weight, mean probability, share preferred, count) of each non-empty bin."""
    probability = odds.sigmoid().flatten()
    truth = (sign > 0).float().expand_as(odds).flatten()
    weight = (_weights(sign) / len(odds)).expand_as(odds).flatten()
    bins = (probability * BINS).long().clamp_max(BINS - 1)
    rows = []
    for k in range(BINS):
        members = bins == k
        if members.any():
            mass = weight[members].sum()
            mean = (weight[members] * probability[members]).sum() / mass
            share = (weight[members] * truth[members]).sum() / mass
            rows.append((float(mass), float(mean), float(share), int(members.sum())))
    return rows


def calibration_error(odds: Tensor, sign: Tensor) -> float:
    """Expected calibration error in [0, 1] over BINS equal bins of probability, both sets weighted equally."""
    return sum(mass * abs(mean - share) for mass, mean, share, _ in _binned(odds, sign))
