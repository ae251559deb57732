"""One job: an arm trained with a seed, its images generated and measured, and one JSON file written of it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from ...common import fingerprints
from ...common.errors import UserError
from ...common.files import write_atomically
from ...common.fingerprints import short_hash
from ..engine.store import slug
from . import correction, generate, measurements
from .arms import BASE, Arm, Part
from .grid import FORMS, GUIDANCE
from .training import Trained, World, key_of, trained, with_lora

Job = tuple[Part, Arm, int]


def job_file(out: Path, job: Job) -> Path:
    """Where a job's file lies; the base model's is shared by all parts with the same grid."""
    part, arm, seed = job
    if arm.untouched:
        return out / "units" / "base" / f"{slug(part.form)}-{seed}.json"
    return out / "units" / slug(part.name) / f"{slug(arm.name, '+.')}-{seed}.json"


def hash_of(job: Job, world: World) -> str:
    """16 hex digits of all that decides what a job's file says, its seconds aside."""
    part, arm, seed = job
    cells = [asdict(cell) for cell in FORMS[part.form]]
    sampling = [generate.REVISION, generate.STEPS, arm.guidance, seed, cells]
    if arm.lora_strength != 1.0:
        sampling.append({"LoRA strength": arm.lora_strength})
    if arm.strength:
        sampling.append(correction.described(arm.strength, seed, asks=arm.asks))
    return short_hash([measurements.REVISION, sampling, key_of(arm, seed, world), arm.at, world.facts])


def current(job: Job, world: World) -> dict[str, Any] | None:
    """A job's file if it was made with these settings. Raises UserError, one sentence, for a damaged one."""
    path = job_file(world.out, job)
    try:
        content = json.loads(path.read_bytes())
        whole = isinstance(content["cells"], dict) and isinstance(content["measures"], dict) and "hash" in content
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(
            f"The unit file {path.parent.name}/{path.name} is damaged: remove it and run the same command again, which "
            "writes it anew from what was generated."
        )
    return content if content["hash"] == hash_of(job, world) else None


def finished(job: Job, world: World) -> bool:
    """Whether the job's file and the base model's are there, whole and made with these settings."""
    part, arm, seed = job
    return _is_there(job, world) and (arm.untouched or _is_there((part, BASE, seed), world))


def _is_there(job: Job, world: World) -> bool:
    try:
        return current(job, world) is not None
    except UserError:
        return False


def do(job: Job, world: World) -> dict[str, Any]:
    """Do a job as far as it is not done yet, write its file, and return the content.

    Training, each cell of images and the measuring are kept apart, so that a killed job goes on after the last of
    them, and jobs of other parts that need the same ones find them. The base model's job of the same seed and grid is
    done too, for the metrics are paired with it.
    """
    part, arm, seed = job
    with world.lock(f"unit-{hash_of(job, world)}"):
        if not _is_there(job, world):
            _do(job, world)
    if not arm.untouched:  # after its own: another process may be at the base's by now
        do((part, BASE, seed), world)
    return json.loads(job_file(world.out, job).read_bytes())


def _do(job: Job, world: World) -> None:
    part, arm, seed = job
    training = trained(arm, seed, world) if arm.losses else None
    model, network = _model(world, arm, training)
    corrected = correction.correction_of(world, arm.strength, seed, asks=arm.asks)
    if corrected:
        model += f"+{short_hash(correction.described(arm.strength, seed, asks=arm.asks))}"
    images = {
        cell: generate.generated(world, model, network, cell, seed, corrected, arm.guidance)
        for cell in FORMS[part.form]
    }
    begun = time.process_time()
    content: dict[str, Any] = {
        "part": "base" if arm.untouched else part.name,
        "arm": arm.name,
        "seed": seed,
        "form": part.form,
        "hash": hash_of(job, world),
        "model": model,
        "settings": settings(arm, seed),
        "training": {k: v for k, v in training.facts.items() if k != "settings"} if training else {},
        "cells": {
            cell.name: measurements.rows(cell.requests(seed, world.dataset), own) for cell, own in images.items()
        },
        "measures": measurements.measures(world, network, images, seed),
    }
    if corrected:
        content["measures"]["added time"] = correction.added_time(network(), corrected)
    content["cpu_seconds"] = {
        "training": training.facts["cpu_seconds"] if training else 0.0,
        "drawing": round(sum(own.cpu_seconds for own in images.values()), 2),
        "reading": round(time.process_time() - begun, 2),
    }
    content["versions"] = fingerprints.versions()
    write_atomically(job_file(world.out, job), json.dumps(content).encode())


def settings(arm: Arm, seed: int) -> dict[str, Any]:
    """What a job's file says of how its arm is trained and its images are generated."""
    described = arm.described(seed) if arm.losses else {}
    if arm.lora_strength != 1.0:
        described["LoRA strength"] = arm.lora_strength
    if arm.strength:
        described["correction"] = correction.described(arm.strength, seed, asks=arm.asks)
    if arm.guidance != GUIDANCE:
        described["guidance"] = arm.guidance
    return described


def _model(world: World, arm: Arm, training: Trained | None) -> tuple[str, Any]:
    """The name that an arm's images lie under, and what gives the model that generates them, made once."""
    if training is None:
        return "base", lambda: world.base

    share = "" if arm.lora_strength == 1.0 else f"x{arm.lora_strength:g}"
    name = f"{training.key}-{arm.at or arm.train.steps}{share}"
    return name, cache(lambda: with_lora(world, arm, training.lora(arm.at)))
