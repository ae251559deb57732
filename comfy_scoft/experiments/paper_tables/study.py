"""What all stages of a run share: the model and its files, the settings, the clock, and names made from content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...common import fingerprints
from ...models.lora import NAME
from ...models.single_file import load_base
from ...models.stable_diffusion import BaseModel
from ...negatives.depth import FOR_PHOTOS
from ..engine.store import Store
from .arms import Arm, Scale, arms_of
from .data import Culture, Generic
from .networks import ROLES, Networks
from .plan import Clock

REVISION = 1
"""Raise it when you change what a stage gives; what another revision made is made again."""


@dataclass
class Study(Store):
    """One run of the protocol.

    side: of all images, in pixels; 0 is the model's own. threshold: of the filter; None takes the one that the
    distances suggest, and none where they suggest none. base: the model, once `open` was called.
    """

    model: Path
    controlnet: Path | None
    cultures: Sequence[Culture]
    generic: Generic | None
    networks: Networks
    scale: Scale
    seed: int
    tables: Sequence[int]
    device: torch.device
    dtype: torch.dtype
    clock: Clock
    say: Callable[[str], None]
    prediction: str | None = None
    depth: str = FOR_PHOTOS
    threshold: float | None = None
    side: int = 0
    base: BaseModel = field(init=False)

    @property
    def arms(self) -> tuple[Arm, ...]:
        return arms_of(self.tables)

    def open(self) -> None:
        """Load the model onto its device, all but the UNet in float32, and take its side where none was given."""
        self.base = load_base(self.model, self.prediction, long_captions=self.scale.train.long_captions)
        self.base.unet.requires_grad_(False).to(self.device, self.dtype)
        self.base.vae.to(self.device)
        self.side = self.side or self.base.resolution
        self.scale = self.scale.at(self.side, self.seed, self.scale.train.precision)

    def bare(self) -> BaseModel:
        """The model without the LoRA of an earlier training or generation."""
        if NAME in getattr(self.base.unet, "peft_config", {}):
            self.base.unet.unload_lora()
            self.base.unet._hf_peft_config_loaded = False  # diffusers 0.34 forgets this, and then finds no config
        return self.base

    def roles(self) -> list[str]:
        """The roles of feature networks that these tables and datasets use."""
        one, two = bool({1, 4} & set(self.tables)), 2 in self.tables
        used = {"training": one, "perceptual": one, "kid": one, "clip": True, "dino": two, "dreamsim": two}
        used["filter"] = any(culture.lacks(self.arms)[1] for culture in self.cultures)
        return [role for role in ROLES if used[role]]

    def facts(self) -> list[Any]:
        """What decides every image beside a stage's own settings: the model's file, number type and prediction."""
        return [REVISION, *fingerprints.of_files([self.model]), str(self.dtype), self.base.schedule.prediction]

    def network(self, role: str) -> list[str]:
        """A role's network by its name and its file's content."""
        name, path = self.networks.named(role)
        return [name, *fingerprints.of_files([path] if path is not None else [])]

    def key(self, *facts: Any) -> str:
        """16 hex digits of facts, and of what decides everything."""
        return fingerprints.short_hash([self.facts(), *facts])
