"""How a run is trained: plain frozen settings that nodes, command line and exported jobs share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["fp32", "bf16"]
Schedule = Literal["cosine", "linear", "constant"]
Optimizer = Literal["AdamW"]


@dataclass(frozen=True)
class OptimizerSettings:
    """optimizer: AdamW as in the released script, β = (0.9, 0.999), weight decay 0.01.

    schedule: `cosine` and `linear` fall from `learning_rate` to 0 over the run's optimizer steps, after `warmup` steps.
    clip: largest norm of the gradient; 0 is no clipping.
    """

    learning_rate: float = 1e-4
    schedule: Schedule = "cosine"
    warmup: int = 0
    clip: float = 1.0
    weight_decay: float = 0.01
    optimizer: Optimizer = "AdamW"

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"The learning rate is {self.learning_rate}, but it must be above 0; 1e-4 is the paper's.")
        if self.optimizer not in get_args(Optimizer):
            raise ValueError(f"Optimizer {self.optimizer!r} is not known; choose {', '.join(get_args(Optimizer))}.")
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"Schedule {self.schedule!r} is not known; choose one of {', '.join(get_args(Schedule))}.")
        if self.warmup < 0 or self.clip < 0 or self.weight_decay < 0:
            raise ValueError("warmup, clip and weight_decay must not be below 0; set them to 0 to switch them off.")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of optimizer step `step` (from 0) of a run of `steps`."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, steps - self.warmup)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
        return self.learning_rate * (1.0 - done if self.schedule == "linear" else 1.0)


@dataclass(frozen=True)
class TrainSettings:
    """steps: optimizer steps, each of `accumulation` micro-steps of `batch_size` pictures (paper: 3000 of 4 of 1).

    resolution: side of the square centre crop in pixels, a multiple of 8. flip: random horizontal flips.
    precision: number type of the UNet's arithmetic; the LoRA is fp32 always. seed: decides every random number.
    checkpoint_every: optimizer steps between checkpoints; one is also written at the end, on interrupt and on error.
    """

    steps: int = 3000
    batch_size: int = 1
    accumulation: int = 4
    resolution: int = 512
    flip: bool = True
    precision: Precision = "fp32"
    seed: int = 1024
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but it must be 1 or more.")
        if self.seed < 0:
            raise ValueError(f"The seed is {self.seed}, but it must be 0 or more.")
        if self.resolution < 64 or self.resolution % 8:
            raise ValueError(f"The resolution is {self.resolution}, but it must be a multiple of 8, at least 64.")
        if self.precision not in get_args(Precision):
            raise ValueError(f"Precision {self.precision!r} is not known; choose fp32 or bf16.")
