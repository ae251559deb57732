"""Where frozen modules are and in which number type."""

from __future__ import annotations

import torch
from torch import nn

ALIGNMENT = 64
"""Bytes; what torch aligns its own CPU tensors to."""


def to_device(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Put a frozen module on the device in a number type; what is right already stays where it is, uncopied.

    The storage that a weight came from is never written: one that changes gets its own. So does one that does not
    start at a multiple of 64 bytes, as in a file mapped into memory: CPU kernels round differently there, and the
    same run would give another LoRA, in its last bits, from a file than from ComfyUI.
    """
    nn.Module.to(module, device, dtype)  # not diffusers' own `to`, which warns of modules that are not there
    for value in (*module.parameters(), *module.buffers()):
        if value.device.type == "cpu" and value.data_ptr() % ALIGNMENT:
            value.data = value.data.clone()


def unet_dtype(precision: str) -> torch.dtype:
    """Number type of the frozen UNet's weights for TrainSettings.precision; the LoRA on it is float32 always."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
