"""The sequence of evaluations of SCoFT's released training script, reimplemented for comparison.

Source: github cmubig/SCoFT, `train.py` at commit 45a181f, whose loop evaluates, at batch 1:

- in each pass: one VAE encode, three text encodings, three UNet calls (caption with a gradient, generic and null
  without), one backward pass;
- in each tenth pass also: two UNet calls without a graph for each of the 19 further sampling steps, a decode inside
  the graph, a VGG16 built from its file, the VGG distance, and the feature distance of the result to the positive and
  to each of its negatives. Each of these six distances puts the result through the network again, plain and in ten
  augmentations that it shares with the other image, and the network's own weights collect gradients.

Base model, LoRA, feature network, number types and optimizer are those of our trainer, so only the sequence differs.
To the script's advantage, images are decoded and captions tokenized before the clock starts (its loader has workers).
DDIM replaces its stochastic sampler, as the paper says; the arithmetic of either is negligible beside a UNet call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from comfy_scoft.data.crop import aligned
from comfy_scoft.losses.rollout import RolloutSettings, coefficients, timesteps
from comfy_scoft.models.lora import LoraSettings, attach
from comfy_scoft.training.settings import OptimizerSettings, TrainSettings

from .vgg import VggDistance, augmented, resized
from .worlds import World

VIEWS = 10
"""Augmented copies of an image, in addition to the plain one."""
WEIGHTS = {"diffusion": 0.7, "memorization": 0.3, "contrastive": 0.05, "vgg": 0.01}


@dataclass(frozen=True)
class Prompts:
    """Hidden states (1, 77, C) of the cultural caption, a generic one, and the null caption."""

    caption: Tensor
    generic: Tensor
    null: Tensor


@dataclass
class ReleasedLoop:
    """The released loop on a world. vgg: builds VGG16's convolutions. rebuild: build them at every rollout."""

    world: World
    vgg: Callable[[], nn.Module]
    rebuild: bool = True
    settings: TrainSettings = field(default_factory=TrainSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    views: int = VIEWS

    def __post_init__(self) -> None:
        world = self.world
        self.base, self.features = world.base(), world.features().to(world.device)
        self.features.module.requires_grad_(True)  # as released: neither frozen nor in the optimizer
        self.generator = torch.Generator().manual_seed(self.settings.seed)
        self.parameters = list(attach(self.base.unet, self.lora, self.generator).values())
        self.adamw = torch.optim.AdamW(self.parameters, weight_decay=self.optimizer.weight_decay)
        self.images = [aligned(r, world.resolution, flip=False) for r in world.dataset.records]
        self.texts = [(world.tokens(r.caption), world.tokens(r.generic_captions[0])) for r in world.dataset.records]
        self.null = world.tokens("")
        self.kept = None if self.rebuild else VggDistance(self.vgg()).to(world.device)
        self.steps = self.passes = 0

    def step(self) -> dict[str, float]:
        """One optimizer step; returns the mean of each term over the passes that have it."""
        values: dict[str, list[float]] = {}
        for _ in range(self.settings.accumulation):
            loss, terms = self.one_pass()
            (loss / self.settings.accumulation).backward()
            for name, value in terms.items():
                values.setdefault(name, []).append(value)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.optimizer.clip)
        for group in self.adamw.param_groups:
            group["lr"] = self.optimizer.rate(self.steps, self.settings.steps)
        self.adamw.step()
        self.adamw.zero_grad()
        self.steps += 1
        return {name: sum(of_passes) / len(of_passes) for name, of_passes in values.items()}

    def one_pass(self) -> tuple[Tensor, dict[str, float]]:
        """The weighted loss of one image, ready for backward, and its terms."""
        device, schedule = self.world.device, self.base.schedule
        which = int(torch.randint(len(self.images), (1,), generator=self.generator))
        pixels, negatives = (part.to(device) for part in self.images[which])
        with self._precision():
            mean, std = self.base.encode(pixels[None])
            z = mean + std * torch.randn(mean.shape, generator=self.generator).to(device)
            noise = torch.randn(z.shape, generator=self.generator).to(device)
            t = torch.randint(len(schedule), (1,), generator=self.generator).to(device)
            z_t, target = schedule.add_noise(z, noise, t), schedule.target(z, noise, t)
            prompts = self.encode_prompts(*self.texts[which], self.null)
            prediction, null, terms = self.denoising(z_t, t, target, prompts)
            if self.passes % self.rollout.every == 0:
                image = self.base.decode(self.sample(z_t, t, prompts, prediction, null))
                terms |= self.on_image(image, pixels[None], negatives)
        self.passes += 1
        total = torch.stack([WEIGHTS[name] * value for name, value in terms.items()]).sum()
        return total, {name: float(value.detach()) for name, value in terms.items()}

    def encode_prompts(self, *tokens: Tensor) -> Prompts:
        """Three calls of the text encoder."""
        return Prompts(*(self.world.encoder(ids)[0] for ids in tokens))

    def denoising(
        self, z_t: Tensor, t: Tensor, target: Tensor, prompts: Prompts
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The caption's prediction with its graph, the null prediction, and the terms L_LDM and L_M: three UNet calls.

        The null prediction is made although nine passes in ten do not use it.
        """
        with torch.no_grad():
            generic = self.predict(z_t, t, prompts.generic)
            null = self.predict(z_t, t, prompts.null)
        prediction = self.predict(z_t, t, prompts.caption)
        terms = {
            "diffusion": F.mse_loss(prediction.float(), target.float()),
            "memorization": F.mse_loss(prediction.float(), generic.float()),
        }
        return prediction, null, terms

    def sample(self, z_t: Tensor, t: Tensor, prompts: Prompts, prediction: Tensor, null: Tensor) -> Tensor:
        """z_0 of the guided rollout; the graph runs from it through every step back to the first prediction."""
        path = timesteps(int(t), self.rollout.steps, "released")
        a, b, _ = coefficients(self.base.schedule, path)
        z = z_t
        for i, now in enumerate(path):
            if i > 0:
                with torch.no_grad():
                    when = torch.tensor([now], device=z.device)
                    prediction, null = self.predict(z, when, prompts.caption), self.predict(z, when, prompts.null)
            z = float(a[i]) * z + float(b[i]) * (null + self.rollout.guidance * (prediction - null))
        return z

    def on_image(self, image: Tensor, positive: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """The terms on the rollout's image."""
        vgg = self.kept or VggDistance(self.vgg()).to(self.world.device)
        terms = {"vgg": vgg(image, positive).mean()}
        near = self.feature_distance(image, positive)
        far = [self.feature_distance(image, negative[None]) for negative in negatives]
        terms["contrastive"] = near - torch.stack(far).mean() if far else near
        return terms

    def feature_distance(self, image: Tensor, other: Tensor) -> Tensor:
        """Mean distance over the plain pair and augmented pairs, each pair under one augmentation."""
        pair, size = torch.cat([image, other]).float(), self.features.size
        views = [resized(pair, size)]
        for _ in range(self.views):
            views.append(augmented(pair, size, int(torch.randint(2**31, (1,), generator=self.generator))))
        a, b = (self.features.extract(torch.cat([view[i : i + 1] for view in views])) for i in (0, 1))
        return self.features.distance(a, b).mean()

    def predict(self, z: Tensor, t: Tensor, hidden: Tensor) -> Tensor:
        """One UNet call for one image."""
        answer = self.base.unet(z.to(self.base.dtype), t, encoder_hidden_states=hidden, return_dict=False)[0]
        return answer.to(z.dtype)

    def _precision(self) -> torch.autocast:
        bf16 = self.world.precision == "bf16"
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False)
