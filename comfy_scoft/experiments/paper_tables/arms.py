"""What is trained, and how much of everything: the paper's arms and settings as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...losses import LOSSES
from ...losses.rollout import RolloutSettings
from ...models.lora import LoraSettings
from ...models.text_encoder import LongCaptions
from ...negatives.generate import NegativeSettings
from ...training.settings import OptimizerSettings, TrainSettings, identity_fields
from ..engine.training import LossSpec, needs

TABLES = (1, 2, 4)


@dataclass(frozen=True)
class Arm:
    """One of the models that are compared. key: for file names; name: as the paper's tables have it.

    losses: names on the menu of losses with their settings; none is the base model itself, untrained.
    """

    key: str
    name: str
    losses: tuple[LossSpec, ...] = ()

    @property
    def specs(self) -> list[LossSpec]:
        """The losses with the role of the network that those on the rollout's image look through."""
        look = {"features": "training"}
        return [(name, {**(look if LOSSES[name].uses_rollout else {}), **options}) for name, options in self.losses]

    @property
    def roles(self) -> list[str]:
        """The roles of the networks that its losses look through."""
        return [options["features"] for _, options in self.specs if "features" in options]

    def needs(self, what: str) -> bool:
        """Whether a loss has the class attribute `what`: uses_rollout, needs_generic or needs_negatives."""
        return needs(self.losses, what)


_LDM = ("diffusion", {"weight": 0.7})
_M = ("memorization", {"weight": 0.3})
_P = ("perceptual", {"weight": 0.05})
_LPIPS = ("perceptual", {"features": "perceptual", "weight": 0.01})
_C = ("contrastive", {"weight": 0.05, "margin": 0.2, "negative_weight": 1.0})
BASE = Arm("base", "Stable Diffusion")
FINETUNE = Arm("finetune", "Finetune", (_LDM,))
M = Arm("m", "SCoFT+M", (_LDM, _M))
MP = Arm("mp", "SCoFT+MP", (_LDM, _M, _P))
MPC = Arm("mpc", "SCoFT+MPC", (_LDM, _M, _LPIPS, _C))
"""The released weights. The paper sums all four losses; beside L_C, L_P is the released script's VGG16 distance at its
weight, as in the authors' example."""

MAIN = (BASE, M, MP, MPC)
"""The rows of Tables 1 and 4."""
MEMORY = (FINETUNE, M)
"""The rows of Table 2: its fine-tuning with L_M is SCoFT+M, the same training."""


def arms_of(tables: Sequence[int]) -> tuple[Arm, ...]:
    """The arms that these tables need, each once, cheap ones first."""
    needed = (MAIN if {1, 4} & set(tables) else ()) + (MEMORY if 2 in tables else ())
    return tuple(arm for arm in (BASE, FINETUNE, M, MP, MPC) if arm in needed)


@dataclass(frozen=True)
class Scale:
    """How much of everything; the defaults are the paper's, or ours where it says nothing (docs/protocol.md).

    captions: generic captions an image, where it has none. sampling_steps, guidance: of the images that are
    measured, those of the authors' inference.py; batch: how many are generated at once. images: of Tables 1 and 4, for
    each culture and model; generic: of the generic set's captions, one each. pairs: text-image pairs of Table 2, and
    its test prompts; repeats: images of each. pages: of the survey. test_share: held out where a dataset has no test
    split. limit: of a culture's images in each split; 0 takes all.
    """

    train: TrainSettings = TrainSettings(resolution=512, long_captions=LongCaptions.FIRST)
    lora: LoraSettings = LoraSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    rollout: RolloutSettings = RolloutSettings()
    negatives: NegativeSettings = NegativeSettings()
    captions: int = 5
    sampling_steps: int = 50
    guidance: float = 4.5
    batch: int = 8
    images: int = 200
    generic: int = 500
    pairs: int = 10
    repeats: int = 20
    pages: int = 10
    test_share: float = 0.2
    limit: int = 0

    def at(self, side: int, seed: int, precision: str) -> Scale:
        """The same at another side in pixels, with another seed and number type."""
        train = replace(self.train, resolution=side, seed=seed, precision=precision)  # type: ignore[arg-type]
        return replace(self, train=train, negatives=replace(self.negatives, resolution=side))

    def training(self) -> dict[str, Any]:
        """What decides a training, as plain JSON."""
        groups = {"train": self.train, "lora": self.lora, "optimizer": self.optimizer, "rollout": self.rollout}
        return {name: identity_fields(group) for name, group in groups.items()}


PAPER = Scale()
SHORT = Scale(
    train=replace(PAPER.train, steps=2, accumulation=2),
    lora=LoraSettings(rank=4, alpha=4.0),
    optimizer=OptimizerSettings(learning_rate=1e-2),
    rollout=RolloutSettings(every=2, steps=3),
    negatives=NegativeSettings(per_image=2, steps=2),
    captions=2,
    sampling_steps=2,
    batch=2,
    images=4,
    generic=2,
    pairs=2,
    repeats=2,
    pages=2,
    limit=3,
)
"""To see that all of it runs: its metrics mean nothing."""
SHORT_SIDE = 64


@dataclass(frozen=True)
class ImageSpec:
    """A set of images of one model. networks: the roles (networks.py) that look at it."""

    name: str
    prompts: tuple[str, ...]
    networks: tuple[str, ...] = ()

    @property
    def seeds(self) -> range:
        """Image i is generated from the noise of seed i, in every model: the paper's common random seed."""
        return range(len(self.prompts))
