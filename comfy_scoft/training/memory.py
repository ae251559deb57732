"""What a run does to fit into memory, and how it steps down when it does not."""

from __future__ import annotations

import dataclasses
import gc
from dataclasses import dataclass
from typing import Any

import torch

from ..common.settings import check, setting
from ..models.stable_diffusion import BaseModel
from .settings import Checkpointing, Decode, TrainSettings

OUT_OF_MEMORY = (
    *("out of memory", "out_of_memory", "can't allocate memory", "cannot allocate memory", "not enough memory"),
    *("failed to allocate", "could not allocate", "alloc_failed", "bad_alloc", "cudaerrormemoryallocation"),
    "could not create a memory",
)
"""Parts of the messages of torch's other out-of-memory errors: those of the CPU, MPS and of some libraries."""
NO_PRIMITIVE = "could not create a primitive"
"""All that oneDNN says on the CPU where it finds no room for a kernel; longer sentences of it mean other things."""


@dataclass(frozen=True)
class MemoryOptions:
    """micro_batch: images in one forward and backward pass, 0 is all of the step's. Others as in TrainSettings."""

    micro_batch: int = 0
    checkpointing: Checkpointing = setting(Checkpointing.OFF)
    decode: Decode = setting(Decode.FULL)

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def of(cls, settings: TrainSettings) -> MemoryOptions:
        return cls(settings.micro_batch, settings.checkpointing, settings.decode)

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def with_savings(self, other: MemoryOptions) -> MemoryOptions:
        """Of each option, the one of the two that needs less memory."""
        return MemoryOptions(
            min(self.micro_batch or other.micro_batch, other.micro_batch or self.micro_batch),
            max(self.checkpointing, other.checkpointing, key=list(Checkpointing).index),
            max(self.decode, other.decode, key=list(Decode).index),
        )

    def apply(self, base: BaseModel) -> None:
        """Switch gradient checkpointing on or off in the model's modules."""
        decoder = self.checkpointing.decoder
        for module, wanted in ((base.unet, self.checkpointing.unet), (base.vae, decoder), (base.small_vae, decoder)):
            if module is not None and wanted:
                module.enable_gradient_checkpointing()
            elif getattr(module, "is_gradient_checkpointing", False):
                module.disable_gradient_checkpointing()  # type: ignore[union-attr]  # a module without it is no None


def ladder(
    memory_options: MemoryOptions, settings: TrainSettings, *, rollouts: bool, small_decoder: bool
) -> list[tuple[MemoryOptions, str]]:
    """The ways to save more memory that are left, gentlest first, each with its description for people.

    Each includes those before it. Only the last two change what is learned beyond rounding (and beyond which numbers a
    LoRA's dropout leaves out): they change what the losses on the rollout's image see, and exist only where there are
    such losses (and a TAESD decoder). rollouts: a loss uses the rollout; small_decoder: there is a TAESD decoder.
    """
    steps: list[tuple[MemoryOptions, str]] = []

    def down(text: str, **change: Any) -> None:
        nonlocal memory_options
        memory_options = dataclasses.replace(memory_options, **change)
        steps.append((memory_options, text))

    at_once = memory_options.micro_batch or settings.images
    if at_once > settings.batch_size:
        down("one batch at a time", micro_batch=settings.batch_size)
    if memory_options.checkpointing is Checkpointing.OFF:
        down("gradient checkpointing of the UNet", checkpointing=Checkpointing.UNET)
    if rollouts and memory_options.checkpointing is Checkpointing.UNET:
        down("gradient checkpointing of the decoder too", checkpointing=Checkpointing.UNET_AND_DECODER)
    if (memory_options.micro_batch or settings.images) > 1:
        down("one image at a time", micro_batch=1)
    if rollouts and memory_options.decode is Decode.FULL:
        down("only the center of the rollout's image decoded, which changes what its losses see", decode=Decode.CROP)
    if rollouts and small_decoder and memory_options.decode is not Decode.TAESD:
        down("the rollout's image decoded by TAESD, which changes what its losses see", decode=Decode.TAESD)
    return steps


def is_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).strip().lower()
    return isinstance(error, RuntimeError) and (text == NO_PRIMITIVE or any(part in text for part in OUT_OF_MEMORY))


def free() -> None:
    """Return memory that is cached but not used."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(psutil.virtual_memory().available)
