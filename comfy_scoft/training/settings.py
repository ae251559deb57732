"""How a run is trained: plain frozen settings that nodes, command line and exported jobs share."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from ..common.errors import UserError

Precision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["cosine", "linear", "constant"]
Optimizer = Literal["AdamW", "AdamW8bit", "Prodigy", "Adafactor"]
Checkpointing = Literal["off", "UNet", "UNet and decoder"]
Decode = Literal["full", "crop", "TAESD"]
Tracker = Literal["off", "TensorBoard"]


def not_in_identity(default: Any) -> Any:
    """A field that does not decide what is learned (beyond rounding): a run may go on with another value."""
    return field(default=default, metadata={"decides": False})


def identity_fields(settings: Any) -> dict[str, Any]:
    """The fields of a settings dataclass that decide what is learned, as plain JSON."""
    aside = {f.name for f in fields(settings) if not f.metadata.get("decides", True)}
    return {name: value for name, value in asdict(settings).items() if name not in aside}


@dataclass(frozen=True)
class OptimizerSettings:
    """optimizer: AdamW as in the released script, β = (0.9, 0.999), weight decay 0.01; AdamW8bit keeps its state in 8
    bits; Prodigy finds its own learning rate (give 1.0); Adafactor keeps hardly any state.

    schedule: `cosine` and `linear` fall from `learning_rate` to 0 over the run's optimizer steps, after `warmup` steps.
    clip: largest norm of the gradient; 0 is no clipping.
    ema: decay of the moving average of the LoRA, in [0, 1), which is then what is exported; 0 is none.
    """

    learning_rate: float = 1e-4
    schedule: Schedule = "cosine"
    warmup: int = 0
    clip: float = 1.0
    weight_decay: float = 0.01
    optimizer: Optimizer = "AdamW"
    ema: float = 0.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise UserError(f"The learning rate is {self.learning_rate}, but it must be above 0; 1e-4 is the paper's.")
        _known("Optimizer", self.optimizer, Optimizer)
        _known("Schedule", self.schedule, Schedule)
        if self.warmup < 0 or self.clip < 0 or self.weight_decay < 0:
            raise UserError("warmup, clip and weight_decay must not be below 0; set them to 0 to switch them off.")
        if not 0.0 <= self.ema < 1.0:
            raise UserError(f"The ema decay is {self.ema}, but it must be at least 0 (off) and below 1; try 0.99.")

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
    """steps: optimizer steps, each of `accumulation` micro-steps of `batch_size` images (paper: 3000 of 4 of 1).

    resolution: side of the square center crop in pixels, a multiple of 8. flip: random horizontal flips.
    buckets: instead of squares, crops of each image's own aspect, of at most resolution² pixels (data/crop.py).
    precision: number type of the UNet's arithmetic; the LoRA is fp32 always. seed: decides every random number.
    noise_offset: share of noise that is one number a channel, so that overall brightness is learned; 0 is off.
    decode: what the rollout's image is decoded from and with: the `full` latent, its central `crop` of half the side,
        or the full latent by the small autoencoder `TAESD`.

    The rest does not decide what is learned. micro_batch: images in one forward and backward pass; 0 is all of an
    optimizer step's. checkpointing: recompute activations instead of keeping them. checkpoint_every: optimizer steps
    between checkpoints, of which the last `keep` stay; one is also written at the end, on interrupt and on error.
    validate_every, preview_every: optimizer steps between measurements on held-out images and between images of
    `preview_prompt`; 0 is never. tracker: also log to TensorBoard, in the run's folder.
    """

    steps: int = 3000
    batch_size: int = 1
    accumulation: int = 4
    resolution: int = 512
    flip: bool = True
    precision: Precision = "fp32"
    seed: int = 1024
    checkpoint_every: int = not_in_identity(250)
    buckets: bool = False
    noise_offset: float = 0.0
    decode: Decode = "full"
    micro_batch: int = not_in_identity(0)
    checkpointing: Checkpointing = not_in_identity("off")
    keep: int = not_in_identity(2)
    validate_every: int = not_in_identity(50)
    preview_every: int = not_in_identity(0)
    preview_prompt: str = not_in_identity("")
    tracker: Tracker = not_in_identity("off")

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("accumulation", 1), ("checkpoint_every", 1), ("keep", 1)):
            _at_least(name, getattr(self, name), least)
        for name in ("micro_batch", "validate_every", "preview_every", "noise_offset"):
            _at_least(name, getattr(self, name), 0)
        if self.seed < 0:
            raise UserError(f"The seed is {self.seed}, but it must be 0 or more.")
        if self.resolution < 64 or self.resolution % 8:
            raise UserError(f"The resolution is {self.resolution}, but it must be a multiple of 8, at least 64.")
        _known("Precision", self.precision, Precision)
        _known("Checkpointing", self.checkpointing, Checkpointing)
        _known("Decode", self.decode, Decode)
        _known("Tracker", self.tracker, Tracker)

    @property
    def images(self) -> int:
        """Images an optimizer step: the effective batch, whatever the number of processes."""
        return self.batch_size * self.accumulation


def _known(what: str, value: Any, choices: Any) -> None:
    if value not in get_args(choices):
        raise UserError(f"{what} {value!r} is not known; choose one of {', '.join(get_args(choices))}.")


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise UserError(f"{name} is {value}, but it must be {least} or more.")
