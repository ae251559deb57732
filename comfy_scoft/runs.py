"""Runs on disk: their names and folders, and metrics.jsonl, one line of figures per optimizer step."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import checkpoint
from .losses import Loss
from .trainer import Result, Run, train

METRICS = "metrics.jsonl"
ALIGNMENT = 64
"""Bytes; what torch aligns its own CPU tensors to."""
_NAME = re.compile(r"\w(?:[\w.-]{0,98}\w)?")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def checked_name(name: str, what: str = "name") -> str:
    """`name` itself if it can name a file or folder on every system and holds no path; else ValueError.

    Letters and digits of any script, "-", "_" and "."; at most 100, a letter or digit (or "_") at both ends.
    """
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        raise ValueError(
            f"The {what} {name!r} cannot name a file: use at most 100 letters, digits, '-', '_' and '.', "
            "without a path or spaces."
        )
    return name


def run_folder(root: Path, name: str, resume: bool) -> Path:
    """The folder of a run under `root`: with `resume` the newest run of that name, else a new one, made now.

    A run is never overwritten: where `name` exists, a new run is `name-2`, `name-3`, … With `resume`, the one with
    the highest number goes on; where there is none, a new one starts.
    """
    checked_name(name, "run name")
    numbers = [number for folder in _folders(root) if (number := _number(folder.name, name)) is not None]
    if resume and numbers:
        return root / _numbered(name, max(numbers))
    number = max(numbers, default=0) + 1
    while True:
        folder = root / _numbered(name, number)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:  # another process was quicker
            number += 1


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl, in order; [] where there is none. A line cut short by a crash is left out."""
    try:
        lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def train_and_log(
    run: Run,
    check: Callable[[], None] = lambda: None,
    observe: Callable[[int, dict[str, float]], None] = lambda step, row: None,
) -> tuple[Result, list[dict[str, float]]]:
    """`train`, with each row appended to metrics.jsonl in the run's folder at once.

    Returns the result and the rows of the whole run, those from before a resume included.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    start = max(0, checkpoint.newest_step(run.folder)) if run.resume else 0
    rows = [row for row in read_metrics(run.folder) if row["step"] <= start]
    if run.resume:  # steps after the checkpoint are done again, and would be listed twice
        text = "".join(json.dumps(row) + "\n" for row in rows)
        checkpoint.write_atomically(run.folder / METRICS, text.encode())

    def log(step: int, row: dict[str, float]) -> None:
        rows.append(row)
        with (run.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        observe(step, row)

    return train(run, check, log), rows


def weighted_losses(rows: Sequence[Mapping[str, float]], losses: Sequence[Loss]) -> list[float]:
    """One weighted sum of terms a row, over the terms that every row has, so that the values can be compared.

    Terms on the rollout's image exist in some steps only; where no other term is, the rows that have them count.
    """
    names = [loss.name for loss in losses if all(loss.name in row for row in rows)] or [loss.name for loss in losses]
    weights = {loss.name: loss.weight for loss in losses if loss.name in names}
    sums = [[weights[n] * row[n] for n in weights if n in row] for row in rows]
    return [sum(terms) for terms in sums if terms]


def planned_calls(run: Run) -> int:
    """UNet calls that the run has still to make, at most, for a progress bar; small timesteps need fewer."""
    references = {getattr(loss, "reference", "") for loss in run.losses} - {""}
    plain = (1 if any(not loss.uses_rollout for loss in run.losses) else 0) + len(references)
    done = max(0, checkpoint.newest_step(run.folder)) if run.resume else 0
    micro = range(done * run.settings.accumulation, run.settings.steps * run.settings.accumulation)
    if not any(loss.uses_rollout for loss in run.losses):
        return len(micro) * plain
    shared = int("current" in references)  # its generic caption joins the rollout's first call
    own_call = int(run.rollout.gradient_step != "first" or plain == 0)
    rollouts = sum(1 for m in micro if m % run.rollout.every == 0)
    return len(micro) * plain + rollouts * (run.rollout.steps + own_call - shared)


def place(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
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
    return torch.bfloat16 if precision == "bf16" else torch.float32


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each figure over the last tenth of a run's rows (at least ten, where there are so many)."""
    tail = rows[-max(10, len(rows) // 10) :]
    keys = [key for key in dict.fromkeys(key for row in tail for key in row) if key != "step"]
    values = {key: [float(row[key]) for row in tail if key in row] for key in keys}
    return {key: sum(found) / len(found) for key, found in values.items()}


def _folders(root: Path) -> list[Path]:
    return [entry for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _number(folder: str, name: str) -> int | None:
    """1 for `name`, n for `name-n`, None for another run. Case is ignored, as some file systems do."""
    folder, name = folder.lower(), name.lower()
    if folder == name:
        return 1
    found = re.fullmatch(re.escape(name) + r"-([2-9]|[1-9]\d{1,5})", folder)
    return int(found[1]) if found else None
