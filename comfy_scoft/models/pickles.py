"""Weights in torch's own form, which is a pickle: opened so that nothing in it runs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from ..common.errors import UserError

LEAST_TORCH = "2.6"
"""Older ones can be made to run a program by a file even with `weights_only` (CVE-2025-32434)."""


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
