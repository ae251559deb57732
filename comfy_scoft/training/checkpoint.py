"""Save and resume: everything that decides the next step, in safetensors and JSON, written atomically.

A training step has all its random numbers from the run's seed and the step's number (batches.py), so no generator's
state and no data order is kept: the LoRA, the optimizer's state, the moving average, the loss scale and the count of
finished steps are enough to go on exactly where a run was.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..common.errors import UserError
from ..common.files import file_hash
from ..models.weight_files import require_finite
from . import optimizers
from .ema import Ema
from .memory import MemoryOptions

STATE, LORA, OPTIMIZER, EMA = "state.json", "lora.safetensors", "optimizer.safetensors", "ema.safetensors"


@dataclass
class State:
    """What a run has become after `step` finished optimizer steps.

    parameters: the LoRA in training, fp32. ema: its moving average, None where there is none. scaler: the loss scale of
    fp16. memory_options: how memory is saved now; asked: what the settings say of it. averages: running means and
    counts over steps. row: the last step's metrics.
    consistent: False while an update is half done, and nothing may be saved. saved: the step of the newest checkpoint,
    -1 before the first.
    """

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    memory_options: MemoryOptions
    ema: Ema | None = None
    step: int = 0
    averages: dict[str, float] = field(default_factory=dict)
    asked: MemoryOptions = field(default_factory=MemoryOptions)
    row: dict[str, float] = field(default_factory=dict)
    consistent: bool = True
    saved: int = -1


@dataclass(frozen=True)
class Saved:
    """A whole checkpoint on disk: finished optimizer steps, the settings it was made with, and all of its state."""

    folder: Path
    step: int
    settings: dict[str, Any]
    state: dict[str, Any]


def save(run: Path, state: State, settings: Mapping[str, Any], versions: Mapping[str, str], keep: int = 2) -> Path:
    """Write `run/checkpoint-<step>` (folder by rename) and drop all but the newest `keep`. Returns the folder."""
    assert state.consistent, "half an update must not be saved"
    run.mkdir(parents=True, exist_ok=True)
    target = run / f"checkpoint-{state.step:08d}"
    part = run / f".{target.name}.part"
    for left_over in run.glob(".checkpoint-*.part"):
        shutil.rmtree(left_over, ignore_errors=True)
    part.mkdir()
    try:
        _write(part, state, settings, versions)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(part, target)
    except BaseException:  # a full disk needs the room
        shutil.rmtree(part, ignore_errors=True)
        raise
    state.saved = state.step
    for old in _folders(run)[:-keep]:
        if old != target:  # it may not be the newest: a newer one that is damaged stays
            shutil.rmtree(old, ignore_errors=True)
    return target


def _write(part: Path, state: State, settings: Mapping[str, Any], versions: Mapping[str, str]) -> None:
    """Write a checkpoint's files and have them on the disk. Raises OSError where that does not work."""
    tensors, plain = optimizers.pack(state.parameters, state.optimizer)
    lora = {name: parameter.detach().cpu().contiguous() for name, parameter in state.parameters.items()}
    files = {LORA: lora, OPTIMIZER: tensors}
    if state.ema is not None:
        files[EMA] = state.ema.tensors()
    for name, content in files.items():
        require_finite(content, f"The {name} of the checkpoint of step {state.step}")
    try:
        for name, content in files.items():
            save_file(content, part / name)
    except SafetensorError as error:  # in place of an OSError
        raise OSError(str(error)) from error
    facts = {
        "step": state.step,
        "settings": settings,
        "optimizer": plain,
        "scaler": state.scaler.state_dict(),
        "economy": state.memory_options.as_json(),
        "asked": state.asked.as_json(),
        "averages": state.averages,
        "row": state.row,
        "random": "from the seed and the number of the micro-step",
        "versions": dict(versions),
        "sha256": {name: file_hash(part / name) for name in files},
    }
    (part / STATE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    for file in part.iterdir():
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())


def newest(run: Path) -> Saved | None:
    """The newest whole checkpoint of a run, or None. One that is damaged, by its files' hashes, is passed over."""
    for folder in reversed(_folders(run)):
        try:
            facts = json.loads((folder / STATE).read_bytes())
            if all(file_hash(folder / name) == known for name, known in facts["sha256"].items()):
                return Saved(folder, int(facts["step"]), dict(facts["settings"]), facts)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def damaged(run: Path) -> list[str]:
    """Names of the checkpoints that lie newer than the newest whole one, and of all where none is whole."""
    saved = newest(run)
    names = [folder.name for folder in _folders(run)]
    return names if saved is None else [name for name in names if name > saved.folder.name]


def newest_step(run: Path) -> int:
    """Finished steps in the newest whole checkpoint of a run, −1 where there is none."""
    saved = newest(run)
    return -1 if saved is None else saved.step


def restore(saved: Saved, state: State) -> None:
    """Load a checkpoint into a run's state. Raises UserError, with nothing changed, where the LoRA does not fit."""
    lora, tensors = load_file(saved.folder / LORA), load_file(saved.folder / OPTIMIZER)
    if {k: tuple(v.shape) for k, v in lora.items()} != {k: tuple(p.shape) for k, p in state.parameters.items()}:
        raise UserError(
            f"The checkpoint {saved.folder.name} holds a LoRA of another shape; "
            "resume with the LoRA options and base model it was started with, or start a run with a new name."
        )
    facts = saved.state
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(lora[name])
    optimizers.unpack(state.parameters, state.optimizer, tensors, facts["optimizer"])
    if state.ema is not None:
        state.ema.load(load_file(saved.folder / EMA))
    if facts["scaler"]:
        state.scaler.load_state_dict(facts["scaler"])
    # The saved options go on, with the savings that are needed now. Where the settings ask for others than before,
    # theirs do; only what decides the result (how the rollout's image is decoded) stays.
    before = MemoryOptions(**facts["economy"])
    if MemoryOptions(**facts["asked"]) != state.asked:
        before = MemoryOptions(decode=before.decode)
    state.memory_options = state.memory_options.with_savings(before)
    state.averages, state.row = dict(facts["averages"]), dict(facts["row"])
    state.step = state.saved = saved.step


def _folders(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoint-*")) if run.is_dir() else []
