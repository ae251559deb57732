"""What a loss may ask for. Each part is computed on first use and shared by all losses of the micro-step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..base_model import BaseModel
from ..lora import switched_off

if TYPE_CHECKING:
    from ..features import FeatureNetwork


@runtime_checkable
class Loss(Protocol):
    """A weighted training term: `loss(context)` returns one fp32 value per sample, shape (B,), before the weight."""

    name: ClassVar[str]
    uses_rollout: ClassVar[bool]

    @property
    def weight(self) -> float: ...

    def __call__(self, context: LossContext) -> Tensor: ...


@dataclass
class LossContext:
    """One micro-step of B samples.

    z_t: (B, C, h, w) noised latents; t: (B,) timesteps; target: (B, C, h, w), ε or v as the base model predicts.
    captions, generic: B cultural captions c and B generic captions c_b, drawn anew for this micro-step.
    positive, negatives: features of the training pictures by network; negatives come with their mask (B, N).
    image: (B, 3, H, W) the rollout's x̂, about [-1, 1]; None where this micro-step has no rollout.
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
        texts = {"caption": self.captions, "generic": self.generic, "empty": ("",) * len(self.t)}
        missing = [w for w in wanted if w not in self._predictions]
        if missing:
            self.check()
            with torch.no_grad():
                made = self.base.predict(
                    self.z_t.repeat(len(missing), 1, 1, 1),
                    self.t.repeat(len(missing)),
                    [text for w in missing for text in texts[w]],
                )
            self._predictions.update(zip(missing, made.chunk(len(missing)), strict=True))
        return tuple(self._predictions[w] for w in wanted)

    def reference(self, kind: str) -> Tensor:
        """The memorization target sg ε(z_t, t, c_b): by the `current` network, or by the `base` (LoRA switched off)."""
        if kind == "current":
            return self.frozen("generic")[0]
        if "base" not in self._predictions:
            self.check()
            with torch.no_grad(), switched_off(self.base.unet):
                self._predictions["base"] = self.base.predict(self.z_t, self.t, self.generic)
        return self._predictions["base"]

    def features(self, network: FeatureNetwork) -> Tensor:
        """f(x̂), with the graph back to x̂."""
        assert self.image is not None, "this micro-step has no rollout"
        if network not in self._features:
            self._features[network] = network.extract(self.image)
        return self._features[network]

    def drop_image(self) -> None:
        """Let go of the rollout's image and its graph."""
        self.image = None
        self._features.clear()


def per_sample_mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean square difference over all but the first axis, in fp32, shape (B,)."""
    return (a.float() - b.float()).square().flatten(1).mean(1)
