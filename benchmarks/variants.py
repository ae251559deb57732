"""The loops that are compared, each ready to be driven block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from comfy_scoft.features import FeatureNetwork, load_features
from comfy_scoft.features.vgg import VGGMaps
from comfy_scoft.losses import ContrastiveLoss, DiffusionLoss, Loss, MemorizationLoss, PerceptualLoss
from comfy_scoft.losses.rollout import RolloutSettings
from comfy_scoft.models.lora import LoraSettings
from comfy_scoft.models.placement import to_device, unet_dtype
from comfy_scoft.models.stable_diffusion import BaseModel
from comfy_scoft.training.latent_cache import Cache
from comfy_scoft.training.run import Callbacks, Run
from comfy_scoft.training.settings import TrainSettings
from comfy_scoft.training.trainer import train

from .measure import Pause
from .released import VIEWS, WEIGHTS, ReleasedLoop
from .vgg import VggDistance, VggFile
from .worlds import World

ENDLESS = 100_000
"""Optimizer steps of a run that the benchmark ends."""

Target = tuple[Any, str, "str | Callable[[], str]"]


@dataclass
class Variant:
    """One of the loops of a comparison.

    body: the loop, which pauses after each block of optimizer steps. prepare: computes what is needed once before it;
    returns seconds by name. targets: the methods whose time belongs to a part (measure.Parts).
    """

    name: str
    unet: nn.Module
    body: Callable[[Pause], Any]
    prepare: Callable[[], dict[str, float]] = dict
    targets: list[Target] = field(default_factory=list)


def released(name: str, world: World, vgg: VggFile, steps: int, *, rebuild: bool) -> Variant:
    """The released loop."""
    loop = ReleasedLoop(world, vgg.build, rebuild, _settings(world))

    def body(pause: Pause) -> None:
        while True:
            loop.step()
            if loop.steps % steps == 0:
                pause()

    targets = [*_targets(loop.base), (world.encoder, "forward", "text encoder"), (loop, "vgg", "building VGG16")]
    return Variant(name, loop.base.unet, body, targets=targets)


def exact(name: str, world: World, folder: Path, steps: int, vgg: VggFile | None = None, **changes: Any) -> Variant:
    """Our trainer at the settings of the released example.

    vgg: train with the released script's terms (its form of L_C, features in ten augmented views, the VGG16 term);
    None for the paper's terms, L_LDM, L_M and L_C. changes: to TrainSettings.
    """
    losses: list[Loss] = [DiffusionLoss(), MemorizationLoss()]
    if vgg is None:
        losses.append(ContrastiveLoss(world.features()))
    else:
        losses.append(ContrastiveLoss(world.features(VIEWS), form="difference"))
        losses.append(PerceptualLoss(load_features("VGG16 (as released)", vgg.path), weight=WEIGHTS["vgg"]))
    return ours(name, world.base(), world, losses, folder, steps, _settings(world, **changes))


def fast(name: str, world: World, folder: Path, steps: int, rollout_steps: int) -> Variant:
    """The paper's terms, a rollout of fewer steps, and the small decoder where the model's own is a large one."""
    base = world.base()
    decode = {}
    if world.taesd is not None:
        base.small_vae, decode = world.taesd(), {"decode": "TAESD"}
    losses = [DiffusionLoss(), MemorizationLoss(), ContrastiveLoss(world.features())]
    settings, rollout = _settings(world, **decode), RolloutSettings(steps=rollout_steps)
    return ours(name, base, world, losses, folder, steps, settings, rollout)


def ours(
    name: str,
    base: BaseModel,
    world: World,
    losses: Sequence[Loss],
    folder: Path,
    steps: int,
    settings: TrainSettings,
    rollout: RolloutSettings | None = None,
    lora: LoraSettings | None = None,
    cache: Cache | None = None,
) -> Variant:
    """`trainer.train` itself. What it would compute on first use is computed, and timed, by `prepare`."""
    options = {"lora": lora or LoraSettings(), "rollout": rollout or RolloutSettings()}
    run = Run(base, world.dataset, losses, folder / name, settings, **options, cache=cache)
    to_device(base.unet, world.device, unet_dtype(settings.precision))

    def body(pause: Pause) -> None:
        train(run, Callbacks(on_step=lambda step, row: pause() if step % steps == 0 else None))

    def prepare() -> dict[str, float]:
        cache, _ = run.caches()
        samples = cache.samples(flip=settings.flip)
        networks = [loss.features for loss in losses if loss.features is not None]
        jobs: dict[str, Callable[[], Any]] = {
            "texts": lambda: [base.embed(text) for text in run.captions()],
            "latents": lambda: [cache.latent(sample) for sample in samples],
            "features": lambda: [cache.features(n.to(world.device), s) for n in networks for s in samples],
        }
        seconds = {}
        for job, work in jobs.items():
            start = time.perf_counter()
            work()
            seconds[job] = time.perf_counter() - start
        return seconds

    return Variant(name, base.unet, body, prepare, _targets(base))


def _settings(world: World, **changes: Any) -> TrainSettings:
    """The released example's settings: gradient accumulation over four passes of one image."""
    return TrainSettings(
        steps=ENDLESS, resolution=world.resolution, precision=world.precision, checkpoint_every=ENDLESS, **changes
    )


def unet_part() -> str:
    """The part to which a UNet call belongs."""
    return "UNet, with gradient" if torch.is_grad_enabled() else "UNet, without gradient"


def _targets(base: BaseModel) -> list[Target]:
    """The parts that every loop has. The backward pass is one part, whatever it runs through."""
    return [
        (base.unet, "forward", unet_part),
        (base, "encode", "VAE encode"),
        (base, "decode", "VAE decode"),
        (FeatureNetwork, "extract", "feature network"),
        (VggDistance, "forward", "VGG16"),
        (VGGMaps, "forward", "VGG16"),
        (torch.Tensor, "backward", "backward"),
        (torch.autograd, "grad", "backward"),
        (torch.optim.AdamW, "step", "optimizer"),
        (torch.nn.utils, "clip_grad_norm_", "optimizer"),
    ]
