"""Files of weights: opened so that nothing in them runs, and never written with values that are not numbers."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError

LEAST_TORCH = "2.6"
"""Older ones can be made to run a program by a file even with `weights_only` (CVE-2025-32434)."""


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no value of any tensor is NaN or infinite. On a GPU it waits once."""
    greatest = [value.detach().abs().amax().float() for value in tensors if value.is_floating_point() and value.numel()]
    return not greatest or bool(torch.stack(greatest).isfinite().all())


def require_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise UserError, which names the first bad tensor, before a file is written that nothing could use."""
    if not are_finite(tensors.values()):
        name = next(name for name, value in tensors.items() if not are_finite([value]))
        raise UserError(
            f"{what} holds values in {name!r} that are not finite numbers, so it is not saved: train it again with a "
            "lower learning rate, or in fp32 precision."
        )


def unpickled(path: Path) -> Any:
    """What a file of tensors, lists and dicts holds, on the CPU; of a zip archive the tensors stay on the disk.

    Raises UserError for a torch that cannot do so safely, and torch's and pickle's own errors for any other file, of
    which nothing has run. Whatever another package loads is opened here first: it may not look.
    """
    if torch.torch_version.TorchVersion(torch.__version__) < LEAST_TORCH:
        raise UserError(
            f"{path.name} is a pickle, which torch {torch.__version__} cannot open safely: update torch to "
            f"{LEAST_TORCH} or newer, or take the same weights as a safetensors file."
        )
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
