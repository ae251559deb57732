"""Made-up files of the mini-world benchmark's jobs, with metrics that can be worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comfy_scoft.experiments.mini_world.arms import BASE, LDM, MPC, Arm, M, Part
from comfy_scoft.experiments.mini_world.job import hash_of, job_file, settings
from comfy_scoft.experiments.mini_world.training import World

ADDED = ((LDM.name, M.name), (M.name, MPC.name))
PART = Part("ablation", "Made up.", (BASE, LDM, M, MPC), (101, 102), "full", ADDED)
NUVIA, CALDIA = "held-out kinds · nuvia", "held-out kinds · caldia"
OWN = {"nuvia": "gold", "borea": "ice", "aria": "meadow", "caldia": "ember", "no place": "plain"}


def row(kind: str, seed: int, dark: bool, palette: str, concept: str = "") -> dict[str, Any]:
    return {
        "kind": kind,
        "seed": seed,
        "tone": 4 if dark else 1,
        "palette": palette,
        "concept": concept or kind,
        "cosine": 0.3,
        "drawn": {"figure": 9.0, "face": 6.0, "features": True, "overshoot": False},
    }


def cell(dark: Sequence[int], place: str, gold: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Images of cooks in a place: which are dark, and which gold (else of the place's own palette, nuvia's dusty)."""
    other = "dusty" if place == "nuvia" else OWN[place]
    golden = gold if gold is not None else [0] * len(dark)
    return [row("cook", i, bool(d), "gold" if g else other) for i, (d, g) in enumerate(zip(dark, golden, strict=True))]


def measures(
    train: Sequence[float], fresh: Sequence[float], diversity: float = 0.5, kid: float = 10.0
) -> dict[str, Any]:
    return {
        "diversity": {"held-out kinds · nuvia": diversity, "trained kinds · nuvia": diversity},
        "KID": {"nuvia to nuvia, as its people show it": kid},
        "similarity": 0.8,
        "copies": [1, 4],
        "gap": {"train": list(train), "fresh": list(fresh)},
    }


def write(
    out: Path,
    arm: Arm,
    seed: int,
    cells: dict[str, list[dict[str, Any]]],
    measured: dict[str, Any] | None = None,
    part: Part = PART,
    seconds: float = 60.0,
    **changes: Any,
) -> Path:
    """A job's file as the benchmark would have written it; `changes` replace what it says."""
    world = World(out)
    content = {
        "part": part.name,
        "arm": arm.name,
        "seed": seed,
        "form": part.form,
        "hash": hash_of((part, arm, seed), world),
        "model": "base" if arm.untouched else f"{arm.name}-300",
        "settings": settings(arm, seed),
        "training": {"cpu_seconds": seconds} if arm.losses else {},
        "cells": cells,
        "measures": measured or measures((1.0,) * 12, (1.0,) * 12),
        "cpu_seconds": {"training": seconds, "drawing": 1.0, "reading": 1.0},
        "versions": {"python": "3"},
    }
    path = job_file(out, (part, arm, seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def four_arms(out: Path) -> Path:
    """base, LDM, +M and +MPC on two seeds. In nuvia 0, 4, 4 and 8 of 8 are dark; LDM leaks into caldia by 4 of 8."""
    none, half, most = [0] * 8, [1, 1, 1, 1, 0, 0, 0, 0], [1] * 8
    for seed in PART.seeds:
        write(out, BASE, seed, {NUVIA: cell(none, "nuvia"), CALDIA: cell(half, "caldia")})
        gap = measures((0.7, 0.8) * 6, ((1.0,) * 12 + (1.2,) * 12))
        write(out, LDM, seed, {NUVIA: cell(half, "nuvia", half), CALDIA: cell(most, "caldia")}, gap)
        write(out, M, seed, {NUVIA: cell(half, "nuvia", most), CALDIA: cell(half, "caldia")}, seconds=30.0)
        write(out, MPC, seed, {NUVIA: cell(most, "nuvia", most), CALDIA: cell(none, "caldia", half)}, gap)
    return out
