"""The LoRA: attach it to a UNet (peft), go on from another, read its tensors, export it in the form that loads
everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.files import regular
from ..common.logs import errors_only
from ..common.settings import Choice, check, setting

NAME = "default"
PREFIX = "lora_unet_"


class Targets(Choice):
    """The layers of the UNet that get a LoRA. Released code: attention (to_q, to_k, to_v, to_out.0 of every attention).

    `cross-attention K + V` is what Custom Diffusion trains (Kumari et al., arXiv 2212.04488): only how the prompt is
    read changes.
    """

    ATTENTION = "attention"
    FEED_FORWARD = "attention + feed-forward"
    CONVOLUTIONS = "attention + feed-forward + convolutions"
    CROSS_KV = "cross-attention K + V"


_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_FEED_FORWARD = ["ff.net.0.proj", "ff.net.2"]
_CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "proj_in", "proj_out"]
TARGET_MODULES: dict[str, list[str]] = {
    Targets.ATTENTION: _ATTENTION,
    Targets.FEED_FORWARD: _ATTENTION + _FEED_FORWARD,
    Targets.CONVOLUTIONS: _ATTENTION + _FEED_FORWARD + _CONVOLUTIONS,
    Targets.CROSS_KV: ["attn2.to_k", "attn2.to_v"],
}


@dataclass(frozen=True)
class LoraSettings:
    """Size and place of the LoRA (paper: rank 64; released code: alpha equal to it). Raises UserError for a bad value.

    dora: also train the magnitude of each output channel, apart from its direction (DoRA, arXiv 2402.09353).
    start_from: file name of the LoRA that training continues from; `attach` gets its tensors. "": none.
    """

    rank: int = setting(
        64, "LoRA rank (network dimension). Paper: 64; 4 to 32 make smaller files.", min=1, max=1024, step=1
    )
    alpha: float = setting(
        64.0,
        "LoRA alpha: the LoRA is scaled by alpha / rank. Released code: equal to the rank.",
        min=0.01,
        max=4096.0,
        step=1.0,
    )
    targets: Targets = setting(
        Targets.ATTENTION,
        "The UNet layers that get a LoRA. Released code: attention. cross-attention K + V changes only how the prompt "
        "is read.",
    )
    dropout: float = setting(0.0, "LoRA dropout. 0: off.", min=0.0, max=0.95, step=0.05)
    dora: bool = setting(
        False,
        "DoRA: also train each channel's magnitude. Closer to full fine-tuning, but slower, needs more memory, and "
        "fewer programs read the file.",
    )
    start_from: str = setting("", "Continue training from this LoRA. It must fit the base model and these options.")

    def __post_init__(self) -> None:
        check(self)


class _TrainedDropout(nn.Dropout):
    """Dropout of predictions that carry a graph; frozen predictions, rollout and sampling see the whole LoRA."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.p, training=torch.is_grad_enabled())


def _in_training_mode_with_a_graph(module: nn.Module, _: Any) -> None:
    """peft asks a DoRA layer's own mode, not the dropout's, whether its inputs are dropped."""
    module.training = torch.is_grad_enabled()


def attach(
    unet: Any, settings: LoraSettings, generator: torch.Generator, start: Mapping[str, Tensor] | None = None
) -> dict[str, nn.Parameter]:
    """Attach a LoRA to a diffusers UNet and return its parameters by name, float32, the only ones to train.

    A is sampled from N(0, 1/rank²) by `generator`, as diffusers' "gaussian" start does; B is zero, and a DoRA's
    magnitudes are the norms of the base weights, so that the network starts as the base model exactly.

    start: a LoRA to go on from, in kohya's form as `export_kohya` writes it (lora_start.py has the rules); the
    network then starts as the base model with that LoRA on it.
    Raises UserError, one sentence, where `start` does not fit the UNet and the settings.
    """
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    if NAME in getattr(unet, "peft_config", {}):  # of an earlier run on the same base model
        unet.unload_lora()
        unet._hf_peft_config_loaded = False  # diffusers 0.34 forgets this, and then finds no config
    unet.requires_grad_(False)
    # peft draws weights of its own, which are replaced below, and imports bitsandbytes, which misses kernels on CPUs
    with torch.random.fork_rng(devices=[]), errors_only("bitsandbytes"):
        unet.add_adapter(
            LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules=TARGET_MODULES[settings.targets],
                use_dora=settings.dora,
            ),
            adapter_name=NAME,
        )
    cast_training_params(unet, dtype=torch.float32)
    if settings.dropout > 0:
        for module in layers(unet).values():
            module.lora_dropout[NAME] = _TrainedDropout(settings.dropout)
            if settings.dora:
                module.register_forward_pre_hook(_in_training_mode_with_a_graph)
    with torch.no_grad():
        for module in layers(unet).values():
            down, up = module.lora_A[NAME].weight, module.lora_B[NAME].weight
            down.copy_(torch.randn(down.shape, generator=generator) / settings.rank)
            up.zero_()
        scales = {} if start is None else _load(unet, settings, start)
        if settings.dora:
            _set_magnitudes(unet, scales)
    return trainable(unet)


def trainable(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The LoRA's parameters by their name in the UNet, in a fixed order."""
    return {name: p for name, p in unet.named_parameters() if p.requires_grad}


def layers(unet: nn.Module) -> dict[str, Any]:
    """The layers that carry the LoRA (peft's wrappers), by their kohya key: `lora_unet_<module path with _>`."""
    found = ((path, module) for path, module in unet.named_modules() if NAME in getattr(module, "lora_A", {}))
    return {PREFIX + path.replace(".", "_"): module for path, module in found}


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

    A DoRA has `.dora_scale` too, shape (out, 1) or (out, 1, 1, 1), fp32: rounded to fp16 it would move whole weights
    by up to 5e-4 of their size, not just what was learned. Readers differ. In the paper, peft and LyCORIS
    W' = m (W + ΔW) / ‖W + ΔW‖, with the norm of each output channel. ComfyUI (0.3.75; its pull request 15458 would
    change it) and Forge divide by ‖W‖ instead, so m ‖W‖ / ‖W + ΔW‖ is written: there the patched weight is the trained
    one. A program that divides by ‖W + ΔW‖ makes each channel ‖W‖ / ‖W + ΔW‖ times as strong; diffusers leaves the
    magnitudes away, with a warning; A1111 takes norms over the input channels and cannot use the file.
    """
    exported: dict[str, Tensor] = {}
    for key, module in layers(unet).items():
        weight, rank = module.lora_A[NAME].weight, module.lora_A[NAME].weight.shape[0]
        exported[f"{key}.lora_down.weight"] = weight.detach().to("cpu", dtype).clone().contiguous()
        exported[f"{key}.lora_up.weight"] = module.lora_B[NAME].weight.detach().to("cpu", dtype).clone().contiguous()
        exported[f"{key}.alpha"] = torch.tensor(float(module.scaling[NAME]) * rank)
        if NAME in module.lora_magnitude_vector:
            base, merged = _norms(module)
            magnitude = module.lora_magnitude_vector[NAME].weight.detach().float().view(base.shape)
            exported[f"{key}.dora_scale"] = (magnitude * base / merged).cpu().contiguous()
    return exported


def _norms(module: Any) -> tuple[Tensor, Tensor]:
    """‖W‖ and ‖W + ΔW‖ of each output channel, float32, shapes (out, 1) or (out, 1, 1, 1)."""
    weight = module.get_base_layer().weight.detach().float()
    up, down = module.lora_B[NAME].weight.detach(), module.lora_A[NAME].weight.detach()
    merged = weight + module.scaling[NAME] * (up.flatten(1) @ down.flatten(1)).view(weight.shape)
    over = tuple(range(1, weight.ndim))
    return weight.norm(p=2, dim=over, keepdim=True), merged.norm(p=2, dim=over, keepdim=True)


def _set_magnitudes(unet: nn.Module, scales: Mapping[str, Tensor]) -> None:
    """Set a DoRA's magnitudes so that each layer is W + ΔW as it stands, or what a saved `dora_scale` makes of it.

    peft's own start would be the norms in the base model's number type; these are float32.
    """
    for key, module in layers(unet).items():
        base, merged = _norms(module)
        if base.device.type != "meta" and not base.min() > 0:
            raise UserError(
                f"The base model's layer {key.removeprefix(PREFIX)} has an output channel of zeros, which has no "
                "direction that DoRA could train; switch dora off."
            )
        magnitude = merged if key not in scales else scales[key].to(merged) * merged / base
        weight = module.lora_magnitude_vector[NAME].weight
        weight.copy_(magnitude.view(weight.shape))


def load_lora(path: Path) -> dict[str, Tensor]:
    """The tensors of a LoRA's safetensors file, for `attach` to go on from. Raises UserError for any other file."""
    try:
        return load_file(regular(path))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The LoRA {path.name!r} cannot be read as a safetensors file; choose one that is whole."
        ) from error


def apply(unet: Any, path: Path, strength: float = 1.0) -> None:
    """Put the LoRA of a file on a UNet, to generate with; within `switched_off` the UNet is the base model.

    strength: what ΔW is multiplied by, as in ComfyUI's LoRA loaders. Raises UserError, one sentence, for a file that is
    no LoRA of the UNet alone or of another family, and for a DoRA at another strength than 1.
    """
    tensors = load_lora(path)
    found = _by_module(f"The LoRA {path.name!r}", tensors)
    rank = max(len(parts["lora_down.weight"]) for parts in found.values())
    dora = any("dora_scale" in parts for parts in found.values())
    if dora and strength != 1.0:
        raise UserError(f"The LoRA {path.name!r} is a DoRA, whose strength must be 1 here, but it is {strength:g}.")
    ends = {kind: tuple("_" + name.replace(".", "_") for name in names) for kind, names in TARGET_MODULES.items()}
    fitting = (kind for kind, names in ends.items() if all(key.endswith(names) for key in found))
    targets = Targets(next(fitting, Targets.CONVOLUTIONS))
    settings = LoraSettings(rank, float(rank), targets, dora=dora, start_from=path.name)
    attach(unet, settings, torch.Generator().manual_seed(0), tensors)
    for module in layers(unet).values():
        module.scaling[NAME] *= strength


_PARTS = {"lora_down.weight", "lora_up.weight", "alpha", "dora_scale"}
_NEEDED = {"lora_down.weight", "lora_up.weight"}


def _load(unet: nn.Module, settings: LoraSettings, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a LoRA in kohya's form into the attached one, and return its `dora_scale`s by kohya key.

    The delta stays what it was: the file's alpha / rank is folded into B, and a smaller rank is filled up with the
    random rows of A and zeros in B. Layers that the file lacks start fresh. Numbers mean what they mean to
    ComfyUI: without alpha the scale is 1, and a `dora_scale` is as `export_kohya` says.
    """
    who = f"The LoRA {settings.start_from!r} to start from" if settings.start_from else "The LoRA to start from"
    attached, found = layers(unet), _by_module(who, start)
    _refuse_other_modules(who, unet, set(found) - set(attached))
    scales: dict[str, Tensor] = {}
    for key, parts in found.items():
        module, a, b = attached[key], parts["lora_down.weight"], parts["lora_up.weight"]
        down, up, rank = module.lora_A[NAME].weight, module.lora_B[NAME].weight, a.shape[0]
        if a[0].numel() != down[0].numel() or b.flatten(1).shape != (up.shape[0], rank):
            raise UserError(
                f"{who} has another shape in {key.removeprefix(PREFIX)}: it was trained on another model family, so "
                "choose one that was trained on a model of this base model's family."
            )
        if rank > settings.rank:
            raise UserError(f"{who} has rank {rank}, but the rank is set to {settings.rank}; set it to {rank} or more.")
        scale = float(parts["alpha"]) / rank if "alpha" in parts else 1.0
        down[:rank] = a.to(down).view(rank, *down.shape[1:])
        up[:, :rank] = (b.to(up) * (scale / module.scaling[NAME])).view(up.shape[0], rank, *up.shape[2:])
        if "dora_scale" in parts:
            scales[key] = _magnitudes(who, parts["dora_scale"], module.get_base_layer().weight, settings)
    return scales


def _by_module(who: str, start: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of a kohya file by module and part. Raises UserError for whatever else a file holds."""
    text = [key for key in start if key.startswith("lora_te")]
    if text:
        whole = "changes only" if len(text) == len(start) else "also changes"
        raise UserError(
            f"{who} {whole} the text encoder, which is not trained here, so that part would be lost; choose a LoRA of "
            "the UNet alone."
        )
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in start.items():
        module, _, part = key.partition(".")
        if not module.startswith(PREFIX) or part not in _PARTS:
            raise UserError(
                f"{who} holds {key!r}, which a plain LoRA in kohya's form does not; choose one of {PREFIX}….lora_down, "
                ".lora_up and .alpha weights, such as those saved here."
            )
        if not value.is_floating_point() or not torch.isfinite(value.float()).all():
            raise UserError(f"{who} holds numbers in {key!r} that are not finite floats; choose a file that is whole.")
        found.setdefault(module, {})[part] = value
    halves = [module for module, parts in found.items() if not _NEEDED <= parts.keys()]
    if halves or not found:
        raise UserError(f"{who} is empty or lacks half of {halves[:1] or 'all'}; choose a file that is whole.")
    return found


def _refuse_other_modules(who: str, unet: nn.Module, other: set[str]) -> None:
    """Raise UserError for modules of the file that carry no LoRA here: targets too narrow, or another family."""
    if not other:
        return
    paths = {PREFIX + path.replace(".", "_"): path for path, _ in unet.named_modules()}
    name = min(other).removeprefix(PREFIX)
    for targets, names in TARGET_MODULES.items():
        if all(key in paths and paths[key].endswith(tuple(f".{name}" for name in names)) for key in other):
            raise UserError(f"{who} also changes {name}, which the targets leave out; set the targets to {targets!r}.")
    raise UserError(
        f"{who} changes {name}, which cannot be trained here: it was made for another model family, or with targets "
        f"beyond {', '.join(_ATTENTION + _FEED_FORWARD + _CONVOLUTIONS)}; choose another LoRA."
    )


def _magnitudes(who: str, scale: Tensor, weight: Tensor, settings: LoraSettings) -> Tensor:
    """A file's `dora_scale` if it can be trained on. Raises UserError if not."""
    if not settings.dora:
        raise UserError(f"{who} is a DoRA, but dora is off, so its magnitudes would be lost; switch dora on.")
    if scale.shape != (len(weight), *[1] * (weight.ndim - 1)):
        raise UserError(
            f"{who} is a DoRA with a magnitude for each input channel, and here those of output channels are trained; "
            "choose one without magnitudes, or one that was trained here."
        )
    return scale
