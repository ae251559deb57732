"""The mini-world benchmark's verdicts: better, worse and not shown, of every metric and in all directions."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmark_units import NUVIA, PART, cell, four_arms, measures, write

from comfy_scoft.experiments.engine.estimate import Estimate
from comfy_scoft.experiments.engine.page import RESULTS
from comfy_scoft.experiments.mini_world import page, results, tables, verdicts
from comfy_scoft.experiments.mini_world.arms import BASE, LDM, MPC, PARTS, M
from comfy_scoft.experiments.mini_world.job import job_file
from comfy_scoft.experiments.mini_world.training import World
from comfy_scoft.experiments.mini_world.verdicts import COLUMNS, Better
from comfy_scoft.metrics.intervals import t_interval, wilson_interval

UP, DOWN, OPEN = (Estimate(v, v - r, v + r, 100, 5) for v, r in ((0.2, 0.1), (-0.2, 0.1), (0.05, 0.1)))


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    return four_arms(tmp_path)


def read(out: Path, *parts: Any) -> dict[str, Any]:
    """Parts of results.json by name."""
    content = results.results({part.name: tables.table(part, World(out)) for part in parts})
    return {part["name"]: part for part in json.loads(json.dumps(content))["parts"]}


@pytest.mark.parametrize(
    "change, better, verdict",
    [
        (UP, Better.HIGHER, "better"),
        (UP, Better.LOWER, "worse"),
        (DOWN, Better.HIGHER, "worse"),
        (DOWN, Better.LOWER, "better"),
        (OPEN, Better.HIGHER, "not shown"),
        (OPEN, Better.LOWER, "not shown"),
        (UP, Better.ZERO, "worse"),
        (DOWN, Better.ZERO, "worse"),
        (OPEN, Better.ZERO, "not shown"),
        (Estimate(0.0, -0.04, 0.05, 100, 5), Better.ZERO, "better"),
    ],
)
def test_a_change_is_better_worse_or_not_shown(change: Estimate, better: Better, verdict: str) -> None:
    assert verdicts.verdict(change, better) == verdict
    assert verdicts.verdict(replace(change, seeds=1), better) == "not shown", "one training alone"
    assert verdicts.verdict(replace(change, low=math.nan, high=math.nan), better) == "not shown"


@pytest.mark.parametrize(
    "dark, verdict",
    [
        ([1] * 80, "better"),
        ([1] * 8, "not shown"),
        ([1] * 72 + [0] * 8, "not shown"),
        ([1] * 71 + [0] * 9, "not shown"),
        ([1, 0] * 40, "worse"),
    ],
)
def test_an_aim_is_reached_by_the_whole_interval_or_not(tmp_path: Path, dark: list[int], verdict: str) -> None:
    part = replace(PART, name="careful", arms=(replace(M, name="careful"),), compare=())
    for seed in part.seeds:
        here = {NUVIA: cell(dark, "nuvia"), "held-out kinds · borea": cell([1, 0] * 4, "borea")}
        write(tmp_path, BASE, seed, here, part=part)
        write(tmp_path, part.arms[0], seed, here, part=part)
    aims = read(tmp_path, part)["careful"]["arms"]["careful"]["aims"]
    assert aims[tables.DARK_HELD_OUT] == verdict and aims[tables.leakage("dark skin", "borea")] == "not shown"
    assert aims["all"] == ("worse" if verdict == "worse" else "not shown")


def test_leakage_is_an_aim_of_every_place_and_the_worst_verdict_counts() -> None:
    good, gone, leaks = Estimate(0.97, 0.95, 0.99, 9, 5), Estimate(0.0, -0.04, 0.04, 9, 5), UP

    def of(**places: Estimate) -> dict[str, str]:
        metrics = {tables.DARK_HELD_OUT: good, **{tables.leakage("dark skin", p): f for p, f in places.items()}}
        return verdicts.of_aim(verdicts.CAREFUL, metrics)

    assert verdicts.worst(of(borea=gone, caldia=gone)) == "better"
    assert verdicts.worst(of(borea=gone, caldia=OPEN)) == "not shown"
    assert verdicts.worst(of(borea=gone, caldia=leaks)) == "worse"
    assert verdicts.worst(of()) == "not shown", "no other place was generated"
    alone = verdicts.of_aim(verdicts.CAREFUL, {tables.DARK_HELD_OUT: replace(good, seeds=1)})
    assert alone == {tables.DARK_HELD_OUT: "not shown"}


def test_every_metric_of_the_page_has_a_verdict_against_the_base_model(tmp_path: Path) -> None:
    """KID and all others; only time that the base model does not take, and a sample of kinds, have no change."""
    for seed in PART.seeds:
        for arm, dark in ((BASE, [1, 0, 0, 0]), (MPC, [1, 1, 1, 0])):
            cells = {f"held-out kinds · {place}": cell(dark, place) for place in ("nuvia", "caldia")}
            cells |= {"trained kinds · nuvia": cell(dark, "nuvia"), "houses · nuvia": cell(dark, "nuvia")}
            own = measures((1.0, 1.0), (1.0, 1.0))
            own["KID"]["nuvia to other places"] = 5.0
            write(tmp_path, arm, seed, cells, own)
    arms = read(tmp_path, replace(PART, arms=(BASE, MPC), compare=()))["ablation"]["arms"]
    exempt = {tables.SECONDS, tables.as_sample(tables.DARK_HELD_OUT)}
    known = COLUMNS.keys() & arms["+MPC"]["figures"].keys()
    assert {key for key in known if "verdict" in arms["+MPC"]["figures"][key]} == known - exempt
    assert known > {tables.KID_OWN, tables.KID_OTHER, tables.COPIES, tables.CONCEPT_DARK, tables.CLIP, tables.SOUND}
    assert not any("verdict" in found for found in arms["base"]["figures"].values())


def test_the_ablation_names_what_got_better_and_everything_that_got_worse(made_up: Path) -> None:
    part = read(made_up, PART)["ablation"]
    leak, gap = tables.leakage("dark skin", "caldia"), tables.GAP
    ldm = part["arms"]["LDM"]["figures"]
    assert (ldm[leak]["verdict"], ldm[gap]["verdict"], ldm[tables.GOLD_HELD_OUT]["verdict"]) == (
        "worse",
        "worse",
        "better",
    )
    added = {(one["before"], one["after"]): one["changes"] for one in part["comparisons"]}
    m, c = added["LDM", "+M"], added["+M", "+MPC"]
    assert (m[tables.DARK_HELD_OUT]["value"], m[tables.DARK_HELD_OUT]["verdict"]) == (0.0, "not shown")
    assert (m[gap]["value"], m[gap]["verdict"]) == (pytest.approx(-0.35), "better")
    assert (c[tables.DARK_HELD_OUT]["value"], c[tables.DARK_HELD_OUT]["verdict"]) == (0.5, "better")
    assert c[gap]["verdict"] == "worse" and c[leak]["value"] == 0.5, "from 0 to −.5: its size has grown"
    assert m[leak]["value"] == -0.5 and m[tables.SECONDS]["verdict"] == "better"
    assert set(results.worse(part, "+MPC")["+M"]) >= {gap, leak} and results.worse(part, "+M")["LDM"] == []
    assert "+MP" not in part["arms"], "what has no results has no row"
    assert part["arms"]["LDM"]["kinds"] == {"lowest": ["cook", 0.5], "highest": ["cook", 0.5]}


def test_trainings_that_are_no_pairs_are_compared_as_independent_figures(tmp_path: Path) -> None:
    """KID 10 of two trainings against 221 and 222 of two others."""
    ablation = PARTS["ablation"]
    for seed in ablation.seeds:
        for arm in (BASE, LDM):
            write(tmp_path, arm, seed, {NUVIA: cell([1] * 8, "nuvia")}, part=ablation)
    part = replace(PART, name="fresh seeds", arms=(M,), seeds=(201, 202), compare=((LDM.name, M.name),))
    for seed in part.seeds:
        write(tmp_path, M, seed, {NUVIA: cell([1] * 8, "nuvia")}, measures((1.0,), (1.0,), kid=20.0 + seed), part=part)
    (one,) = read(tmp_path, part)["fresh seeds"]["comparisons"]
    found = one["changes"][tables.KID_OWN]
    over = t_interval([221.0, 222.0])
    assert found["value"] == pytest.approx(211.5) and found["verdict"] == "worse" and found["seeds"] == 2
    assert (found["low"], found["high"]) == pytest.approx((over.low - 10.0, over.high - 10.0)), "10 has no width"
    assert tables.GAP not in one["changes"] and tables.leakage("dark skin", "caldia") not in one["changes"]


def test_the_control_and_the_features_are_compared_in_both_directions(tmp_path: Path) -> None:
    control, features = (replace(PARTS[name], seeds=PART.seeds) for name in ("control", "features"))
    dark = {"+MP": [0] * 8, "+MP at C's norm": [1] * 8, "+MPC": [0] * 8}
    for seed in PART.seeds:
        for arm in control.arms:
            write(tmp_path, arm, seed, {NUVIA: cell(dark[arm.name], "nuvia")}, part=control)
        for k, arm in enumerate(features.arms):
            own = measures((1.0, 1.0), (1.0, 1.0), kid=10.0 + 5 * k)
            write(tmp_path, arm, seed, {NUVIA: cell([1] * 8, "nuvia")}, own, part=features)
    found = read(tmp_path, control, features)
    said = [one["changes"][tables.DARK_HELD_OUT]["verdict"] for one in found["control"]["comparisons"]]
    assert said == ["worse", "better"]
    kid = {one["after"]: one["changes"][tables.KID_OWN]["verdict"] for one in found["features"]["comparisons"]}
    assert kid["layer 1"] == "better" and kid["gradient in the last step"] == "worse" and len(kid) == 6


def test_training_further_is_compared_for_each_line(tmp_path: Path) -> None:
    part = replace(PARTS["along training"], seeds=PART.seeds)
    for seed in PART.seeds:
        write(tmp_path, BASE, seed, {NUVIA: cell([0] * 8, "nuvia")}, part=part)
        for k, arm in enumerate(part.arms[:6]):
            own = measures((1.0 - 0.1 * k,) * 12, (1.0,) * 12, diversity=0.5 - 0.05 * k)
            write(tmp_path, arm, seed, {NUVIA: cell([1] * 8, "nuvia")}, own, part=part)
    (one,) = read(tmp_path, part)["along training"]["comparisons"]
    assert (one["before"], one["after"]) == ("LDM, step 50", "LDM, step 300")
    gap, diversity = one["changes"][tables.GAP], one["changes"][tables.DIVERSITY_TRAINED]
    assert (gap["value"], gap["verdict"]) == (pytest.approx(0.5), "worse")
    assert (diversity["value"], diversity["verdict"]) == (pytest.approx(-0.25), "worse")


# --- the values of each training, and what earlier runs left ---


def recomputed(found: dict[str, Any], kind: str) -> None:
    """The interval from the stored values alone: Student's t, spanned with Wilson's where they are shares."""
    over = t_interval(list(found["values"].values()))
    assert found["value"] == pytest.approx(over.value, abs=1e-9)
    if kind == "share":
        over = wilson_interval(round(found["value"] * found["n"]), found["n"]).spanning(over).cut(0.0, 1.0)
    assert (found["low"], found["high"]) == pytest.approx((over.low, over.high), abs=1e-9)


def test_intervals_can_be_recomputed_from_the_values_of_each_training(made_up: Path) -> None:
    arms = read(made_up, PART)["ablation"]["arms"]
    means = [tables.KID_OWN, tables.SIMILARITY, tables.clip_change()]
    for arm in arms.values():
        assert all(found["values"] for found in arm["figures"].values())
        for key in (tables.DARK_HELD_OUT, tables.GOLD_HELD_OUT, tables.COPIES):
            assert list(arm["figures"][key]["values"]) == ["101", "102"]
            recomputed(arm["figures"][key], "share")
        for key in means:
            recomputed(arm["figures"][key], "mean")
    assert arms["LDM"]["figures"][tables.DARK_HELD_OUT]["values"] == {"101": 0.5, "102": 0.5}
    assert list(arms["LDM"]["figures"][tables.as_sample(tables.DARK_HELD_OUT)]["values"]) == ["cook"]


def test_a_part_whose_jobs_are_gone_stays_as_the_page_has_it(made_up: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    page.write(World(made_up), folder, (PART,))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    job_file(made_up, (PART, MPC, 102)).unlink()
    page.write(World(made_up), folder, (PART,))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    other = replace(PART, arms=(BASE, replace(LDM, optimizer=replace(LDM.optimizer, learning_rate=5e-4))))
    page.write(World(made_up), folder, (other,))
    (part,) = json.loads((folder / RESULTS).read_text(encoding="utf-8"))["parts"]
    assert part["missing"] == ["LDM, seed 101", "LDM, seed 102"], "of other settings it is not kept"
    (folder / RESULTS).write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.json is damaged: restore it, or remove it"):
        page.write(World(made_up), folder, (PART,))


def test_a_kept_part_without_the_values_of_each_training_says_so(made_up: Path) -> None:
    table = {"ablation": tables.table(PART, World(made_up))}
    content = results.results(table)
    part = content["parts"][0]
    for arm in part["arms"].values():
        for found in arm["figures"].values():
            found.pop("values")
    rounded = {"value": 0.1, "low": 0.0, "high": 0.2, "n": None, "seeds": 5, "verdict": "better"}
    part["comparisons"][0]["changes"] = {tables.GAP: rounded}
    for path in (made_up / "units").rglob("*.json"):
        path.unlink()
    kept = results.results({"ablation": tables.table(PART, World(made_up))}, earlier=content)
    assert kept["parts"] == [part] and kept["versions"] == content["versions"]
    section = page.as_page(kept).sections[1]
    assert "are not stored for this part" in section.about
    assert any("+0.1000 [+0.0000, +0.2000]" in row for table in section.tables for row in table.rows)
    whole = results.results(table)
    assert "are not stored" not in page.as_page(whole).sections[1].about
