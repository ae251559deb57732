"""RS-Corrector in the benchmark: its arms' images, the preference of each seed, the time it adds, and the reading."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmark_units import cell, measures, write
from preference_toys import random_preference

from comfy_scoft.corrector.corrector import Correction
from comfy_scoft.corrector.training import PreferenceSettings
from comfy_scoft.experiments.mini_world import correction, job, page, results, tables
from comfy_scoft.experiments.mini_world.arms import BASE, LDM, PARTS, Arm, Part
from comfy_scoft.experiments.mini_world.generate import sample
from comfy_scoft.experiments.mini_world.grid import TAUGHT, Cell
from comfy_scoft.experiments.mini_world.training import World, key_of

CELL = Cell(TAUGHT, "held-out kinds", 2, ("artist", "builder"))
NUVIA, CALDIA = "held-out kinds · nuvia", "held-out kinds · caldia"
STRONG = Arm("corrected, strength 20", strength=20.0)
PART = Part("corrector", "Made up.", (STRONG,), (101, 102), "full")


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preferences that are learned in a moment."""
    monkeypatch.setattr(correction, "OWN_EACH", 1)
    monkeypatch.setattr(correction, "PreferenceSettings", lambda seed: PreferenceSettings(steps=5, seed=seed, width=8))


@pytest.mark.long
def test_an_idle_correction_draws_the_bases_pictures_and_a_strong_one_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    requests = CELL.requests(101, world.dataset)
    plain = sample(world.base, requests)
    idle = sample(world.base, requests, Correction(random_preference("mini"), 0.0))
    moved = sample(world.base, requests, Correction(random_preference("mini"), 20.0))
    assert np.array_equal(plain, idle) and (plain.astype(int) - moved).any(axis=(1, 2, 3)).all()


def test_a_preference_is_learned_once_of_the_worlds_own_pictures_and_opens_for_the_taught_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    world = World(tmp_path, 8)
    found = correction.preference_of(world, 3)
    assert found.family == "mini" and found.place is not None
    hidden = [world.base.embed(f"an artist{where}").hidden for where in (" in nuvia", " in borea", "")]
    opened = [float(found.place(one)) for one in hidden]
    assert opened[0] > 0.9 and max(opened[1:]) < 0.1
    asking, blind = (correction.correction_of(world, 3.0, 3, asks=asks) for asks in (True, False))
    assert asking is not None and blind is not None
    assert asking.preference.place is not None and blind.preference.place is None and blind.strength == 3.0
    monkeypatch.setattr(correction, "learned", None)
    again = correction.preference_of(World(tmp_path, 8), 3)
    assert all((a == b).all() for a, b in zip(again.head.parameters(), found.head.parameters(), strict=True))


@pytest.mark.long
def test_a_corrected_unit_is_drawn_apart_from_the_base_and_paired_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    monkeypatch.setitem(job.FORMS, "tiny", (CELL, replace(CELL, place="caldia", each=1)))
    monkeypatch.setattr(correction, "ROUNDS", 1)
    monkeypatch.setattr(correction, "BATCH", 2)
    part = replace(PART, form="tiny", seeds=(101,))
    world = World(tmp_path, 8)
    content = job.do((part, STRONG, 101), world)
    base = json.loads(job.job_file(tmp_path, (part, BASE, 101)).read_text(encoding="utf-8"))
    assert base["model"] == "base" and content["model"].startswith("base+") and content["training"] == {}
    assert content["settings"]["correction"]["strength"] == 20.0 and base["settings"] == {}
    assert content["measures"]["added time"] > -1 and "added time" not in base["measures"]
    assert content["measures"]["gap"] == base["measures"]["gap"], "the model is the base's own"
    assert content["cells"][NUVIA] != base["cells"][NUVIA]
    assert all(-1 <= row["cosine"] <= 1 for row in content["cells"][NUVIA])
    found = tables.table(part, world).arms[STRONG.name].metrics
    assert tables.ADDED_TIME in found and tables.SECONDS not in found and tables.leakage("dark skin", "caldia") in found


def test_the_strength_and_what_is_asked_decide_a_unit_and_not_a_training(tmp_path: Path) -> None:
    world = World(tmp_path)
    arms = [LDM, *(replace(LDM, strength=strength) for strength in (2.5, 3.0)), replace(LDM, strength=3.0, asks=False)]
    assert len({key_of(arm, 101, world) for arm in arms}) == 1
    assert len({job.hash_of((PART, arm, 101), world) for arm in (*arms, BASE, STRONG)}) == 6
    assert BASE.untouched and not STRONG.untouched and not LDM.untouched
    assert len(PARTS["corrector"].seeds) == 5 and any(arm.losses for arm in PARTS["corrector"].arms)


def test_a_weaker_lora_is_another_unit_of_the_same_training(tmp_path: Path) -> None:
    world = World(tmp_path)
    whole, weaker = (replace(STRONG, losses=LDM.losses, lora_strength=share) for share in (1.0, 0.9))
    assert key_of(whole, 101, world) == key_of(weaker, 101, world)
    assert job.hash_of((PART, whole, 101), world) != job.hash_of((PART, weaker, 101), world)


def test_what_a_lora_and_a_correction_do_together_is_read_with_its_price(tmp_path: Path) -> None:
    part = replace(PARTS["combined"], seeds=PART.seeds)
    arm, other, _ = part.arms
    for seed in PART.seeds:
        write(tmp_path, BASE, seed, {NUVIA: cell([0] * 8, "nuvia")}, part=part)
        for made, dark in ((arm, [1] * 8), (other, [1, 0] * 4)):
            shown = [one | {"cosine": 0.27} for one in cell(dark, "nuvia")]
            write(tmp_path, made, seed, {NUVIA: shown}, part=part)
    content = results.results({"combined": tables.table(part, World(tmp_path))})
    arms = content["parts"][0]["arms"]
    assert [arms[own.name]["aims"][tables.DARK_HELD_OUT] for own in (arm, other)] == ["not shown", "worse"]
    aims = page.as_page(content).sections[0].tables[-1]
    assert aims.title == "The aims" and [row[0] for row in aims.rows] == [arm.name, other.name]
    for row in aims.rows:
        cells = dict(zip(aims.headings, row, strict=True))
        assert cells["CLIPScore, change in %"] == "-10.0 [-10.0, -10.0]" and "✗" in row
        assert cells["worse than base"] == "CLIPScore, change in %"
    shown = dict(zip(aims.headings, aims.rows[0], strict=True))["dark skin"]
    assert shown.startswith("1.00 [0.81, 1.00], aim 0.90 (as a sample") or shown == "1.00 [0.81, 1.00], aim 0.90"
    assert any("gold palette, held-out kinds" in table.headings for table in page.part_tables(content["parts"][0]))


def test_concept_by_tone_and_clip_score_by_hand(tmp_path: Path) -> None:
    """6 of 8 are dark, of which 3 show a cook, as 1 of the 2 light ones does; the cosine falls from .3 to .27."""
    shown = [one | {"cosine": 0.27} for one in cell([1, 1, 1, 1, 1, 1, 0, 0], "nuvia")]
    for i in (0, 1, 2, 6):
        shown[i]["concept"] = "farmer"
    for seed in PART.seeds:
        write(tmp_path, BASE, seed, {NUVIA: cell([0] * 8, "nuvia")}, part=PART)
        write(
            tmp_path, STRONG, seed, {NUVIA: shown}, measures((1.0,) * 12, (1.0,) * 12) | {"added time": 0.2}, part=PART
        )
    part = tables.table(PART, World(tmp_path))
    found = part.arms[STRONG.name].metrics
    assert (found[tables.CONCEPT_DARK].value, found[tables.CONCEPT_DARK].n) == (0.5, 12)
    assert (found[tables.CONCEPT_LIGHT].value, found[tables.CONCEPT_LIGHT].n) == (0.5, 4)
    assert found[tables.CLIP].value == pytest.approx(27.0)
    assert found[tables.clip_change()].value == pytest.approx(-10.0)
    content = results.results({"corrector": part})
    aims = content["parts"][0]["arms"][STRONG.name]["aims"]
    assert aims == {
        tables.DARK_HELD_OUT: "not shown",
        tables.clip_change(): "worse",
        tables.ADDED_TIME: "better",
        "all": "worse",
    }, "its aim for CLIPScore is missed; no other place was generated"
    row = page.as_page(content).sections[0].tables[-1].rows[0]
    assert row[0] == STRONG.name and "aim 0.70" in row[1] and row[3] == "–", "leakage is not shown to be gone"


def test_a_group_that_no_picture_belongs_to_has_no_figure(tmp_path: Path) -> None:
    for seed in PART.seeds:
        write(tmp_path, BASE, seed, {NUVIA: cell([0] * 8, "nuvia"), CALDIA: cell([1] * 8, "caldia")}, part=PART)
        write(tmp_path, STRONG, seed, {NUVIA: cell([1] * 8, "nuvia"), CALDIA: cell([1] * 8, "caldia")}, part=PART)
    found = tables.table(PART, World(tmp_path)).arms[STRONG.name].metrics
    assert tables.CONCEPT_LIGHT not in found and found[tables.CONCEPT_DARK].value == 1.0
