"""One training run: what is trained, on what, how, and how a caller follows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..common.errors import UserError
from ..data.records import Dataset
from ..losses import Loss
from ..losses.rollout import RolloutSettings
from ..models.lora import LoraSettings
from ..models.stable_diffusion import BaseModel
from ..models.text_encoder import WINDOW, LongCaptions, is_long
from . import memory
from .distributed import Distributed
from .latent_cache import Cache
from .settings import Decode, OptimizerSettings, TrainSettings


@dataclass
class Run:
    """One training run: what is trained, on what, how, and where its checkpoints live.

    start: a LoRA in kohya's form to start from. memory_options: how memory is saved; None is what the settings say.
    validation: held-out images, measured and never trained on.
    cache, held_out: latents and features of the two that are known already; None computes each on first use.
    distributed: this process's place among those that train the run together.
    data: identity of the data where the dataset's own files are not at hand (a job's tensors).
    """

    base: BaseModel
    dataset: Dataset
    losses: Sequence[Loss]
    folder: Path
    settings: TrainSettings = field(default_factory=TrainSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    resume: bool = False
    cache: Cache | None = None
    validation: Dataset | None = None
    held_out: Cache | None = None
    start: Mapping[str, Tensor] | None = None
    memory_options: memory.MemoryOptions | None = None
    distributed: Distributed = field(default_factory=Distributed)
    data: str = ""

    def __post_init__(self) -> None:
        self.settings = self.settings.of(self.base)

    @property
    def size_note(self) -> str:
        """What to know of the resolution: a sentence if it is not the model's own, else ""."""
        size, own = self.settings.resolution, self.base.resolution
        return "" if size == own else f"Trains at {size} pixels; the model's own resolution (0) is {own}."

    def caches(self) -> tuple[Cache, Cache | None]:
        """The caches of the training images and of the held-out ones, made where they are not there yet."""
        size = (self.settings.resolution, self.settings.buckets)
        self.cache = self.cache or Cache(self.base, self.dataset, *size)
        if self.validation is not None and len(self.validation):
            self.held_out = self.held_out or Cache(self.base, self.validation, *size)
        return self.cache, self.held_out

    def captions(self) -> list[str]:
        """Every caption that the run may embed, each once; "" first."""
        prompt = [self.settings.preview_prompt] if self.settings.preview_prompt else []
        held_out = [record.caption for record in self.validation.records] if self.validation is not None else []
        own = [caption for loss in self.losses for record in self.dataset.records for caption in loss.captions(record)]
        return list(dict.fromkeys([*self.caches()[0].captions(), *own, *held_out, *prompt]))

    def read_in_full(self) -> int:
        """How many captions of the training images have more than WINDOW tokens, all of which are read."""
        return self._long() if self.settings.long_captions is LongCaptions.ALL else 0

    def long_captions(self) -> str:
        """A sentence on the captions of more than WINDOW tokens; "" where there are none."""
        how = "read in full" if self.read_in_full() else f"cut to {WINDOW}"
        return f"Captions of more than {WINDOW} tokens: {count}, {how}." if (count := self._long()) else ""

    def _long(self) -> int:
        return sum(map(is_long, self.caches()[0].captions()))

    def check(self) -> None:
        """Raise UserError, one sentence, for data and losses that do not fit. Cheap: call it before encoding images."""
        if len(self.dataset) == 0:
            raise UserError("The dataset has no records, so there is nothing to train on; load one with at least one.")
        if not self.losses:
            raise UserError("No loss is connected, so there is nothing to learn; connect at least the Diffusion Loss.")
        for loss in self.losses:
            if loss.needs_generic and not any(record.generic_captions for record in self.dataset.records):
                raise UserError(
                    f"The {loss.name} loss compares each caption with generic captions, but no record has one; add "
                    "them to the dataset (blip_text), or bypass this loss."
                )
            if loss.needs_negatives and not any(record.negatives for record in self.dataset.records):
                raise UserError(
                    f"The {loss.name} loss pushes away from negatives, but no record has one; connect Make Negatives, "
                    "or use the Perceptual Loss in its place."
                )
        if self.distributed.count > self.settings.images:
            raise UserError(
                f"{self.distributed.count} processes share the {self.settings.images} images of an optimizer step, so "
                "some would have nothing to do; raise accumulation or batch_size, or start fewer processes."
            )
        if self.settings.decode is Decode.TAESD and self.base.small_vae is None:
            raise UserError(
                "decode is TAESD, but there is no TAESD decoder of this model: put its file into models/vae_approx, or "
                "decode full."
            )


@dataclass(frozen=True)
class Callbacks:
    """How a caller follows a run, and stops it.

    check_interrupt: called before each UNet call; it may raise to stop the run, which then keeps what was learned.
    on_step(step, row): after each optimizer step, with the number of finished steps and the row of its metrics; and
        after each validation, with its metrics.
    on_message(text): a sentence for people. on_preview(step, image): a preview image (3, H, W) in [0, 1].
    on_plan(calls): the UNet calls (`BaseModel.calls`) that will have been made at the end of the run; called before
        the first, and again where memory ran out and the rest is done in more calls. None: nothing is planned.
    """

    check_interrupt: Callable[[], None] = lambda: None
    on_step: Callable[[int, dict[str, float]], None] = lambda step, row: None
    on_message: Callable[[str], None] = lambda text: None
    on_preview: Callable[[int, Tensor], None] = lambda step, image: None
    on_plan: Callable[[int], None] | None = None
