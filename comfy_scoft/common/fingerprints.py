"""What a result was made from and with: weights and files named by their content, and the versions of packages."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import metadata as packages
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import file_hash

if TYPE_CHECKING:
    from torch import Tensor, nn

VERSIONED = ("torch", "diffusers", "peft", "transformers", "safetensors", "open_clip_torch", "numpy")

LOOKS = 16
"""Values of each tensor that are looked at: every one would cost seconds a gigabyte and find no more mix-ups."""


def short_hash(facts: Any) -> str:
    """16 hex digits of plain JSON, the same in whatever order a dict's keys come."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits of names, shapes and up to LOOKS evenly spaced values (as fp32) of each tensor, in any order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        stride = max(1, tensor.numel() // LOOKS)
        values = tensor.reshape(-1)[::stride][:LOOKS].float().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + values.numpy().tobytes())
    return digest.hexdigest()[:16]


def of_weights(module: nn.Module) -> str:
    """`of_tensors` of a module's weights, the same with and without a LoRA attached to it."""
    state = module.state_dict()
    return of_tensors({name.replace(".base_layer.", "."): v for name, v in state.items() if ".lora_" not in name})


def of_files(paths: Iterable[Path]) -> list[str]:
    """16 hex digits of each file's bytes, "missing" where there is none."""
    found = []
    for path in paths:
        try:
            stat = os.stat(path)
            found.append(_of_file(str(path), stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append("missing")
    return found


@lru_cache(maxsize=100_000)
def _of_file(path: str, size: int, changed: int) -> str:
    return file_hash(Path(path))[:16]


def pack_version() -> str:
    """This pack's own version, from its pyproject.toml."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    (found,) = re.findall(r'^version = "(.+)"$', text, re.MULTILINE)
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = packages.version(name)
        except packages.PackageNotFoundError:
            continue
    return found


def noise_seed(seed: int, content: str, k: int) -> int:
    """The seed in [0, 2⁶³) of a record's k-th negative: the same whatever other records there are, in any order."""
    digest = hashlib.sha256(f"{seed}:{content}:{k}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
