"""Save and resume: everything that decides the next step, in safetensors and JSON, written atomically.

A training step draws all its random numbers from generators seeded by the run's seed and the step (trainer.py), so the
LoRA, the optimizer's state and the count of finished steps are enough to go on exactly where a run was.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

STATE, LORA, OPTIMIZER = "state.json", "lora.safetensors", "optimizer.safetensors"


@dataclass(frozen=True)
class Saved:
    """A checkpoint on disk: finished optimizer steps, and the settings it was made with (plain JSON)."""

    folder: Path
    step: int
    settings: dict[str, Any]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def save(
    run: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Write `run/checkpoint-<step>` (folder by rename) and drop all but the newest `keep`. Returns the folder."""
    run.mkdir(parents=True, exist_ok=True)
    target = run / f"checkpoint-{step:08d}"
    part = run / f".{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    save_file({k: p.detach().cpu().contiguous() for k, p in parameters.items()}, part / LORA)
    save_file(_optimizer_tensors(parameters, optimizer), part / OPTIMIZER)
    (part / STATE).write_text(json.dumps({"step": step, "settings": settings}, indent=1), encoding="utf-8")
    for file in part.iterdir():
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
    for old in _folders(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def newest(run: Path) -> Saved | None:
    """The newest whole checkpoint of a run, or None."""
    for folder in reversed(_folders(run)):
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            return Saved(folder, int(state["step"]), dict(state["settings"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def newest_step(run: Path) -> int:
    """Finished steps in the newest whole checkpoint of a run, −1 where there is none."""
    saved = newest(run)
    return -1 if saved is None else saved.step


def restore(saved: Saved, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Load a checkpoint into the LoRA and the optimizer. Raises ValueError where it does not fit or is damaged."""
    try:
        lora, flat = load_file(saved.folder / LORA), load_file(saved.folder / OPTIMIZER)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"The checkpoint {saved.folder.name} of the run {saved.folder.parent.name!r} is damaged; delete its folder "
            "to go on from the one before it, or start a run with a new name."
        ) from error
    if {k: tuple(v.shape) for k, v in lora.items()} != {k: tuple(p.shape) for k, p in parameters.items()}:
        raise ValueError(
            f"The checkpoint {saved.folder.name} holds a LoRA of another shape; "
            "resume with the LoRA options and base model it was started with, or start a run with a new name."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(lora[name])
    for name, parameter in parameters.items():
        state = {key.rsplit("|", 1)[1]: value for key, value in flat.items() if key.rsplit("|", 1)[0] == name}
        optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in state.items()}


def _optimizer_tensors(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}|{key}": value.detach().cpu().contiguous()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _folders(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoint-*")) if run.is_dir() else []
