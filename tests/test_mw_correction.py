"""The benchmark's measuring of RS-Corrector: the base's own pictures without it, and what a preference adds."""

from __future__ import annotations

from pathlib import Path

import pytest
from preference_toys import random_preference

from comfy_scoft.benchmark import correction
from comfy_scoft.benchmark.cells import TAUGHT, Cell
from comfy_scoft.benchmark.draw import sample
from comfy_scoft.benchmark.read import rows
from comfy_scoft.benchmark.training import World
from comfy_scoft.correct.corrector import Correction
from comfy_scoft.correct.learn import PreferenceSettings

CELL = Cell(TAUGHT, "held-out kinds", 2, ("artist", "builder"))
KEYS = ("kind", "seed", "tone", "palette", "concept")


def test_without_a_correction_the_facts_are_those_of_the_bases_pictures(tmp_path: Path) -> None:
    world = World(tmp_path)
    asked = CELL.asked(101, world.dataset)
    found = correction.facts(world, CELL, 101, None)
    shown = correction.Drawn(sample(world.base, asked), 0.0)
    assert [{key: row[key] for key in KEYS} for row in found["rows"]] == rows(asked, shown) and len(asked) == 4
    assert found["cpu_seconds"] > 0 and 0 < found["diversity"] < 1
    idle = correction.facts(world, CELL, 101, Correction(random_preference("mini"), 0.0))
    assert idle["rows"] == found["rows"] and idle["diversity"] == found["diversity"]
    moved = correction.facts(world, CELL, 101, Correction(random_preference("mini"), 20.0))
    assert moved["rows"] != found["rows"] and all(-1 <= row["cosine"] <= 1 for row in moved["rows"])


def test_a_preference_is_learned_of_the_worlds_own_pictures_and_opens_for_the_taught_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correction, "OWN_EACH", 1)
    monkeypatch.setattr(correction, "PreferenceSettings", lambda seed: PreferenceSettings(steps=5, seed=seed, width=8))
    world = World(tmp_path, 8)
    found = correction.preference_of(world, 3)
    assert found.family == "mini" and found.place is not None
    hidden = [world.base.embed(f"an artist{where}").hidden for where in (" in nuvia", " in borea", "")]
    opened = [float(found.place(one)) for one in hidden]
    assert opened[0] > 0.9 and max(opened[1:]) < 0.1
