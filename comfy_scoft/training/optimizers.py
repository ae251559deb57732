"""The optimizers that a run may use, and their whole state as files hold it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError

SMALLEST_8BIT = 4096
"""bitsandbytes keeps the state of tensors with fewer elements in 32 bits."""

LEAST_PRODIGY_RATE = 0.01
"""Prodigy multiplies its own rate by the given one; one below this is a rate meant for another optimizer."""


def build(
    parameters: dict[str, nn.Parameter], name: str, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimizer `name` over all parameters (by their names in the UNet).

    Weight decay is decoupled (AdamW's) in each, and leaves a DoRA's magnitudes alone: they form a second group. Decay
    pulls a LoRA towards the base model, but a magnitude of zero would be a channel of zeros.

    AdamW: torch's, β = (0.9, 0.999).
    AdamW8bit: bitsandbytes' blockwise AdamW, the same β; its two states take one byte an element, except for tensors
        below SMALLEST_8BIT elements, which keep 32 bits.
    Prodigy: prodigyopt's, with safeguard_warmup and use_bias_correction on, as its authors advise for diffusion
        models. It finds the rate itself; `learning_rate` multiplies it, so 1.0 is usual (a schedule may lower it).
    Adafactor: transformers', with scale_parameter and relative_step off, so that the given rate is the rate. torch's
        own always scales a step by max(0.001, RMS of the tensor), a thousandth for a LoRA's B, which starts at zero,
        and caps the rate at 1 / √step.

    Raises UserError, one sentence, for a missing package, a device where the optimizer does not work, an unknown
    name, or a learning rate for Prodigy that was meant for another optimizer.
    """
    groups = _groups(parameters, weight_decay)
    if name == "AdamW":
        return _adamw(groups, learning_rate)
    if name == "AdamW8bit":
        return _adamw_8bit(groups, learning_rate)
    if name == "Prodigy":
        return _prodigy(groups, learning_rate)
    if name == "Adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(groups, lr=learning_rate, scale_parameter=False, relative_step=False, warmup_init=False)
    raise UserError(f"Optimizer {name!r} is not known; choose one of AdamW, AdamW8bit, Prodigy, Adafactor.")


def _groups(parameters: dict[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    magnitudes = [p for name, p in parameters.items() if "lora_magnitude_vector" in name]
    rest = [p for name, p in parameters.items() if "lora_magnitude_vector" not in name]
    both = [{"params": rest, "weight_decay": weight_decay}, {"params": magnitudes, "weight_decay": 0.0}]
    return [group for group in both if group["params"]]


def _adamw(groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    """torch's AdamW with all parameters in one kernel, ten times as fast on the CPU; older releases lack it there."""
    try:
        return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    except RuntimeError:
        return torch.optim.AdamW(groups, lr=learning_rate)


def _adamw_8bit(groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except Exception as error:  # it fails in many ways where its compiled part does not fit the machine
        raise UserError(_missing("AdamW8bit", "bitsandbytes", error)) from error
    device = groups[0]["params"][0].device
    probe = nn.Parameter(torch.zeros(SMALLEST_8BIT, device=device))
    probe.grad = torch.ones_like(probe)
    try:  # which devices work differs from release to release, so it is tried
        AdamW8bit([probe], lr=1.0).step()
        works = bool(torch.isfinite(probe).all() and (probe < 0).all())
    except Exception:
        works = False
    if not works:
        raise UserError(
            f"The installed bitsandbytes has no 8-bit optimizer that works on {device.type}; run `python -m pip "
            "install --upgrade bitsandbytes`, or take AdamW, or Adafactor, which needs less memory still."
        )
    return AdamW8bit(groups, lr=learning_rate)


def _prodigy(groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    try:
        from prodigyopt import Prodigy
    except ImportError as error:
        raise UserError(_missing("Prodigy", "prodigyopt", error)) from error
    if learning_rate < LEAST_PRODIGY_RATE:
        raise UserError(
            f"The learning rate is {learning_rate}, but Prodigy finds the rate itself and multiplies it by this one, "
            "so it would hardly learn; set the learning rate to 1.0."
        )
    return Prodigy(groups, lr=learning_rate, safeguard_warmup=True, use_bias_correction=True)


def _missing(optimizer: str, package: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return (
            f"{optimizer} needs the package {package}, which is not installed; run `python install.py {package}` "
            "in this pack's folder with ComfyUI's own Python, or take AdamW."
        )
    return (
        f"{optimizer} needs the package {package}, which does not load here ({error}); run `python -m pip install "
        f"--upgrade {package}`, or take AdamW."
    )


def pack(
    parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's whole state: tensors for a safetensors file, under names that begin with `prefix`, and plain
    JSON, which says where each tensor belongs and holds all that is no tensor.

    The tensors are copies on the CPU in their own dtype; one that parameters share (bitsandbytes' maps) is held once.
    Numbers are exact: Python writes and reads a float's shortest exact form; what JSON lacks is marked (`_plain`).
    """
    names = {parameter: name for name, parameter in parameters.items()}
    tensors: dict[str, Tensor] = {}
    known: dict[int, str] = {}

    def held(value: Any, place: str) -> Any:
        if not isinstance(value, Tensor):
            return _plain(value)
        if id(value) not in known:
            known[id(value)] = prefix + place
            tensors[prefix + place] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": known[id(value)]}

    state = {
        names[parameter]: {key: held(value, f"{names[parameter]}|{key}") for key, value in values.items()}
        for parameter, values in optimizer.state.items()
    }
    groups = [
        {key: held(value, f"group {i}|{key}") for key, value in group.items() if key != "params"}
        for i, group in enumerate(optimizer.param_groups)
    ]
    shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
    return tensors, {"optimizer": type(optimizer).__name__, "shapes": shapes, "state": state, "groups": groups}


def unpack(
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    plain: Mapping[str, Any],
) -> None:
    """Give a fresh optimizer of the same parameters the state that `pack` returned; it then goes on bit for bit.

    Where states go (their parameter's device; AdamW's `step` stays on the CPU) is decided by the optimizer's own
    `load_state_dict`. Values of the groups come back too, the learning rate among them: a schedule sets it anew.
    `tensors` may hold others besides. Raises UserError, one sentence, where the state does not fit.
    """
    copies: dict[str, Tensor] = {}  # the optimizer writes into what it is given; shared tensors stay shared

    def value(saved: Any) -> Any:
        if isinstance(saved, list):
            return tuple(value(item) for item in saved)
        if not isinstance(saved, dict):
            return saved
        if "float" in saved:
            return float(saved["float"])
        return copies.setdefault(saved["tensor"], tensors[saved["tensor"]].clone())

    try:
        shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
        if plain["optimizer"] != type(optimizer).__name__ or plain["shapes"] != shapes:
            raise UserError("of another kind")
        order = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        state = {
            order.index(id(parameters[name])): {key: value(saved) for key, saved in values.items()}
            for name, values in plain["state"].items()
        }
        saved = [{key: value(one) for key, one in group.items()} for group in plain["groups"]]
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict(
            {"state": state, "param_groups": [g | s for g, s in zip(groups, saved, strict=True)]}  # versions add keys
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"The saved optimizer state does not fit {type(optimizer).__name__} on this LoRA; go on with the "
            "optimizer, LoRA options and base model that the run was started with, or start a run with a new name."
        ) from error


def _plain(value: Any) -> Any:
    """A value as strict JSON: tuples become lists, and the floats that JSON lacks are marked (Prodigy keeps an ∞)."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    assert isinstance(value, (bool, int, float, str, type(None))), f"an optimizer keeps a {type(value).__name__}"
    return value
