"""Trains each arm on each culture with the pack's own trainer, and draws what is measured; both can be resumed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise

from ...common import fingerprints
from ...common.files import write_atomically
from ...data.images import read_pixels, write_png
from ...data.records import Dataset
from ...losses import LOSSES, Loss
from ...losses.rollout import RolloutSettings, roll_out
from ...metrics.inputs import ImageSource
from ...models.lora import attach, load_lora
from ...models.stable_diffusion import LATENT_FACTOR
from ...training.run import Callbacks, Run
from ...training.trainer import train
from . import plan
from .arms import Arm, Wanted
from .data import Culture
from .study import Study, slug


@dataclass(frozen=True)
class Model:
    """What images are drawn with. key: hash of all that decides it; lora: None for the base model itself."""

    name: str
    key: str
    lora: Path | None = None


def trained(study: Study, culture: Culture, arm: Arm, dataset: Dataset) -> Model:
    """The arm's LoRA of a culture: the one that is there, the rest of one that was interrupted, or a new one."""
    if not arm.losses:
        return Model(arm.name, study.key("base"))
    if not arm.needs("needs_negatives"):  # so that the same training serves with and without them
        dataset = dataset.replace(replace(record, negatives=()) for record in dataset.records)
    looks = study.network("training") if arm.needs("uses_rollout") else []
    key = study.key(arm.losses, study.scale.training(), dataset.identity(), looks)
    folder = study.out / "trained" / f"{slug(culture.name)}-{arm.key}-{key}"
    if (folder / "lora.safetensors").is_file():
        study.clock.found(plan.step(arm), study.scale.train.steps)
    else:
        study.say(f"{culture.name}: training {arm.name}")
        _train(study, arm, dataset, folder)
    return Model(arm.name, key, folder / "lora.safetensors")


def _train(study: Study, arm: Arm, dataset: Dataset, folder: Path) -> None:
    scale = study.scale
    groups = (scale.train, scale.lora, scale.optimizer, scale.rollout)
    losses = [_loss(study, name, options) for name, options in arm.losses]
    run = Run(study.bare(), dataset, losses, folder / "run", *groups, resume=True)
    begun = last = time.monotonic()
    first = True

    def observe(step: int, row: dict[str, float]) -> None:
        nonlocal last, first
        if first:
            study.clock.found(plan.step(arm), step - 1)
        now = time.monotonic()
        study.clock.did(plan.step(arm), 1, now - last)
        first, last = False, now

    result = train(run, Callbacks(on_step=observe, on_message=study.say))
    if result.metrics:
        facts: dict[str, Any] = {"settings": scale.training(), "losses": arm.losses, "last": result.metrics[-1]}
        facts |= {"seconds of this start": round(time.monotonic() - begun, 1), "versions": fingerprints.versions()}
        write_atomically(folder / "facts.json", (json.dumps(facts, indent=1) + "\n").encode())
    write_atomically(folder / "lora.safetensors", serialise(result.lora))
    shutil.rmtree(folder / "run", ignore_errors=True)


def _loss(study: Study, name: str, options: dict) -> Loss:
    kind: Callable[..., Loss] = LOSSES[name]
    if kind.uses_rollout:  # type: ignore[attr-defined]
        return kind(features=study.networks.load("training"), **options)
    return kind(**options)


@dataclass(frozen=True)
class Drawn:
    """A set of images on disk. key: hash of all that decides them; files: in the order of their prompts."""

    key: str
    wanted: Wanted
    files: tuple[Path, ...]

    def pictures(self, side: int, name: str) -> ImageSource:
        """For a feature network, read when needed."""

        def at(some: range) -> torch.Tensor:
            return torch.stack([read_pixels(self.files[i]) for i in some])

        return ImageSource(len(self.files), (side, side), at, name)


def draw(study: Study, model: Model, wanted: Wanted) -> Drawn:
    """A model's images, one PNG each: DDIM from each seed's own noise. Batches that are whole are not drawn again."""
    scale = study.scale
    how = [scale.sampling_steps, scale.guidance, scale.batch, study.side]
    key = study.key("drawn", model.key, wanted.prompts, list(wanted.seeds), how)
    folder = study.out / "pictures" / key
    files = tuple(folder / f"{i:05d}.png" for i in wanted.seeds)
    batches = [range(i, min(i + scale.batch, len(files))) for i in range(0, len(files), scale.batch)]
    left = [batch for batch in batches if not all(files[i].is_file() for i in batch)]
    study.clock.found(plan.PICTURE, len(files) - sum(map(len, left)))
    if left:
        said = {"model": model.name, "set": wanted.name, "prompts": wanted.prompts, "seeds": list(wanted.seeds)}
        write_atomically(folder / "about.json", (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode())
        _put_on(study, model)
        for batch in left:
            with study.clock.timed(plan.PICTURE, len(batch)):
                pictures = _drawn(study, [wanted.prompts[i] for i in batch], list(batch))
                for i, picture in zip(batch, pictures, strict=True):
                    write_png(picture, files[i])
    return Drawn(key, wanted, files)


def _put_on(study: Study, model: Model) -> None:
    """The UNet with the model's LoRA, and nothing else, on it."""
    base = study.bare()
    if model.lora is not None:
        attach(base.unet, study.scale.lora, torch.Generator(), load_lora(model.lora))


def _drawn(study: Study, prompts: list[str], seeds: list[int]) -> torch.Tensor:
    """(N, H, W, 3) in [0, 1]: a rollout from pure noise is DDIM on evenly spaced timesteps."""
    base, scale = study.base, study.scale
    shape = (4, study.side // LATENT_FACTOR, study.side // LATENT_FACTOR)
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    t = torch.full((len(seeds),), len(base.schedule) - 1, device=base.device)
    path = RolloutSettings(steps=scale.sampling_steps, guidance=scale.guidance)
    rolled = roll_out(base, noise.to(base.device), t, prompts, path)
    with torch.no_grad():
        pictures = [base.decode(z.unsqueeze(0)) for z in rolled.z_0]
    return torch.cat(pictures).add(1.0).div(2.0).clamp(0.0, 1.0).permute(0, 2, 3, 1).float().cpu()
