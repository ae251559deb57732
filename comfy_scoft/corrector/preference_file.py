"""A preference as one safetensors file: weights, and a JSON description in the metadata. Nothing is pickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.files import write_atomically
from ..common.names import checked_name
from ..common.text import composed, is_unicode
from ..models.stable_diffusion import FAMILIES
from ..models.weight_files import require_finite
from .preference import MAX_LEVELS, Preference, PreferenceHead
from .prompt_gate import PlaceGate

FORMAT = "scoft-preference-1"
MAX_BYTES = 64 << 20
"""Maximum file size; a preference takes well under 1 MB."""
MAX_WIDTH = 1024
ENDING = ".safetensors"


def free_name(folder: Path, prefix: str) -> Path:
    """`<prefix>_00001.safetensors`, or the next free number. Raises UserError for a name that contains a path."""
    name = checked_name(prefix, "file name")
    numbers = [composed(path.stem).removeprefix(f"{name}_") for path in folder.glob("*" + ENDING)]
    taken = [int(number) for number in numbers if number.isdecimal()]
    return folder / f"{name}_{max(taken, default=0) + 1:05}{ENDING}"


def save(preference: Preference, path: Path, title: str = "", licence: str = "") -> None:
    """Write a preference atomically. title, licence: added to its facts unless empty."""
    facts = {**preference.facts, **({"title": title} if title else {}), **({"licence": licence} if licence else {})}
    head = preference.head
    description = {
        "family": preference.family,
        "channels": head.channels,
        "width": head.width,
        "levels": head.levels,
        "temperature": preference.temperature,
        "place width": 0 if preference.place is None else preference.place.width,
        "facts": facts,
    }
    tensors = {f"head.{name}": value for name, value in head.state_dict().items()}
    if preference.place is not None:
        tensors |= {f"place.{name}": value for name, value in preference.place.state_dict().items()}
    require_finite(tensors, f"The preference {path.stem!r}")
    plain = {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"format": "pt", "scoft": FORMAT, "preference": json.dumps(description, ensure_ascii=False)}
    write_atomically(path, serialize(plain, metadata))


def load(path: Path) -> Preference:
    """Read a preference. Raises UserError for any file that is not a complete, valid preference."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("too large")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if metadata.get("scoft") != FORMAT:
            raise ValueError("another format")
        if not is_unicode(json.dumps(description := json.loads(metadata["preference"]), ensure_ascii=False)):
            raise ValueError("text that no file can hold")
        return _built(description, tensors)
    except Exception as error:  # safetensors, JSON and torch each raise exceptions of their own
        raise UserError(
            f"{path.name} is not a preference that can be read: choose a file that Save Preference wrote, or learn it "
            "again."
        ) from error


def _built(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Preference:
    """The described network with the tensors as weights. Raises any exception if they do not match."""
    channels, width, levels = (int(description[name]) for name in ("channels", "width", "levels"))
    temperature, text = float(description["temperature"]), int(description["place width"])
    valid = 1 <= channels <= 64 and 1 <= width <= MAX_WIDTH and 1 <= levels <= MAX_LEVELS and 0 <= text <= 1 << 16
    finite = all(value.is_floating_point() and bool(value.isfinite().all()) for value in tensors.values())
    if not valid or not finite or not math.isfinite(temperature) or temperature <= 0:
        raise ValueError("sizes or values out of range")
    if description["family"] not in FAMILIES or not isinstance(description["facts"], dict):
        raise ValueError("unknown family or facts")
    with torch.inference_mode(False):
        head, place = PreferenceHead(channels, width, levels), PlaceGate(text) if text else None
        parts: dict[str, nn.Module] = {"head.": head, **({"place.": place} if place is not None else {})}
        if any(not name.startswith(tuple(parts)) for name in tensors):
            raise ValueError("unknown tensors")
        for start, module in parts.items():
            own = {name.removeprefix(start): v.clone() for name, v in tensors.items() if name.startswith(start)}
            module.load_state_dict(own)
            module.requires_grad_(False).eval()
    return Preference(head, str(description["family"]), temperature, place, description["facts"])
