"""Resuming a run: what must be the same, what may differ, and the messages about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..common.errors import UserError, advice
from ..common.fingerprints import of_tensors, versions
from . import checkpoint
from .checkpoint import State
from .run import Run
from .settings import identity_fields


def run_identity(run: Run) -> dict[str, Any]:
    """What decides the result, as plain JSON: a run is resumed only where all of it is the same.

    Models, networks and data are named by their content, so that a renamed or copied file is the same one.
    """
    return {
        "base model": run.base.identity(),
        "train": identity_fields(run.settings) | ({"long captions": count} if (count := run.read_in_full()) else {}),
        "lora": identity_fields(run.lora) | ({} if run.start is None else {"start": of_tensors(run.start)}),
        "optimizer": identity_fields(run.optimizer),
        "rollout": identity_fields(run.rollout),
        "losses": [loss.identity() for loss in run.losses],
        "dataset": run.data or run.dataset.identity(),
    }


def start_or_resume(run: Run, state: State, on_message: Callable[[str], None]) -> None:
    """Give a fresh state the newest whole checkpoint of the run, if there is one. Refuses to mix two runs."""
    saved = checkpoint.newest(run.folder)
    if broken := checkpoint.damaged(run.folder):
        if saved is None:
            raise UserError(
                f"No checkpoint of the run {run.folder.name!r} can be read ({', '.join(broken)}: damaged); put whole "
                "copies back, or start a run with a new name."
            )
        on_message(f"{', '.join(broken)} is damaged, so the run goes on from step {saved.step}.")
    if saved is None or saved.step == 0:  # a run that stopped in its first step has learned nothing to go on with
        return
    if not run.resume:
        raise UserError(
            f"A run named {run.folder.name!r} exists already; choose another run name, or set resume to go on with it."
        )
    different = differences(saved.settings, run_identity(run))
    if different:
        raise UserError(
            f"The run {run.folder.name!r} was started with other settings ({'; '.join(different)}), so going on would "
            "give a LoRA of neither; use the same settings, or choose another run name."
        )
    changed = differences(saved.state["versions"], versions())
    if changed:
        on_message(
            f"Versions have changed since the last checkpoint ({'; '.join(changed)}): results may differ in last bits."
        )
    checkpoint.restore(saved, state)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two nested descriptions, a short text each: "train.seed 7 → 9".

    The number of steps of a run at a constant rate decides nothing that is past, so that such a run may be lengthened.
    """
    one, other = _flat(before), _flat(now)
    if other.get("optimizer.schedule") == one.get("optimizer.schedule") == "constant":
        one["train.steps"] = other.get("train.steps")
    keys = [*one, *(key for key in other if key not in one)]
    return [f"{k} {one.get(k, 'none')} → {other.get(k, 'none')}" for k in keys if one.get(k) != other.get(k)]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, list | tuple):
        value = dict(enumerate(value, start=1))
    if not isinstance(value, Mapping):
        return {name: value}
    return {k: v for key, part in value.items() for k, v in _flat(part, f"{name}.{key}" if name else str(key)).items()}


def save_checkpoint(run: Run, state: State, facts: Mapping[str, Any]) -> None:
    """`checkpoint.save`, with one sentence (UserError) where the disk is full or the folder may not be written."""
    try:
        checkpoint.save(run.folder, state, facts, versions(), run.settings.keep)
    except OSError as error:
        kept = f"step {state.saved} is kept" if state.saved >= 0 else "nothing was kept yet"
        raise UserError(
            f"The checkpoint of step {state.step} could not be written to {run.folder.name!r} "
            f"({error.strerror or error}), but {kept}; {advice(error)}, then go on with resume."
        ) from error
