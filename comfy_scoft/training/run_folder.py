"""Runs on disk: their names and folders, and metrics.jsonl, one line of metrics per optimizer step."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save as serialize
from torch import Tensor

from ..common.errors import UserError, advice
from ..common.files import append_line, make_folder, new_folder, regular, sync_file, write_atomically
from ..common.names import checked_name
from ..common.text import composed
from ..data.images import write_png
from ..losses import Loss, named
from ..models.weight_files import require_finite
from . import checkpoint
from .run import Callbacks, Run
from .settings import Tracker
from .trainer import Result, train
from .validation import HELD_OUT

METRICS = checkpoint.METRICS
LOCK = ".lock"
DEEPEST = 4
"""Folders above a run's checkpoints, up to the folder of all runs."""
OFF, LATEST = "off", "latest"
"""What `resume` may be besides the name of a run."""
NOTHING_SAVED = "Stopped before the first step. Nothing is saved."


def run_folder(root: Path, name: str, resume: str = OFF) -> Path:
    """The folder of a run under `root`.

    resume: OFF makes a new run; a run is never overwritten: where `name` exists, it is `name-2`, `name-3`, …
    LATEST is the run of that name with the highest number, or a new one where there is none. Anything else is the name
    of a run's folder, which must be there.
    """
    name = checked_name(name, "run name")
    if resume not in (OFF, LATEST):
        wanted = checked_name(resume, "run to go on with")
        for folder in _folders(root):
            if composed(folder.name) == wanted:
                return folder
        there = ", ".join(run_names(root)) or "none"
        raise UserError(f"There is no run named {wanted!r} to go on with; those there are: {there}.")
    numbers = _numbers(root, name)
    if resume == LATEST and numbers:
        return numbers[max(numbers)]
    for folder in free_folders(root, name):
        try:
            new_folder(folder)
            return folder
        except FileExistsError:  # another process was quicker
            continue
        except OSError as error:
            raise UserError(
                f"The run {folder.name!r} cannot be written below {root.name!r} ({error.strerror or error}): "
                f"{advice(error)}."
            ) from error
    raise AssertionError("a free name is always found")


def run_line(folder: Path, name: str, resume: str) -> str:
    """What is said of the run that `run_folder` chose, before it begins."""
    if resume == LATEST and checkpoint.newest_step(folder) <= 0:
        return f"There is no run named {name} to go on with, so a new one begins."
    if resume != OFF:
        return f"resuming run {folder.name}"
    return f"run {name}" if folder.name == name else f"run {folder.name} (the name {name} is in use)"


def free_folders(root: Path, name: str) -> Iterator[Path]:
    """Folders `name`, `name-2`, … under `root` that are not there yet, after the last of those that are."""
    for number in itertools.count(max(_numbers(root, name), default=0) + 1):
        yield root / _numbered(name, number)


def run_names(root: Path) -> list[str]:
    """The runs under `root`, also in sub-folders of it, that have a checkpoint, the newest first: names with "/"."""
    saved = (path for depth in range(1, DEEPEST + 1) for path in root.glob("*/" * depth + "checkpoint-[0-9]*"))
    folders = sorted({path.parent for path in saved}, key=lambda folder: folder.stat().st_mtime, reverse=True)
    return [folder.relative_to(root).as_posix() for folder in folders]


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl, in order; [] where there is none. A line cut short by a crash is left out."""
    try:
        lines = regular(folder / METRICS).read_text(encoding="utf-8-sig", errors="replace").splitlines()
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
    callbacks: Callbacks = Callbacks(),  # noqa: B008 - frozen
) -> tuple[Result, list[dict[str, float]]]:
    """`train`, with each row appended to metrics.jsonl in the run's folder at once, previews and the LoRA beside it.

    Returns the result and the rows of the whole run, those from before a resume included. Raises UserError, one
    sentence, where another process trains this run now, or the folder cannot be written.
    """
    if not run.distributed.main:
        return train(run, Callbacks(callbacks.check_interrupt)), []
    with alone(run.folder), tracker(run) as track:
        checkpoint.remove_leftovers(run.folder)
        rows = _rows_before(run)
        if run.resume or checkpoint.newest_step(run.folder) <= 0:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            with writing(run.folder):
                write_atomically(run.folder / METRICS, text.encode())

        def on_step(step: int, row: dict[str, float]) -> None:
            rows.append(row)
            with writing(run.folder):
                append_line(run.folder / METRICS, json.dumps(row).encode())
                track(step, row)
            callbacks.on_step(step, row)

        def on_preview(step: int, image: Tensor) -> None:
            with writing(run.folder):
                write_png(image.permute(1, 2, 0), run.folder / "previews" / f"step-{step:08d}.png")
            callbacks.on_preview(step, image)

        result = train(run, replace(callbacks, on_step=on_step, on_preview=on_preview))
        require_finite(result.lora, f"The LoRA of the run {run.folder.name!r}")
        with writing(run.folder):
            if rows:
                sync_file(run.folder / METRICS)
            write_atomically(run.folder / f"{run.folder.name}.safetensors", serialize(result.lora))
        return result, rows


def _rows_before(run: Run) -> list[dict[str, float]]:
    """The rows of the steps that a resumed run does not do again; the last is the checkpoint's own, if it was not
    written before the process died. What is measured after that step is measured again."""
    saved = checkpoint.newest(run.folder) if run.resume else None
    if saved is None or saved.step == 0:
        return []
    return [row for row in read_metrics(run.folder) if row["step"] < saved.step] + [dict(saved.state["row"])]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock the run's folder for this process; the system unlocks it when the process ends, however it ends."""
    from filelock import FileLock, Timeout

    with writing(folder):
        make_folder(folder)
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"The run {folder.name!r} is being trained by another process; wait for it, or choose another run name."
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within it, only files of the run's folder are written; a fault of the disk becomes one sentence (UserError)."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The run {folder.name!r} could not be written ({error.strerror or error}), so it stopped; "
            f"{advice(error)}, then go on with resume."
        ) from error


@contextmanager
def tracker(run: Run) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A function that also logs a row to the tracker that the settings name; TensorBoard reads the run's folder."""
    if run.settings.tracker is Tracker.OFF:
        yield lambda step, row: None
        return
    try:
        import tensorboard  # noqa: F401
        from accelerate import PartialState
        from accelerate.tracking import TensorBoardTracker
    except ImportError as error:
        raise UserError(
            "The tracker is TensorBoard, which is not installed; run `python install.py tensorboard` in this "
            "pack's folder with ComfyUI's own Python, or set the tracker to off."
        ) from error
    PartialState()
    writer = TensorBoardTracker("tensorboard", str(run.folder))
    writer.start()
    try:
        yield lambda step, row: writer.log({k: v for k, v in row.items() if k != "step"}, step=step)
    finally:
        writer.finish()


def discard_empty(folder: Path) -> None:
    """Remove a run's folder in which nothing was begun, so that its name is free again; any other stays as it is."""
    with suppress(OSError):
        if {entry.name for entry in folder.iterdir()} <= {LOCK}:
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def stopped_at(folder: Path, go_on: str) -> str:
    """What a run that was stopped keeps, and how to go on with it, in two sentences. go_on: the second one."""
    step = checkpoint.newest_step(folder)
    return f"Stopped at step {step} and saved. {go_on}" if step > 0 else NOTHING_SAVED


def weighted_losses(rows: Sequence[Mapping[str, float]], losses: Sequence[Loss]) -> list[float]:
    """One weighted sum of terms a row, over the terms that every row has, so that the values can be compared.

    Terms on the rollout's image exist in some steps only; where no other term is, the rows that have them count.
    """
    weights = {name: loss.weight for name, loss in named(losses)}
    rows = [row for row in rows if any(name in row for name in weights)]  # one before the first step has none
    weights = {n: weight for n, weight in weights.items() if all(n in row for row in rows)} or weights
    sums = [[weights[n] * row[n] for n in weights if n in row] for row in rows]
    return [sum(terms) for terms in sums if terms]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a card says of the end of a run, as JSON: `last`, the mean of each training metric over the last tenth of
    the steps (at least ten, where there are so many); how many steps these are; and the last step's learning rate.

    `loss` is left out: it is a running mean already.
    """
    steps = [row for row in rows if HELD_OUT not in row]
    tail = steps[-max(10, len(steps) // 10) :]
    aside = ("step", "loss", "learning_rate")
    keys = [key for key in dict.fromkeys(key for row in tail for key in row) if key not in aside]
    values = {key: [float(row[key]) for row in tail if key in row] for key in keys}
    means = {key: sum(of_rows) / len(of_rows) for key, of_rows in values.items()}
    rate = tail[-1].get("learning_rate") if tail else None
    return {"last": means, "averaged_steps": len(tail), "last_learning_rate": rate}


def _folders(root: Path) -> list[Path]:
    return [entry for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []


def _numbers(root: Path, name: str) -> dict[int, Path]:
    return {number: folder for folder in _folders(root) if (number := _number(folder.name, name)) is not None}


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _number(folder: str, name: str) -> int | None:
    """1 for `name`, n for `name-n`, None for another run. Case and composition are ignored, as some file systems do."""
    folder, name = composed(folder).lower(), composed(name).lower()
    if folder == name:
        return 1
    match = re.fullmatch(re.escape(name) + r"-([2-9]|[1-9]\d{1,5})", folder)
    return int(match[1]) if match else None
