"""The LoRA: attach it to a UNet (peft), read and write its tensors, export it in the form that loads everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

NAME = "default"

Targets = Literal["attention", "attention + feed-forward", "attention + feed-forward + convolutions"]

_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_FEED_FORWARD = ["ff.net.0.proj", "ff.net.2"]
_CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "proj_in", "proj_out"]
TARGET_MODULES: dict[str, list[str]] = {
    "attention": _ATTENTION,
    "attention + feed-forward": _ATTENTION + _FEED_FORWARD,
    "attention + feed-forward + convolutions": _ATTENTION + _FEED_FORWARD + _CONVOLUTIONS,
}


@dataclass(frozen=True)
class LoraSettings:
    """rank and alpha (paper: both 64; the LoRA is scaled by alpha / rank), dropout in [0, 1), and the targets.

    targets: `attention` is the paper's (to_q, to_k, to_v, to_out.0 of every UNet attention).
    """

    rank: int = 64
    alpha: float = 64.0
    targets: Targets = "attention"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"The LoRA's rank is {self.rank}, but it must be 1 or more; 64 is the paper's.")
        if self.alpha <= 0:
            raise ValueError(f"The LoRA's alpha is {self.alpha}, but it must be above 0; take the rank's value.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"The LoRA's dropout is {self.dropout}, but it must be at least 0 and below 1.")
        if self.targets not in get_args(Targets):
            raise ValueError(f"LoRA targets {self.targets!r} are not known; choose one of {', '.join(TARGET_MODULES)}.")


class _TrainedDropout(nn.Dropout):
    """Dropout of predictions that carry a graph; frozen predictions, rollout and sampling see the whole LoRA."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.p, training=torch.is_grad_enabled())


def attach(unet: Any, settings: LoraSettings, generator: torch.Generator) -> dict[str, nn.Parameter]:
    """Attach a fresh LoRA to a diffusers UNet and return its parameters by name, float32, the only ones to train.

    A is drawn from N(0, 1/rank²) by `generator`, as diffusers' "gaussian" start does; B is zero, so that the network
    starts as the base model exactly.
    """
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    if NAME in getattr(unet, "peft_config", {}):  # of an earlier run on the same base model
        unet.unload_lora()
    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # peft draws weights of its own, which are replaced below
        unet.add_adapter(
            LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules=TARGET_MODULES[settings.targets],
            ),
            adapter_name=NAME,
        )
    cast_training_params(unet, dtype=torch.float32)
    for module in unet.modules():
        if settings.dropout > 0 and NAME in getattr(module, "lora_dropout", {}):
            module.lora_dropout[NAME] = _TrainedDropout(settings.dropout)
    parameters = trainable(unet)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if "lora_A" in name:
                start = torch.randn(parameter.shape, generator=generator) / settings.rank
                parameter.copy_(start)
            else:
                parameter.zero_()
    return parameters


def trainable(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The LoRA's parameters by their name in the UNet, in a fixed order."""
    return {name: p for name, p in unet.named_parameters() if p.requires_grad}


@contextmanager
def switched_off(unet: Any) -> Iterator[None]:
    """Within it, the UNet is the base model: the adapter is off, no second copy exists."""
    unet.disable_adapters()
    try:
        yield
    finally:
        unet.enable_adapters()


def export_kohya(unet: nn.Module, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The LoRA as `lora_unet_<module path>.lora_down.weight / .lora_up.weight / .alpha`, which ComfyUI, diffusers,
    kohya's tools, A1111 and Forge load.

    alpha is written as peft's own scaling · rank: diffusers' converter writes another. It stays fp32, one number a
    module, so that no alpha is rounded. Convolution weights stay 4-D.
    """
    exported: dict[str, Tensor] = {}
    for path, module in unet.named_modules():
        down, up = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
        if down is None or up is None or NAME not in down:
            continue
        key = "lora_unet_" + path.replace(".", "_")
        weight = down[NAME].weight
        exported[f"{key}.lora_down.weight"] = weight.detach().to("cpu", dtype).clone().contiguous()
        exported[f"{key}.lora_up.weight"] = up[NAME].weight.detach().to("cpu", dtype).clone().contiguous()
        exported[f"{key}.alpha"] = torch.tensor(float(module.scaling[NAME]) * weight.shape[0])
    return exported
