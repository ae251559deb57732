"""What a loss is, and what it may ask for: each part is computed on first use and shared by all losses of a pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..common.fingerprints import of_weights
from ..common.settings import Choice, check
from ..data.records import CultureRecord
from ..features import FeatureNetwork
from ..models.lora import switched_off
from ..models.stable_diffusion import BaseModel


class Reference(Choice):
    """Which network predicts: the one in training, or the base model (LoRA switched off)."""

    CURRENT = "current"
    BASE = "base"


@dataclass(frozen=True)
class Calls:
    """The UNet calls that a loss asks its context for, over all images that it is computed on.

    The first three are shared: each is made once a pass, however many losses ask for it.
    prediction: whether it uses ε_θ(z_t, t, c) with its graph.
    frozen: names of the predictions without a graph that it uses (`LossContext.frozen`); those of all losses are made
        in one batched call.
    base_generic: whether it uses the base model's prediction for the generic caption (`LossContext.reference`).
    own: calls of `LossContext.predict`; own_base: calls of `LossContext.predict_base`. No other loss shares these.
    """

    prediction: bool = False
    frozen: tuple[str, ...] = ()
    base_generic: bool = False
    own: int = 0
    own_base: int = 0


class Loss:
    """A weighted training term: `loss(context)` returns one fp32 value per sample, shape (B,), before the weight.

    Subclasses are frozen dataclasses. Each declares all that the rest of the pack has to know of it:
    name: of its metric, and of itself in JSON and in LOSSES. weight: its factor in the sum of all terms.
    features: the network that it compares images with; None for a loss that compares none. A subclass with one makes
        it a field: `features: FeatureNetwork = field()`.
    uses_rollout: it is computed on the rollout's image x̂, where one is made. needs_generic, needs_negatives: at least
        one record must have generic captions, or negatives.
    calls: its UNet calls, from which progress, memory and time are planned (training/step_plan.py).
    """

    name: ClassVar[str]
    uses_rollout: ClassVar[bool] = False
    needs_generic: ClassVar[bool] = False
    needs_negatives: ClassVar[bool] = False
    weight: float
    features: FeatureNetwork | None = None

    def __post_init__(self) -> None:
        check(self)

    @property
    def calls(self) -> Calls:
        return Calls()

    def captions(self, record: CultureRecord) -> tuple[str, ...]:
        """The captions, beside a record's own ones and "", that it may ask predictions for."""
        return ()

    def as_json(self, network: Callable[[FeatureNetwork], Any] = lambda network: network.name) -> dict[str, Any]:
        """`name` and all settings as plain JSON, in the order of the fields. network: what stands for the network.

        Settings are numbers, texts, or lists of them.
        """
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        if self.features is not None:
            settings["features"] = network(self.features)
        return {"name": self.name, **settings}

    def identity(self) -> dict[str, Any]:
        """`as_json` with the fingerprint of the network's weights: two losses of one identity compute the same."""
        return self.as_json() | ({} if self.features is None else {"weights": of_weights(self.features.module)})

    def __call__(self, context: LossContext) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not say what it computes")


def from_json(kinds: Mapping[str, type[Loss]], values: Mapping[str, Any], network: Callable[[Any], Any]) -> Loss:
    """The loss that `as_json` wrote as `values`. network: what it wrote in place of the network -> the network.

    Raises KeyError for a name that `kinds` does not have, and TypeError for settings that the loss does not have.
    """
    settings = {k: network(v) if k == "features" else v for k, v in values.items() if k != "name"}
    return kinds[values["name"]](**settings)


def feature_networks(losses: Sequence[Loss]) -> list[FeatureNetwork]:
    """The networks of all losses, each once, in the order of the losses."""
    return list(dict.fromkeys(loss.features for loss in losses if loss.features is not None))


def named(losses: Sequence[Loss]) -> list[tuple[str, Loss]]:
    """Each loss with the name of its metric: its own; where several share that, with its network's too, and with a
    number where they share that as well: "perceptual (LPIPS VGG16)", "diffusion 2"."""
    names = [loss.name for loss in losses]
    full = [
        f"{loss.name} ({loss.features.name})" if names.count(loss.name) > 1 and loss.features is not None else loss.name
        for loss in losses
    ]
    return [
        (f"{name} {full[: i + 1].count(name)}" if full.index(name) < i else name, loss)
        for i, (name, loss) in enumerate(zip(full, losses, strict=True))
    ]


@dataclass
class LossContext:
    """B images of an optimizer step, noised.

    z_t: (B, C, h, w) noised latents; t: (B,) timesteps; target: (B, C, h, w), ε or v as the base model predicts.
    captions, generic: B cultural captions c and B generic captions c_b, sampled anew for each step.
    records, loss_rand: the record of each image, and a number in [0, 1) for each, random, for a loss's own use.
    positive, negatives: features of the training images by network; negatives come with their mask (B, N).
    image: (B, 3, H, W) the rollout's x̂, about [-1, 1]; None for losses that do not use the rollout.
    check_interrupt: called before each UNet call; it may raise to stop.
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
    loss_rand: tuple[float, ...] = ()
    check_interrupt: Callable[[], None] = lambda: None
    image: Tensor | None = None
    _predictions: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _features: dict[FeatureNetwork, Tensor] = field(default_factory=dict, repr=False)

    @property
    def prediction(self) -> Tensor:
        """ε_θ(z_t, t, c), with its graph."""
        if "prediction" not in self._predictions:
            self._predictions["prediction"] = self.predict(self.captions)
        return self._predictions["prediction"]

    def frozen(self, *names: str) -> tuple[Tensor, ...]:
        """Predictions without a graph at (z_t, t); those that are not there yet are made in one batched UNet call.

        `caption` is ε_θ(z_t, t, c), `generic` ε_θ(z_t, t, c_b), `empty` ε_θ(z_t, t, ∅), all by the current network.
        """
        predict_frozen((self, names))
        return tuple(self._predictions[name] for name in names)

    def reference(self, network: Reference) -> Tensor:
        """sg ε(z_t, t, c_b): by the `current` network, or by the `base` model (LoRA switched off)."""
        if network == Reference.CURRENT:
            return self.frozen("generic")[0]
        if "base" not in self._predictions:
            self._predictions["base"] = self.predict_base(self.generic)
        return self._predictions["base"]

    def predict(self, captions: Sequence[str]) -> Tensor:
        """ε_θ(z_t, t, caption), with its graph, for B captions of a loss's own."""
        self.check_interrupt()
        return self.base.predict(self.z_t, self.t, captions)

    def predict_base(self, captions: Sequence[str]) -> Tensor:
        """ε(z_t, t, caption) of the base model (LoRA switched off), without a graph, for B captions."""
        self.check_interrupt()
        with torch.no_grad(), switched_off(self.base.unet):
            return self.base.predict(self.z_t, self.t, captions)

    def features(self, network: FeatureNetwork) -> Tensor:
        """f(x̂), with the graph back to x̂."""
        assert self.image is not None, "a loss with features must declare uses_rollout"
        if network not in self._features:
            self._features[network] = network.extract(self.image)
        return self._features[network]

    def drop_image(self) -> None:
        """Free the rollout's image and its graph."""
        self.image = None
        self._features.clear()


@torch.no_grad()
def predict_frozen(*requests: tuple[LossContext, Sequence[str]]) -> None:
    """Make the named predictions of several contexts (of one base model) in one batched UNet call; each keeps its own.

    Names as in `LossContext.frozen`; predictions that are there already are not made again.
    """
    missing = [(context, name) for context, names in requests for name in names if name not in context._predictions]
    if not missing:
        return
    first = missing[0][0]
    first.check_interrupt()
    predictions = first.base.predict(
        torch.cat([context.z_t for context, _ in missing]),
        torch.cat([context.t for context, _ in missing]),
        [caption for context, name in missing for caption in _captions(context, name)],
    )
    parts = predictions.split([len(context.t) for context, _ in missing])
    for (context, name), part in zip(missing, parts, strict=True):
        context._predictions[name] = part


def _captions(context: LossContext, name: str) -> Sequence[str]:
    return {"caption": context.captions, "generic": context.generic, "empty": ("",) * len(context.t)}[name]


def per_sample_mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean square difference over all but the first axis, in fp32, shape (B,)."""
    return (a.float() - b.float()).square().flatten(1).mean(1)
