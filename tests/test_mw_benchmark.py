"""The mini-world benchmark: estimates and tables by hand, what is compared, and what is kept back."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmark_units import CALDIA, NUVIA, PART, cell, four_arms, write

from comfy_scoft.experiments.engine import estimate
from comfy_scoft.experiments.mini_world import arms, grid, tables
from comfy_scoft.experiments.mini_world.arms import BASE, LDM, MP, MPC, PARTS
from comfy_scoft.experiments.mini_world.job import hash_of, job_file
from comfy_scoft.experiments.mini_world.training import World, key_of
from comfy_scoft.metrics.intervals import paired_share_change, t_interval, wilson_interval
from comfy_scoft.mini_world import world
from comfy_scoft.mini_world.splits import HELD_OUT_KINDS, TRAINED_KINDS

# --- estimates ---


def test_students_interval_by_hand() -> None:
    """.5 and .7: mean .6, deviation .1414, t of one degree of freedom 12.706, so ± 12.706 · .1414 / √2 = 1.2706."""
    found = t_interval([0.5, 0.7])
    assert found.value == pytest.approx(0.6) and found.high - found.value == pytest.approx(1.2706, abs=1e-3)
    assert math.isnan(t_interval([0.5]).low)


def by_seed(values: list[Any]) -> dict[int, Any]:
    return {101 + i: value for i, value in enumerate(values)}


def test_a_share_has_the_wider_of_both_intervals() -> None:
    alike = estimate.share(by_seed([[True, False]] * 4))
    assert (alike.value, alike.low, alike.high) == pytest.approx(wilson_interval(4, 8))
    assert (alike.n, alike.seeds) == (8, 4)
    apart = estimate.share(by_seed([[True] * 50, [False] * 50, [True] * 50]))
    pooled = wilson_interval(100, 150)
    assert apart.high - apart.low > pooled.high - pooled.low and 0.0 <= apart.low and apart.high <= 1.0
    pooled = wilson_interval(539, 540)
    nearly = estimate.share(by_seed([[True] * 108] * 4 + [[True] * 107 + [False]]))
    assert nearly.low <= pooled.low and nearly.high == 1.0, "what both span, cut to what a share can be"
    uneven = estimate.share(by_seed([[True]] * 4 + [[True] * 17 + [False] * 3]))
    assert uneven.low <= uneven.value == 21 / 24 <= uneven.high
    one = estimate.share(by_seed([[True, True, False]]))
    assert (one.value, one.low, one.high) == pytest.approx(wilson_interval(2, 3))


def test_a_change_is_paired_and_has_the_wider_of_both_intervals() -> None:
    before, after = [True, False, False, False], [True, True, True, False]
    found = estimate.share_change(by_seed([before, before]), by_seed([after, after]))
    expected = paired_share_change(before * 2, after * 2)
    assert (found.value, found.low, found.high) == pytest.approx(expected) and found.value == 0.5
    no, yes = [False] * 40, [True] * 40
    apart = estimate.share_change(by_seed([no, yes]), by_seed([yes, no]))  # +1 and −1
    assert (apart.value, apart.low, apart.high) == pytest.approx((0.0, -1.0, 1.0))


def test_the_mean_of_records_sees_both_chances() -> None:
    same = estimate.mean_of_records(by_seed([[0.0, 1.0, 2.0, 3.0]] * 3))  # trainings agree, records differ
    assert same.value == 1.5 and same.low < 1.0 and same.high > 2.0 and same.n == 4
    apart = estimate.mean_of_records(by_seed([[1.0, 1.0], [3.0, 3.0]]))  # records agree, trainings differ: ± 12.706
    assert apart.value == 2.0 and apart.high - 2.0 == pytest.approx(12.706, abs=1e-2)


def test_a_mean_of_pictures_counts_them_all_and_keeps_to_what_it_can_be() -> None:
    found = estimate.mean_of_images(by_seed([[99.0, 100.0], [98.0, 100.0, 99.0]]), (0.0, 100.0))
    assert found.value == pytest.approx(99.2) and (found.n, found.high) == (5, 100.0)
    assert estimate.mean(by_seed([0.1, 0.9]), (0.0, 1.0)) == estimate.Estimate(
        0.5, 0.0, 1.0, 2, 2, {"101": 0.1, "102": 0.9}
    )
    assert math.isnan(estimate.mean(by_seed([0.1]), (0.0, 1.0)).low)


def test_over_kinds_is_students_interval_over_their_means() -> None:
    """.5, .7 and .9: mean .7, deviation .2, t of two degrees of freedom 4.303, so ± 4.303 · .2 / √3 = .4969."""
    found = estimate.mean_of_kinds({"cook": 0.5, "judge": 0.7, "hero": 0.9}, 5, (0.0, 1.0))
    assert (found.value, found.high, found.n, found.seeds) == (pytest.approx(0.7), 1.0, 3, 5)
    assert found.low == pytest.approx(0.2031, abs=1e-3)


# --- tables ---


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    return four_arms(tmp_path)


def test_bias_leakage_and_memorization_by_hand(made_up: Path) -> None:
    found = tables.table(PART, World(made_up))
    assert list(found.arms) == ["base", "LDM", "+M", "+MPC"] and found.missing == ()
    base, ldm, mpc = (found.arms[name].metrics for name in ("base", "LDM", "+MPC"))
    assert base[tables.DARK_HELD_OUT].value == 0.0 and ldm[tables.DARK_HELD_OUT].value == 0.5
    assert mpc[tables.DARK_HELD_OUT].value == 1.0 and mpc[tables.DARK_HELD_OUT].n == 16
    assert ldm[tables.GOLD_HELD_OUT].value == 0.5 and ldm[tables.CONCEPT_HELD_OUT].value == 1.0
    assert ldm[tables.leakage("dark skin", "caldia")].value == 0.5
    assert mpc[tables.leakage("dark skin", "caldia")].value == -0.5
    assert mpc[tables.leakage("own palette", "caldia")].value == -0.5
    assert base[tables.leakage("dark skin", "caldia")].value == 0.0
    # fresh less trained is (1.1 − .7 + 1.1 − .8) / 2 = .35 after and 0 before
    assert ldm[tables.GAP].value == pytest.approx(0.35) and ldm[tables.COPIES].value == 0.25
    assert ldm[tables.SECONDS].value == 60.0 and ldm[tables.SIMILARITY].value == pytest.approx(0.8)
    assert tables.key("own palette", "held-out kinds", "nuvia") not in ldm


def test_the_gap_pairs_each_training_picture_with_the_fresh_ones_of_its_caption() -> None:
    """Fresh images come in rounds over the captions: 1 and 3 are of the first, 2 and 4 of the second."""
    before = {"measures": {"gap": {"train": [1.0, 1.0], "fresh": [1.0, 1.0, 1.0, 1.0]}}}
    after = {"measures": {"gap": {"train": [0.5, 1.0], "fresh": [1.0, 2.0, 3.0, 4.0]}}}
    assert tables.gap_rise(before, after) == [1.5, 2.0]


def test_two_arms_are_compared_picture_by_picture_on_the_seeds_that_both_have(made_up: Path) -> None:
    job_file(made_up, (PART, MPC, 102)).unlink()
    found = tables.table(PART, World(made_up))
    change = found.comparisons["+M", "+MPC"][tables.DARK_HELD_OUT]
    assert (change.value, change.n, change.seeds, change.values) == (0.5, 8, 1, {"101": 0.5})
    assert found.missing == ("+MPC, seed 102",) and set(found.comparisons) == set(PART.compare)


def test_pictures_of_other_noise_are_never_paired(made_up: Path) -> None:
    shifted = [one | {"seed": one["seed"] + 1} for one in cell([0] * 8, "caldia")]
    write(made_up, BASE, 101, {NUVIA: cell([0] * 8, "nuvia"), CALDIA: shifted})
    with pytest.raises(ValueError, match=r"not generated from the same prompts and noise .* run the benchmark again"):
        tables.table(PART, World(made_up))


def test_units_of_other_settings_count_as_missing(made_up: Path) -> None:
    other = replace(PART, arms=(BASE, replace(LDM, optimizer=replace(LDM.optimizer, learning_rate=5e-4))))
    found = tables.table(other, World(made_up))
    assert list(found.arms) == ["base"] and found.missing == ("LDM, seed 101", "LDM, seed 102")


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": {}}', '{"cells": [], "measures": {}, "hash": ""}'])
def test_a_damaged_job_file_is_one_sentence(made_up: Path, text: str) -> None:
    job_file(made_up, (PART, LDM, 101)).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^The unit file ablation/LDM-101.json is damaged: remove it [^.]*\.$"):
        tables.table(PART, World(made_up))


# --- what is compared, and what is kept back ---


def test_the_hash_of_a_unit_follows_its_settings_and_nothing_else(tmp_path: Path) -> None:
    world = World(tmp_path)

    def known(arm: arms.Arm, seed: int = 101, part: arms.Part = PART) -> tuple[str, str]:
        return key_of(arm, seed, world), hash_of((part, arm, seed), world)

    first = known(MPC)
    assert known(replace(MPC, name="another name")) == first
    assert known(MPC, part=replace(PART, name="another part")) == first
    late = known(replace(MPC, at=50))
    assert late[0] == first[0] and late[1] != first[1], "one training, other images"
    lean = known(MPC, part=replace(PART, form="lean"))
    assert lean[0] == first[0] and lean[1] != first[1]
    others = [
        replace(MPC, losses=(*MPC.losses[:2], arms.contrastive(margin=0.06))),
        replace(MPC, rollout=replace(MPC.rollout, steps=11)),
        replace(MPC, lora=replace(MPC.lora, rank=8)),
        replace(MPC, train=replace(MPC.train, steps=240)),
        replace(MPC, optimizer=replace(MPC.optimizer, warmup=0)),
    ]
    keys = [known(other) for other in [MPC, *others]] + [known(MPC, seed=102)]
    assert len({key for key, _ in keys}) == len({unit for _, unit in keys}) == 7
    aside = replace(MPC, train=replace(MPC.train, micro_batch=2))
    assert known(aside) == first, "what decides nothing that is learned"
    assert known(BASE)[1] != hash_of((PART, BASE, 101), World(tmp_path, limit=6)), "other images"


def test_what_settings_are_chosen_by_is_not_what_is_reported() -> None:
    assert not set(grid.TEST_KINDS) & set(grid.DEVELOPMENT_KINDS)
    assert sorted(grid.TEST_KINDS + grid.DEVELOPMENT_KINDS) == sorted(HELD_OUT_KINDS)
    groups = (grid.TEST_SEEDS, grid.DEVELOPMENT_SEEDS, grid.FRESH_SEEDS)
    assert len({seed for group in groups for seed in group}) == sum(map(len, groups))
    assert not set(grid.TEST_PLACES) & set(grid.DEVELOPMENT_PLACES)
    development = grid.FORMS["development"]
    assert {cell.place for cell in development} == {"nuvia", *grid.DEVELOPMENT_PLACES}
    shown = {kind for cell in development for kind in cell.kinds if kind not in TRAINED_KINDS}
    assert shown == set(grid.DEVELOPMENT_KINDS)
    for part in PARTS.values():
        assert set(part.seeds) <= {*grid.TEST_SEEDS, *grid.FRESH_SEEDS}
        asked = {kind for cell in grid.FORMS[part.form] for kind in cell.kinds if cell.what == grid.HELD_OUT}
        assert asked == set(grid.TEST_KINDS)


def test_cells_are_large_shared_by_the_forms_and_paired_by_their_noise(tmp_path: Path) -> None:
    dataset = World(tmp_path).dataset
    full = grid.FORMS["full"]
    for cell_ in full:
        asked = cell_.requests(101, dataset)
        assert len(asked) >= 100 or cell_.what == grid.HOUSES
        assert len({one.seed for one in asked}) == len(asked), "each image has noise of its own"
    assert set(grid.FORMS["lean"]) < set(full) and set(grid.FORMS["taught"]) < set(full)
    here, there = (c.requests(101, dataset) for c in full[:2])
    assert [one.seed for one in here] == [one.seed for one in there]
    assert here[0].prompt == world.caption(grid.TEST_KINDS[0], "nuvia")
    assert not {one.seed for one in here} & {one.seed for one in full[0].requests(102, dataset)}
    trained = next(c for c in full if c.what == grid.TRAINED)
    captions = {record.caption for record in dataset.records}
    assert {one.prompt for one in trained.requests(101, dataset)} <= captions and len(trained.kinds) == 12


def test_parts_have_the_promised_arms_and_no_two_units_share_a_file(tmp_path: Path) -> None:
    assert [arm.name for arm in PARTS["ablation"].arms] == ["base", "LDM", "+M", "+MP", "+MPC"]
    assert len(PARTS["ablation"].seeds) == 5 and len(PARTS["control"].seeds) == 3
    for setting in ("M", "P", "C", "margin"):
        assert sum(arm.name.split(" ")[0] == setting for arm in PARTS["weights"].arms) == 3
    steps = {arm.at for arm in PARTS["along training"].arms}
    assert steps == {50, 100, 150, 200, 250, 300}
    released = {arm.name: dict(arm.losses) for arm in PARTS["released weights"].arms}
    assert released["+MP, released weights"]["perceptual"]["weight"] == 0.05
    assert released["+MPC, released weights"]["contrastive"]["margin"] == 0.2
    every = arms.jobs(tuple(PARTS.values()))
    own = [unit for unit in every if unit[1].losses]
    assert len({job_file(tmp_path, unit) for unit in own}) == len(own)
    world = World(tmp_path)
    assert key_of(MP, 101, world) == key_of(PARTS["control"].arms[0], 101, world), "trained once for both"
