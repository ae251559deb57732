"""What a loss may ask for. Each part is computed on first use and shared by all losses of the micro-step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..common.settings import check
from ..data.records import CultureRecord
from ..models.lora import switched_off
from ..models.stable_diffusion import BaseModel

if TYPE_CHECKING:
    from ..features import FeatureNetwork


class Loss:
    """A weighted training term: `loss(context)` returns one fp32 value per sample, shape (B,), before the weight.

    Subclasses are frozen dataclasses with a `weight` and a `name`, and say here what they need.
    uses_rollout: looks at the rollout's image x̂. needs_generic, needs_negatives: some record must have them.
    own_prediction: makes a prediction with a graph beside that of the caption, which takes its memory too.
    """

    name: ClassVar[str]
    uses_rollout: ClassVar[bool] = False
    needs_generic: ClassVar[bool] = False
    needs_negatives: ClassVar[bool] = False
    own_prediction: ClassVar[bool] = False
    weight: float

    def __post_init__(self) -> None:
        check(self)

    @property
    def network(self) -> FeatureNetwork | None:
        """The feature network it looks through."""
        return getattr(self, "features", None)

    @property
    def frozen(self) -> tuple[str, ...]:
        """The predictions without a graph that it will ask for, so that they can be made in one call."""
        return ()

    def texts(self, record: CultureRecord) -> tuple[str, ...]:
        """The texts beside a record's own captions that it may ask predictions for."""
        return ()

    def __call__(self, context: LossContext) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not say what it computes")


def named(losses: Sequence[Loss]) -> list[tuple[str, Loss]]:
    """Each loss with the name of its figures: its own; where several share that, with its network's besides, and with
    a number where they share that too: "perceptual (LPIPS VGG16)", "diffusion 2"."""
    names = [loss.name for loss in losses]
    full = [
        f"{loss.name} ({loss.network.name})" if names.count(loss.name) > 1 and loss.network is not None else loss.name
        for loss in losses
    ]
    return [
        (f"{name} {full[: i + 1].count(name)}" if full.index(name) < i else name, loss)
        for i, (name, loss) in enumerate(zip(full, losses, strict=True))
    ]


@dataclass
class LossContext:
    """B samples of an optimizer step.

    z_t: (B, C, h, w) noised latents; t: (B,) timesteps; target: (B, C, h, w), ε or v as the base model predicts.
    captions, generic: B cultural captions c and B generic captions c_b, drawn anew for this step.
    records, choices: what each sample is of, and a number in [0, 1) for each, drawn anew for a loss's own use.
    positive, negatives: features of the training images by network; negatives come with their mask (B, N).
    image: (B, 3, H, W) the rollout's x̂, about [-1, 1]; None outside of a rollout's losses.
    check: called before each UNet call; raises to stop.
    """

    base: BaseModel
    z_t: Tensor
    t: Tensor
    target: Tensor
    captions: tuple[str, ...]
    generic: tuple[str, ...]
    positive: Callable[[FeatureNetwork], Tensor]
    negatives: Callable[[FeatureNetwork], tuple[Tensor, Tensor]]
    records: tuple[CultureRecord, ...] = ()
    choices: tuple[float, ...] = ()
    check: Callable[[], None] = lambda: None
    image: Tensor | None = None
    _predictions: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _features: dict[FeatureNetwork, Tensor] = field(default_factory=dict, repr=False)

    @property
    def prediction(self) -> Tensor:
        """ε_θ(z_t, t, c), with its graph."""
        if "prediction" not in self._predictions:
            self.check()
            self._predictions["prediction"] = self.base.predict(self.z_t, self.t, self.captions)
        return self._predictions["prediction"]

    def frozen(self, *wanted: str) -> tuple[Tensor, ...]:
        """Predictions without a graph at (z_t, t), all missing ones in one batched UNet call.

        `caption` is ε_θ(z_t, t, c), `generic` ε_θ(z_t, t, c_b), `empty` ε_θ(z_t, t, ∅), all by the current network.
        """
        predict_frozen((self, wanted))
        return tuple(self._predictions[w] for w in wanted)

    def reference(self, kind: str) -> Tensor:
        """The memorization target sg ε(z_t, t, c_b): by the `current` network, or by the `base` (LoRA switched off)."""
        if kind == "current":
            return self.frozen("generic")[0]
        if "base" not in self._predictions:
            self._predictions["base"] = self.predict_base(self.generic)
        return self._predictions["base"]

    def predict(self, texts: Sequence[str]) -> Tensor:
        """ε_θ(z_t, t, text), with its graph, for B texts of a loss's own."""
        self.check()
        return self.base.predict(self.z_t, self.t, texts)

    def predict_base(self, texts: Sequence[str]) -> Tensor:
        """ε(z_t, t, text) of the base model (LoRA switched off), without a graph, for B texts."""
        self.check()
        with torch.no_grad(), switched_off(self.base.unet):
            return self.base.predict(self.z_t, self.t, texts)

    def features(self, network: FeatureNetwork) -> Tensor:
        """f(x̂), with the graph back to x̂."""
        assert self.image is not None, "this loss does not say that it uses the rollout"
        if network not in self._features:
            self._features[network] = network.extract(self.image)
        return self._features[network]

    def drop_image(self) -> None:
        """Let go of the rollout's image and its graph."""
        self.image = None
        self._features.clear()


@torch.no_grad()
def predict_frozen(*wanted: tuple[LossContext, Sequence[str]]) -> None:
    """Make the named predictions of several contexts (of one base model) in one batched UNet call; each keeps its own.

    Names as in `LossContext.frozen`; those that are there already are not made again.
    """
    missing = [(context, name) for context, names in wanted for name in names if name not in context._predictions]
    if not missing:
        return
    first = missing[0][0]
    first.check()
    made = first.base.predict(
        torch.cat([context.z_t for context, _ in missing]),
        torch.cat([context.t for context, _ in missing]),
        [text for context, name in missing for text in _texts(context, name)],
    )
    parts = made.split([len(context.t) for context, _ in missing])
    for (context, name), part in zip(missing, parts, strict=True):
        context._predictions[name] = part


def _texts(context: LossContext, name: str) -> Sequence[str]:
    return {"caption": context.captions, "generic": context.generic, "empty": ("",) * len(context.t)}[name]


def per_sample_mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean square difference over all but the first axis, in fp32, shape (B,)."""
    return (a.float() - b.float()).square().flatten(1).mean(1)
