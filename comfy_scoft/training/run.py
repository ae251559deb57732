"""One training run: what is trained, on what, how, and how a caller follows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..data.records import Dataset
from ..losses import Loss
from ..losses.rollout import RolloutSettings
from ..models.lora import LoraSettings
from ..models.stable_diffusion import BaseModel
from . import memory
from .distributed import Distributed
from .latent_cache import Cache
from .settings import OptimizerSettings, TrainSettings


@dataclass
class Run:
    """One training run: what is trained, on what, how, and where its checkpoints live.

    start: a LoRA in kohya's form to go on from. economy: what is done to save memory; None is what the settings say.
    validation: held-out images, measured and never learned.
    cache, held_out: latents and features of the two that are known already; None computes each on first use.
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
    processes: Distributed = field(default_factory=Distributed)
    data: str = ""

    def caches(self) -> tuple[Cache, Cache | None]:
        """The caches of the training images and of the held-out ones, made where they are not there yet."""
        size = (self.settings.resolution, self.settings.buckets)
        self.cache = self.cache or Cache(self.base, self.dataset, *size)
        if self.validation is not None and len(self.validation):
            self.held_out = self.held_out or Cache(self.base, self.validation, *size)
        return self.cache, self.held_out

    def texts(self) -> list[str]:
        """Every text that the run may embed, each once; "" first."""
        prompt = [self.settings.preview_prompt] if self.settings.preview_prompt else []
        held_out = [record.caption for record in self.validation.records] if self.validation is not None else []
        own = [text for loss in self.losses for record in self.dataset.records for text in loss.texts(record)]
        return list(dict.fromkeys([*self.caches()[0].captions(), *own, *held_out, *prompt]))


@dataclass(frozen=True)
class Callbacks:
    """What a caller may follow a run with. check: called before each UNet call; it may raise to stop.

    observe: gets the step's number and its row of figures, after each optimizer step. say: gets a sentence that people
    should read. show: gets the step's number and a preview image (3, H, W) in [0, 1].
    """

    check: Callable[[], None] = lambda: None
    observe: Callable[[int, dict[str, float]], None] = lambda step, row: None
    say: Callable[[str], None] = lambda text: None
    show: Callable[[int, Tensor], None] = lambda step, image: None
