"""Trains an arm's LoRA, once for every part that needs it, with what all trainings share and the control's loss."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save as serialize
from torch import Tensor

from ...common import fingerprints
from ...common.files import write_atomically
from ...common.fingerprints import short_hash
from ...data.dataset import load_folder
from ...data.records import Dataset
from ...features import load_features
from ...losses import LOSSES, ContrastiveLoss, Loss, LossContext
from ...mini_world import COMMUNITY
from ...models.lora import attach, export_kohya, layers, load_lora
from ...models.mini import layout
from ...models.single_file import load_base
from ...models.stable_diffusion import BaseModel
from ...negatives.controlnet_pipeline import PipelineSampler, load_controlnet, models_identity, size_multiple
from ...negatives.depth import attach_depth, load_depth
from ...negatives.generate import NegativeSettings, make_negatives
from ...training.run import Callbacks, Run
from ..engine.store import Store
from ..engine.training import FACTS, LORA, build_losses, is_trained, needs, train_lora
from .arms import SNAPSHOTS, Arm

REVISION = 1
"""Raise it when you change what a training gives; trainings of another revision are made again."""

CHECKPOINT = layout.WEIGHTS / "checkpoints" / layout.CHECKPOINT
CONTROLNET = layout.WEIGHTS / "controlnet" / layout.CONTROLNET
NEGATIVES = NegativeSettings(per_image=3, steps=12, cfg=4.0, seed=1, resolution=64)
"""The negatives of the demo's workflow."""


@dataclass(frozen=True)
class MatchedPerceptualLoss(ContrastiveLoss):
    """L_P, scaled for each image so that its gradient at the rollout's latent z_0 has the norm that L_C's would have.

    That gradient is all that the trainer takes from a loss on the rollout's image (rollout.py), so the two losses
    then push equally hard at each image and differ in direction alone. The factor is a constant to autograd; where
    C's hinge is closed, it is 0. The settings are those of the contrastive loss that it stands in for.
    """

    name: ClassVar[str] = "perceptual at C's norm"

    def __call__(self, context: LossContext) -> Tensor:
        near = self.features.distance(context.features(self.features), context.positive(self.features)).float()
        contrastive = super().__call__(context)
        assert context.image is not None, "it says that it uses the rollout"
        latent = _leaf(context.image)
        own, other = (
            torch.autograd.grad(loss.sum(), latent, retain_graph=True)[0].flatten(1).norm(dim=1)
            for loss in (near, contrastive)
        )
        return near * (other / own.clamp_min(torch.finfo(own.dtype).tiny)).detach()


def _leaf(image: Tensor) -> Tensor:
    """The only tensor that the graph of `image` begins at: the latent that it was decoded from."""
    seen, nodes, found = set(), [image.grad_fn], []
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        nodes += [following for following, _ in node.next_functions]
    assert len(found) == 1, "everything but the latent is frozen"
    return found[0]


MENU: Mapping[str, type[Loss]] = {**LOSSES, "matched": MatchedPerceptualLoss}


@dataclass
class World(Store):
    """What all trainings share: the mini model, the community's images and their negatives, each made once.

    limit: take only the first so many of the community's images; 0 takes all.
    """

    limit: int = 0
    network = staticmethod(cache(load_features))
    """The feature network of a name, loaded once."""

    @cached_property
    def base(self) -> BaseModel:
        """The mini model. It is never trained itself: `fresh` gives copies."""
        return load_base(CHECKPOINT)

    @cached_property
    def dataset(self) -> Dataset:
        """The community's training images."""
        return load_folder(COMMUNITY, split="train", limit=self.limit)[0]

    @cached_property
    def with_negatives(self) -> Dataset:
        """The same with depth maps and negatives, generated on first use by the shipped ControlNet."""
        folder = self.out / "negatives"
        with self.lock("negatives"):
            base = self.fresh()
            deep = attach_depth(self.dataset, load_depth("relief (mini)"), folder / "depth")
            sampler = PipelineSampler(base, load_controlnet(CONTROLNET, base), NEGATIVES)
            known = models_identity(CHECKPOINT, CONTROLNET, sampler)
            return make_negatives(deep, NEGATIVES, sampler, folder, known, size_multiple(base))

    @cached_property
    def facts(self) -> list[str]:
        """What decides every training beside its settings: model, ControlNet, feature network and images."""
        images = [path for record in self.dataset.records for path in record.files()]
        tower = layout.WEIGHTS / "clip" / layout.TOWER
        return fingerprints.of_files([CHECKPOINT, CONTROLNET, tower, COMMUNITY / "train" / "metadata.jsonl", *images])

    def fresh(self) -> BaseModel:
        """A copy of the base model with a UNet of its own."""
        return replace(self.base, unet=copy.deepcopy(self.base.unet))


@dataclass(frozen=True)
class Trained:
    """A finished training. key: hash of all that decides it; facts: its seconds and last metrics, as plain JSON."""

    key: str
    folder: Path
    facts: dict[str, Any]

    def lora(self, step: int = 0) -> dict[str, Tensor]:
        """The LoRA in kohya's form at the end, or as it was after `step` steps."""
        return load_lora(self.folder / (f"step-{step}.safetensors" if step else LORA))


def key_of(arm: Arm, seed: int, world: World) -> str:
    """16 hex digits of all that decides an arm's training with a seed; "base" of an arm without losses."""
    if not arm.losses:
        return "base"
    facts = {"revision": REVISION, "settings": arm.described(seed), "files": world.facts}
    if needs(arm.losses, "needs_negatives", MENU):
        facts["negatives"] = vars(NEGATIVES)
    return short_hash(facts)


def trained(arm: Arm, seed: int, world: World) -> Trained:
    """The arm's training with a seed: the one that is there, or a new one. Killed in between, it starts anew."""
    key = key_of(arm, seed, world)
    folder = world.out / "trained" / key
    with world.lock(key):
        if not is_trained(folder):
            shutil.rmtree(folder, ignore_errors=True)
            _train(arm, seed, world, folder)
    return Trained(key, folder, json.loads((folder / FACTS).read_bytes()))


def _train(arm: Arm, seed: int, world: World, folder: Path) -> None:
    settings = replace(arm.train, seed=seed, checkpoint_every=arm.train.steps)
    every = max(1, settings.steps // SNAPSHOTS)
    dataset = world.with_negatives if needs(arm.losses, "needs_negatives", MENU) else world.dataset
    losses = build_losses(arm.losses, world.network, MENU)
    run = Run(world.fresh(), dataset, losses, folder / "run", settings, arm.lora, arm.optimizer, arm.rollout)

    def keep(step: int, row: dict[str, float]) -> None:
        if step % every == 0:
            write_atomically(folder / f"step-{step}.safetensors", serialize(export_kohya(run.base.unet)))

    train_lora(run, folder, arm.described(seed), Callbacks(on_step=keep))


def with_lora(world: World, arm: Arm, lora: Mapping[str, Tensor]) -> BaseModel:
    """The mini model with a LoRA, at the arm's strength, in its weights, where it samples faster than beside them."""
    base = world.fresh()
    attach(base.unet, arm.lora, torch.Generator(), lora)
    for module in layers(base.unet).values():
        module.scale_layer(arm.lora_strength)
        module.merge()
    return base
