"""Trains each arm on each culture and generates the images that are measured; both can be resumed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...common.files import write_atomically
from ...data.images import read_pixels, write_png
from ...data.records import Dataset
from ...metrics.inputs import ImageSource
from ...models.lora import attach, load_lora
from ...models.noise_schedule import NoiseSchedule
from ...models.stable_diffusion import LATENT_FACTOR
from ...training.run import Callbacks, Run
from ..engine.store import slug
from ..engine.training import LORA, build_losses, is_trained, train_lora
from . import plan
from .arms import Arm, ImageSpec
from .data import Culture
from .study import Study

if TYPE_CHECKING:
    from diffusers import DPMSolverMultistepScheduler

SAMPLER = "DPMSolverMultistep"
"""diffusers' scheduler that images are sampled with."""


@dataclass(frozen=True)
class Model:
    """What images are generated with. key: hash of all that decides it; lora: None for the base model itself."""

    name: str
    key: str
    lora: Path | None = None


def trained(study: Study, culture: Culture, arm: Arm, dataset: Dataset) -> Model:
    """The arm's LoRA of a culture: the one that is there, the rest of one that was interrupted, or a new one."""
    if not arm.losses:
        return Model(arm.name, study.key("base"))
    if not arm.needs("needs_negatives"):  # so that the same training serves with and without them
        dataset = dataset.replace(replace(record, negatives=()) for record in dataset.records)
    looks = [study.network(role) for role in arm.roles]
    key = study.key(arm.losses, study.scale.training(), dataset.identity(), looks)
    folder = study.out / "trained" / f"{slug(culture.name.casefold())}-{arm.key}-{key}"
    if is_trained(folder):
        study.clock.found(plan.step(arm), study.scale.train.steps)
    else:
        study.say(f"{culture.name}: training {arm.name}")
        _train(study, arm, dataset, folder)
    return Model(arm.name, key, folder / LORA)


def _train(study: Study, arm: Arm, dataset: Dataset, folder: Path) -> None:
    scale = study.scale
    groups = (scale.train, scale.lora, scale.optimizer, scale.rollout)
    losses = build_losses(arm.specs, study.networks.load)
    run = Run(study.bare(), dataset, losses, folder / "run", *groups, resume=True)
    last, first = time.monotonic(), True

    def observe(step: int, row: dict[str, float]) -> None:
        nonlocal last, first
        if first:
            study.clock.found(plan.step(arm), step - 1)
        now = time.monotonic()
        study.clock.did(plan.step(arm), 1, now - last)
        first, last = False, now

    settings = {"losses": [[name, options] for name, options in arm.losses], **scale.training()}
    train_lora(run, folder, settings, Callbacks(on_step=observe, on_message=study.say))


@dataclass(frozen=True)
class ImageFiles:
    """A set of images on disk. key: hash of all that decides them; paths: in the order of their prompts."""

    key: str
    spec: ImageSpec
    paths: tuple[Path, ...]

    def read(self, side: int, name: str) -> ImageSource:
        """For a feature network, read when needed."""

        def at(some: range) -> torch.Tensor:
            return torch.stack([read_pixels(self.paths[i]) for i in some])

        return ImageSource(len(self.paths), (side, side), at, name)


def generate(study: Study, model: Model, spec: ImageSpec) -> ImageFiles:
    """A model's images, one PNG each, from each seed's own noise. Whole batches are not generated again."""
    scale = study.scale
    how = [SAMPLER, scale.sampling_steps, scale.guidance, scale.batch, study.side]
    key = study.key("drawn", model.key, spec.prompts, list(spec.seeds), how)
    folder = study.out / "pictures" / key
    paths = tuple(folder / f"{i:05d}.png" for i in spec.seeds)
    batches = [range(i, min(i + scale.batch, len(paths))) for i in range(0, len(paths), scale.batch)]
    left = [batch for batch in batches if not all(paths[i].is_file() for i in batch)]
    study.clock.found(plan.IMAGE, len(paths) - sum(map(len, left)))
    if left:
        about = {"model": model.name, "set": spec.name, "prompts": spec.prompts, "seeds": list(spec.seeds)}
        write_atomically(folder / "about.json", (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
        base = study.bare()
        if model.lora is not None:
            attach(base.unet, scale.lora, torch.Generator(), load_lora(model.lora))
        for batch in left:
            with study.clock.timed(plan.IMAGE, len(batch)):
                images = _generated(study, [spec.prompts[i] for i in batch], list(batch))
                for i, image in zip(batch, images, strict=True):
                    write_png(image, paths[i])
    return ImageFiles(key, spec, paths)


def _generated(study: Study, prompts: list[str], seeds: list[int]) -> torch.Tensor:
    """(N, H, W, 3) in [0, 1], by the sampler of the authors' inference.py; its UNet calls are of caption and empty
    prompt together."""
    base, scale = study.base, study.scale
    shape = (4, study.side // LATENT_FACTOR, study.side // LATENT_FACTOR)
    z = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    z, sampler = z.to(base.device), dpm_solver(base.schedule)
    sampler.set_timesteps(scale.sampling_steps, device=base.device)
    with torch.no_grad():
        for t in sampler.timesteps:
            now = t.expand(2 * len(prompts))
            caption, empty = base.predict(z.repeat(2, 1, 1, 1), now, [*prompts, *[""] * len(prompts)]).chunk(2)
            z = sampler.step((empty + scale.guidance * (caption - empty)).to(z.dtype), t, z).prev_sample
        images = [base.decode(one.unsqueeze(0)) for one in z]
    return torch.cat(images).add(1.0).div(2.0).clamp(0.0, 1.0).permute(0, 2, 3, 1).float().cpu()


def dpm_solver(schedule: NoiseSchedule) -> DPMSolverMultistepScheduler:
    """diffusers' DPM-Solver++ (2M) as it comes, on the base model's noise schedule. In ComfyUI this is the sampler
    dpmpp_2m with the scheduler sgm_uniform."""
    from diffusers import DPMSolverMultistepScheduler

    table = schedule.alphas_cumprod
    betas = 1.0 - table / torch.cat([torch.ones(1, dtype=table.dtype), table[:-1]])
    return DPMSolverMultistepScheduler(
        num_train_timesteps=len(schedule),
        trained_betas=betas.clamp(max=0.999).numpy(),  # a zero terminal SNR has none that is finite
        prediction_type=schedule.prediction,
    )
