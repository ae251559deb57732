"""The mini-world benchmark's reading: better, worse and not shown, in all directions."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_units import NUVIA, PART, cell, four_arms, measures, write

from comfy_scoft.experiments.mini_world import aims, conclusions, sentences, summary, tables
from comfy_scoft.experiments.mini_world.arms import BASE, PARTS, M
from comfy_scoft.experiments.mini_world.figures import Figure
from comfy_scoft.experiments.mini_world.training import World

UP, DOWN, OPEN = (Figure(v, v - r, v + r, 100, 5) for v, r in ((0.2, 0.1), (-0.2, 0.1), (0.05, 0.1)))


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    return four_arms(tmp_path)


@pytest.mark.parametrize(
    "change, more_is_better, verdict, words",
    [
        (UP, True, "better", "by +0.20 [+0.10, +0.30]."),
        (UP, False, "worse", "by +0.20 [+0.10, +0.30]."),
        (DOWN, True, "worse", "by -0.20 [-0.30, -0.10]."),
        (DOWN, False, "better", "by -0.20 [-0.30, -0.10]."),
        (OPEN, True, "not shown", "by +0.05 [-0.05, +0.15]: the interval holds 0, so no difference is shown."),
        (OPEN, False, "not shown", "by +0.05 [-0.05, +0.15]: the interval holds 0, so no difference is shown."),
    ],
)
def test_a_change_is_better_worse_or_not_shown(change: Figure, more_is_better: bool, verdict: str, words: str) -> None:
    found = sentences.change_sentence("C", "dark skin", change, more_is_better)
    assert found.verdict == verdict and found.text == f"C changes dark skin {words}"


def test_a_change_without_an_interval_shows_nothing() -> None:
    found = sentences.change_sentence("C", "diversity", Figure(0.4, math.nan, math.nan, 9, 1), True)
    assert found.verdict == "not shown" and found.text.endswith("by +0.40 (one training, no interval).")


def test_one_training_alone_shows_no_difference() -> None:
    found = sentences.change_sentence("C", "dark skin", Figure(0.4, 0.2, 0.6, 108, 1), True)
    assert (found.verdict, found.text) == ("not shown", "C changes dark skin by +0.40 [+0.20, +0.60] (one training).")
    assert aims.reached(Figure(0.97, 0.92, 0.99, 108, 1), 0.9) == ("reached by one training", "not shown")
    assert aims.reached(Figure(0.5, 0.4, 0.6, 108, 1), 0.9) == ("not reached by one training", "not shown")
    assert leaks("dark skin", {"borea": Figure(0.4, 0.3, 0.5, 108, 1)}).verdict == "not shown"
    assert leaks("dark skin", {"borea": Figure(0.0, -0.04, 0.04, 108, 1)}).verdict == "not shown"


def leaks(fact: str, own: dict[str, Figure]) -> sentences.Sentence:
    return aims.leaks("LDM", fact, aims.judged(own))


def test_every_place_that_leaks_or_may_leak_is_named() -> None:
    own = {
        "borea": Figure(0.2, 0.1, 0.3, 100, 5),
        "aria": Figure(-0.2, -0.3, -0.06, 100, 5),
        "caldia": Figure(0.0, -0.08, 0.08, 100, 5),
        "no place": Figure(0.0, -0.04, 0.04, 100, 5),
    }
    found = leaks("dark skin", own)
    assert found.verdict == "worse"
    assert found.text == (
        "LDM: dark skin leaks into borea +0.20 [+0.10, +0.30], aria -0.20 [-0.30, -0.06]; is not shown to leave alone "
        "caldia +0.00 [-0.08, +0.08] (within ±0.05 in no place)."
    )
    unsure = leaks("dark skin", {"caldia": own["caldia"]})
    assert unsure.verdict == "not shown" and "leaks into" not in unsure.text
    clean = leaks("dark skin", {"no place": own["no place"]})
    assert (clean.verdict, clean.text) == (
        "better",
        "LDM: no leakage of dark skin into no place: every interval lies within ±0.05.",
    )
    palette = {"caldia": Figure(-0.19, -0.27, -0.11, 100, 5)}
    assert "own palette changes in caldia -0.19" in leaks("own palette", palette).text
    assert leaks("dark skin", {"borea": Figure(0.01, math.nan, math.nan, 9, 1)}).verdict == "not shown"


def test_the_ablation_is_read_with_what_is_unflattering(made_up: Path) -> None:
    found = conclusions.read({"ablation": tables.table(PART, World(made_up))})["ablation"]
    said = {sentence.text: sentence.verdict for sentence in found}
    assert any(t.startswith("LDM: dark skin leaks into caldia +0.50") and v == "worse" for t, v in said.items())
    assert any(
        t.startswith("M (LDM → +M) changes dark skin in nuvia on held-out kinds by +0.00") and v == "not shown"
        for t, v in said.items()
    )
    assert any(
        t.startswith("C (+M → +MPC) changes dark skin in nuvia on held-out kinds by +0.50") and v == "better"
        for t, v in said.items()
    )
    memorized = [v for t, v in said.items() if t.startswith("M (LDM → +M) changes the memorization gap by -0.35")]
    assert memorized == ["better"]
    assert any(t.startswith("C (+M → +MPC) changes the memorization gap by +0.35") for t, v in said.items())
    assert "Training took from 30 (+M) to 60 CPU seconds (LDM)." in said
    assert not any("+MP " in text for text in said), "what has no results is not spoken of"


def test_the_head_of_the_page_says_what_is_better_worse_and_not_shown(made_up: Path) -> None:
    said = {s.text: s.verdict for s in summary.in_short({"ablation": tables.table(PART, World(made_up))})}
    first, *rest = said
    assert first.startswith("Dark skin in nuvia, on kinds of people that were never trained: 0.00 [0.00, 0.19] before")
    assert "from 0.50 [0.28, 0.72] with LDM to 1.00 [0.81, 1.00] with +MPC" in first
    assert any(t.startswith("Corrects more of it when added: C (+M → +MPC, +0.50") for t in rest)
    assert any(t.startswith("Not shown to correct more or less of it when added: M (LDM → +M, +0.00") for t in rest)
    assert said["Dark skin leaks beyond ±0.05: LDM into caldia; +MPC into caldia."] == "worse"
    assert any(t.startswith("M lowers the memorization gap (-0.35") and v == "better" for t, v in said.items())
    assert not any("Within ±0.05" in text for text in said), "+M's interval is wide"


@pytest.mark.parametrize(
    "dark, words, verdict",
    [
        ([1] * 80, "reached by the whole interval", "better"),
        ([1] * 8, "reached on average, not by the whole interval", "not shown"),
        ([1] * 72 + [0] * 8, "reached on average, not by the whole interval", "not shown"),
        ([1] * 71 + [0] * 9, "not reached on average, but within the interval", "not shown"),
        ([1, 0] * 40, "not reached", "worse"),
    ],
)
def test_the_aim_of_the_careful_part_is_said_to_be_reached_or_not(
    tmp_path: Path, dark: list[int], words: str, verdict: str
) -> None:
    part = replace(PART, name="careful", arms=(replace(M, name="careful"),))
    for seed in part.seeds:
        here = {NUVIA: cell(dark, "nuvia"), "held-out kinds · borea": cell([1, 0] * 4, "borea")}
        write(tmp_path, BASE, seed, here, part=part)
        write(tmp_path, part.arms[0], seed, here, part=part)
    found = conclusions.read({"careful": tables.table(part, World(tmp_path))})["careful"]
    assert found[0].verdict == verdict and f"the aim of 0.90 is {words}." in found[0].text
    assert any("borea (looked at when settings were chosen)" in sentence.text for sentence in found)
    short = summary.in_short({"careful": tables.table(part, World(tmp_path))})
    assert [s.verdict for s in short] == ["worse" if verdict == "worse" else "not shown"]
    assert f"aim 0.90 {words}; not shown to leave alone borea; CLIPScore +0.0" in short[0].text


def test_the_control_and_the_features_are_read_in_both_directions(tmp_path: Path) -> None:
    control, features = (replace(PARTS[name], seeds=PART.seeds) for name in ("control", "features"))
    dark = {"+MP": [0] * 8, "+MP at C's norm": [1] * 8, "+MPC": [0] * 8}
    for seed in PART.seeds:
        for arm in control.arms:
            write(tmp_path, arm, seed, {NUVIA: cell(dark[arm.name], "nuvia")}, part=control)
        for k, arm in enumerate(features.arms):
            own = measures((1.0, 1.0), (1.0, 1.0), kid=10.0 + 5 * k)
            write(tmp_path, arm, seed, {NUVIA: cell([1] * 8, "nuvia")}, own, part=features)
    world = World(tmp_path)
    found = conclusions.read({"control": tables.table(control, world), "features": tables.table(features, world)})
    assert [s.verdict for s in found["control"]] == ["worse", "better"]
    assert "C's direction, against P pushed equally hard, changes dark skin" in found["control"][0].text
    assert found["features"][0].text.startswith("Nearest to the community's own images by KID: layer 1, 10")
    first, last = (next(s for s in found["features"] if s.text.startswith(n)) for n in ("Layer 1", "Gradient"))
    assert first.verdict == "better" and last.verdict == "worse"


def test_training_further_is_read_for_each_line(tmp_path: Path) -> None:
    part = replace(PARTS["along training"], seeds=PART.seeds)
    for seed in PART.seeds:
        write(tmp_path, BASE, seed, {NUVIA: cell([0] * 8, "nuvia")}, part=part)
        for k, arm in enumerate(part.arms[:6]):
            own = measures((1.0 - 0.1 * k,) * 12, (1.0,) * 12, diversity=0.5 - 0.05 * k)
            write(tmp_path, arm, seed, {NUVIA: cell([1] * 8, "nuvia")}, own, part=part)
    found = conclusions.read({"along training": tables.table(part, World(tmp_path))})["along training"]
    assert [s.verdict for s in found] == ["worse", "worse"]
    assert "LDM, from step 50 to 300: further training changes the memorization gap by +0.5000" in found[0].text
    assert "changes diversity on trained captions by -0.250" in found[1].text
