"""How a run is trained: frozen settings that nodes, command line and exported jobs share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..common.errors import UserError
from ..common.settings import MAX_SEED, Choice, check, setting
from ..common.settings import identity_fields as identity_fields  # callers know it from here
from ..models.text_encoder import LongCaptions

if TYPE_CHECKING:
    from ..models.stable_diffusion import BaseModel


class Precision(Choice):
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Schedule(Choice):
    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class Optimizer(Choice):
    ADAMW = "AdamW"
    ADAMW_8BIT = "AdamW8bit"
    PRODIGY = "Prodigy"
    ADAFACTOR = "Adafactor"


class Checkpointing(Choice):
    """Where activations are recomputed in the backward pass; each value saves more memory than the one before."""

    OFF = "off"
    UNET = "UNet"
    UNET_AND_DECODER = "UNet and decoder"

    @property
    def unet(self) -> bool:
        return self is not Checkpointing.OFF

    @property
    def decoder(self) -> bool:
        return self is Checkpointing.UNET_AND_DECODER


class Decode(Choice):
    """What the rollout's image is decoded from; each value saves more memory than the one before."""

    FULL = "full"
    CROP = "crop"
    TAESD = "TAESD"


class Tracker(Choice):
    OFF = "off"
    TENSORBOARD = "TensorBoard"


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer and its learning rate over the run (AdamW: β = 0.9, 0.999). Raises UserError for a bad value.

    The defaults are those of the authors' example, but that the cosine ends at 0 (docs/settings.md).
    """

    learning_rate: float = setting(
        1e-4, "Peak learning rate. Released code: 0.0001. Prodigy: 1.", min=1e-8, max=1.0, step=1e-5
    )
    schedule: Schedule = setting(Schedule.COSINE, "Learning rate schedule over the whole run. Released code: cosine.")
    warmup: int = setting(
        0, "Warmup: optimizer steps in which the learning rate rises from 0.", min=0, max=100_000, step=1
    )
    clip: float = setting(1.0, "Gradient clipping: maximum gradient norm. 0: off.", min=0.0, max=1000.0, step=0.1)
    weight_decay: float = setting(0.01, "Weight decay of the LoRA's weights.", min=0.0, max=1.0, step=0.001)
    optimizer: Optimizer = setting(
        Optimizer.ADAMW,
        "Optimizer. AdamW8bit (needs bitsandbytes) and Adafactor use less memory. Prodigy (needs prodigyopt) finds the "
        "learning rate itself: set learning_rate to 1.",
    )
    ema: float = setting(
        0.0, "EMA decay, for example 0.99. The averaged weights are saved. 0: off.", min=0.0, max=0.99999, step=0.001
    )

    def __post_init__(self) -> None:
        check(self)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of optimizer step `step` (from 0) of a run of `steps`."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, steps - self.warmup)
        if self.schedule is Schedule.COSINE:
            return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
        return self.learning_rate * (1.0 - done if self.schedule is Schedule.LINEAR else 1.0)


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training run. Raises UserError for a bad value.

    3000 steps and a batch of 1 are the paper's; accumulation, resolution, flip and seed those of the authors' example.

    An optimizer step takes `accumulation` batches of `batch_size` images.
    """

    steps: int = setting(3000, "Optimizer steps of the whole run. Paper: 3000.", min=1, max=1_000_000, step=1)
    batch_size: int = setting(1, "Images per forward/backward pass.", min=1, max=64, step=1)
    accumulation: int = setting(4, "Gradient accumulation: batches per optimizer step.", min=1, max=256, step=1)
    resolution: int = setting(
        0,
        "Training resolution in pixels. Images are center-cropped to a square. 0: the model's own (Stable Diffusion "
        "1.5: 512, XL: 1024).",
        min=0,
        max=2048,
        step=8,
    )
    flip: bool = setting(
        True, "Random horizontal flip. Switch it off where left and right matter, as in writing or dress."
    )
    precision: Precision = setting(
        Precision.FP32, "Mixed precision of the UNet. bf16 and fp16 halve its memory; fp32 is the most exact."
    )
    seed: int = setting(1024, "Random seed. On the CPU, the same seed gives the same LoRA.", min=0, max=MAX_SEED)
    checkpoint_every: int = setting(
        250, "Optimizer steps between checkpoints.", min=1, max=1_000_000, step=1, identity=False
    )
    buckets: bool = setting(
        False,
        "Aspect ratio bucketing: keep each image's aspect ratio (in steps of 64 pixels) instead of a square crop.",
    )
    noise_offset: float = setting(
        0.0, "Noise offset: helps with very dark and very bright images. 0: off.", min=0.0, max=1.0, step=0.01
    )
    decode: Decode = setting(
        Decode.FULL,
        "How the rollout's image is decoded for the perceptual and contrastive losses. crop (the center) and TAESD "
        "(needs its files in models/vae_approx) save memory, but change what these losses see.",
    )
    micro_batch: int = setting(
        0,
        "Images per pass, to save memory; the LoRA is the same up to rounding. 0: automatic.",
        min=0,
        max=4096,
        step=1,
        identity=False,
    )
    checkpointing: Checkpointing = setting(
        Checkpointing.OFF, "Gradient checkpointing: less memory, about a third slower.", identity=False
    )
    keep: int = setting(
        2, "Number of checkpoints to keep. Older ones are deleted.", min=1, max=1000, step=1, identity=False
    )
    validate_every: int = setting(
        50, "Optimizer steps between validations. 0: never.", min=0, max=1_000_000, step=1, identity=False
    )
    preview_every: int = setting(
        0, "Optimizer steps between preview images. 0: never.", min=0, max=1_000_000, step=1, identity=False
    )
    preview_prompt: str = setting(
        "",
        "Prompt for preview images. The noise is fixed so you can compare them. Empty: no previews.",
        identity=False,
    )
    tracker: Tracker = setting(
        Tracker.OFF, "Also log to TensorBoard, in the run's folder. Needs tensorboard.", identity=False
    )
    long_captions: LongCaptions = setting(
        LongCaptions.ALL,
        "Captions of more than 75 tokens. all windows: read in full, as CLIP Text Encode does. first window: only the "
        "first 75 tokens, as in the released code.",
        identity=False,  # where there are such captions, their number is part of the identity (resume.py)
    )

    def __post_init__(self) -> None:
        check(self)
        if self.resolution % 8 or 0 < self.resolution < 64:
            raise UserError(
                f"resolution is {self.resolution}, but it must be a multiple of 8 from 64, or 0 for the model's own."
            )

    def of(self, base: BaseModel) -> TrainSettings:
        """These settings at the model's own resolution, unless they name another."""
        return self if self.resolution else replace(self, resolution=base.resolution)

    @property
    def images(self) -> int:
        """Images per optimizer step: the effective batch size, for any number of processes."""
        return self.batch_size * self.accumulation
