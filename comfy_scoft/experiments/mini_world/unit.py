"""One piece of work: an arm trained with a seed, its images drawn and read, and one JSON written of it."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...common import fingerprints
from ...common.files import write_atomically
from ...common.fingerprints import short_hash
from ...models.stable_diffusion import BaseModel
from . import correction, generate, measurements
from .arms import BASE, Arm, Part
from .cells import FORMS
from .training import Trained, World, key_of, trained, with_lora

Unit = tuple[Part, Arm, int]


def unit_file(out: Path, unit: Unit) -> Path:
    """Where a unit's file lies; the base model's is shared by all parts with the same cells."""
    part, arm, seed = unit
    if arm.untouched:
        return out / "units" / "base" / f"{_slug(part.form)}-{seed}.json"
    return out / "units" / _slug(part.name) / f"{_slug(arm.name)}-{seed}.json"


def _slug(name: str) -> str:
    """A name as a file's: letters, digits, "+" and "." stay, all else becomes one "_"."""
    return "_".join("".join(c if c.isalnum() or c in "+." else " " for c in name).split())


def hash_of(unit: Unit, world: World) -> str:
    """16 hex digits of all that decides what a unit's file says, its seconds aside."""
    part, arm, seed = unit
    cells = [cell.described() for cell in FORMS[part.form]]
    drawing = [generate.REVISION, generate.STEPS, generate.GUIDANCE, seed, cells]
    if arm.lora_strength != 1.0:
        drawing.append({"LoRA strength": arm.lora_strength})
    if arm.strength:
        drawing.append(correction.described(arm.strength, seed, arm.asks))
    return short_hash([measurements.REVISION, drawing, key_of(arm, seed, world), arm.at, world.facts])


def finished(unit: Unit, world: World) -> bool:
    """Whether the unit's file and the base model's are there, whole and made with these settings."""
    part, arm, seed = unit
    return _is_there(unit, world) and (arm.untouched or _is_there((part, BASE, seed), world))


def _is_there(unit: Unit, world: World) -> bool:
    try:
        found = json.loads(unit_file(world.out, unit).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("hash") == hash_of(unit, world)


def do(unit: Unit, world: World) -> dict[str, Any]:
    """Do a unit as far as it is not done yet, write its file, and return what it says.

    Training, each cell of images and the reading are kept apart, so that a killed unit goes on after the last of
    them, and units of other parts that need the same ones find them. The base model's unit of the same seed and cells
    is done too, for the figures are paired with it.
    """
    part, arm, seed = unit
    with world.lock(f"unit-{hash_of(unit, world)}"):
        if not _is_there(unit, world):
            _do(unit, world)
    if not arm.untouched:  # after its own: another process may be at the base's by now
        do((part, BASE, seed), world)
    return json.loads(unit_file(world.out, unit).read_text(encoding="utf-8"))


def _do(unit: Unit, world: World) -> None:
    part, arm, seed = unit
    training = trained(arm, seed, world) if arm.losses else None
    drawn = {}
    model, network = _model(world, arm, training)
    corrected = correction.correction_of(world, arm.strength, seed, arm.asks)
    if corrected:
        model += f"+{short_hash(correction.described(arm.strength, seed, arm.asks))}"
    for cell in FORMS[part.form]:
        drawn[cell] = generate.drawn(world, model, network, cell, seed, corrected)
    begun = time.process_time()
    content: dict[str, Any] = {
        "part": "base" if arm.untouched else part.name,
        "arm": arm.name,
        "seed": seed,
        "form": part.form,
        "hash": hash_of(unit, world),
        "model": model,
        "settings": _settings(arm, seed),
        "training": {k: v for k, v in training.facts.items() if k != "settings"} if training else {},
        "cells": {
            cell.name: measurements.rows(cell.asked(seed, world.dataset), found) for cell, found in drawn.items()
        },
        "measures": measurements.measures(world, network, drawn, seed),
    }
    if corrected:
        content["measures"]["added time"] = correction.added_time(network(), corrected)
    content["cpu_seconds"] = {
        "training": training.facts["cpu_seconds"] if training else 0.0,
        "drawing": round(sum(found.cpu_seconds for found in drawn.values()), 2),
        "reading": round(time.process_time() - begun, 2),
    }
    content["versions"] = fingerprints.versions()
    write_atomically(unit_file(world.out, unit), json.dumps(content).encode())


def _settings(arm: Arm, seed: int) -> dict[str, Any]:
    """What a unit's file says of how its arm is trained and drawn with."""
    found = arm.described(seed) if arm.losses else {}
    if arm.lora_strength != 1.0:
        found["LoRA strength"] = arm.lora_strength
    if arm.strength:
        found["correction"] = correction.described(arm.strength, seed, arm.asks)
    return found


def _model(world: World, arm: Arm, training: Trained | None) -> tuple[str, Any]:
    """The name that an arm's images lie under, and what gives the model that draws them, made once."""
    if training is None:
        return "base", lambda: world.base

    @lru_cache(maxsize=1)
    def network() -> BaseModel:
        return with_lora(world, arm, training.lora(arm.at))

    share = "" if arm.lora_strength == 1.0 else f"x{arm.lora_strength:g}"
    return f"{training.key}-{arm.at or arm.train.steps}{share}", network
