"""The mini-world benchmark: figures by hand, the reading's rules in all directions, the page, and what is kept back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_units import PART, cell, measures, write

from comfy_scoft.benchmark import arms, cells, figures, page, reading, render, summary, tables
from comfy_scoft.benchmark.arms import BASE, LDM, MP, MPC, PARTS, M
from comfy_scoft.benchmark.cli import chosen, main
from comfy_scoft.benchmark.figures import Figure
from comfy_scoft.benchmark.training import World, key_of
from comfy_scoft.benchmark.unit import hash_of, unit_file
from comfy_scoft.mini import world
from comfy_scoft.mini.splits import HELD_OUT_KINDS, TRAINED_KINDS
from comfy_scoft.statistics import paired_share_change, wilson_interval

NUVIA, CALDIA = "held-out kinds · nuvia", "held-out kinds · caldia"


# --- figures ---


def test_students_interval_by_hand() -> None:
    """.5 and .7: mean .6, deviation .1414, t of one degree of freedom 12.706, so ± 12.706 · .1414 / √2 = 1.2706."""
    found = figures.t_interval([0.5, 0.7])
    assert found.value == pytest.approx(0.6) and found.high - found.value == pytest.approx(1.2706, abs=1e-3)
    assert math.isnan(figures.t_interval([0.5]).low)


def test_a_share_has_the_wider_of_both_intervals() -> None:
    alike = figures.share([[True, False]] * 4)
    assert (alike.value, alike.low, alike.high) == pytest.approx(wilson_interval(4, 8))
    assert (alike.n, alike.seeds) == (8, 4)
    apart = figures.share([[True] * 50, [False] * 50, [True] * 50])
    pooled = wilson_interval(100, 150)
    assert apart.high - apart.low > pooled.high - pooled.low and 0.0 <= apart.low and apart.high <= 1.0
    one = figures.share([[True, True, False]])
    assert (one.value, one.low, one.high) == pytest.approx(wilson_interval(2, 3))


def test_a_change_is_paired_and_has_the_wider_of_both_intervals() -> None:
    before, after = [True, False, False, False], [True, True, True, False]
    found = figures.change([before, before], [after, after])
    expected = paired_share_change(before * 2, after * 2)
    assert (found.value, found.low, found.high) == pytest.approx(expected) and found.value == 0.5
    apart = figures.change([[False] * 40, [True] * 40], [[True] * 40, [False] * 40])  # +1 and −1
    assert (apart.value, apart.low, apart.high) == pytest.approx((0.0, -1.0, 1.0))


def test_the_mean_of_records_sees_both_chances() -> None:
    same = figures.mean_of_records([[0.0, 1.0, 2.0, 3.0]] * 3)  # trainings agree, records differ
    assert same.value == 1.5 and same.low < 1.0 and same.high > 2.0 and same.n == 4
    apart = figures.mean_of_records([[1.0, 1.0], [3.0, 3.0]])  # records agree, trainings differ: ± 12.706
    assert apart.value == 2.0 and apart.high - 2.0 == pytest.approx(12.706, abs=1e-2)


# --- tables ---


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """base, LDM, +M and +MPC on two seeds. In nuvia 0, 4, 4 and 8 of 8 are dark; LDM leaks into caldia by 4 of 8."""
    none, half, most = [0] * 8, [1, 1, 1, 1, 0, 0, 0, 0], [1] * 8
    for seed in PART.seeds:
        write(tmp_path, BASE, seed, {NUVIA: cell(none, "nuvia"), CALDIA: cell(half, "caldia")})
        gap = measures((0.7, 0.8), (1.0, 1.0, 1.2, 1.2))
        write(tmp_path, LDM, seed, {NUVIA: cell(half, "nuvia", half), CALDIA: cell(most, "caldia")}, gap)
        write(tmp_path, M, seed, {NUVIA: cell(half, "nuvia", most), CALDIA: cell(half, "caldia")}, seconds=30.0)
        write(tmp_path, MPC, seed, {NUVIA: cell(most, "nuvia", most), CALDIA: cell(none, "caldia", half)}, gap)
    return tmp_path


def test_bias_leakage_and_memorisation_by_hand(made_up: Path) -> None:
    found = tables.table(PART, World(made_up))
    assert list(found.arms) == ["base", "LDM", "+M", "+MPC"] and found.missing == ()
    base, ldm, mpc = (found.arms[name].figures for name in ("base", "LDM", "+MPC"))
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
    """Fresh pictures come in rounds over the captions: 1 and 3 are of the first, 2 and 4 of the second."""
    before = {"measures": {"gap": {"train": [1.0, 1.0], "fresh": [1.0, 1.0, 1.0, 1.0]}}}
    after = {"measures": {"gap": {"train": [0.5, 1.0], "fresh": [1.0, 2.0, 3.0, 4.0]}}}
    assert tables.gap_rise(before, after) == [1.5, 2.0]


def test_two_arms_are_compared_picture_by_picture_on_the_seeds_that_both_have(made_up: Path) -> None:
    unit_file(made_up, (PART, MPC, 102)).unlink()
    found = tables.table(PART, World(made_up))
    pairs = tables.compared(found, "LDM", "+MPC")
    assert pairs is not None and [after["seed"] for _, after in pairs] == [101]
    change = tables.changed(pairs, "dark skin", NUVIA)
    assert change is not None and (change.value, change.n, change.seeds) == (0.5, 8, 1)
    assert found.missing == ("+MPC, seed 102",) and tables.compared(found, "LDM", "+MP") is None


def test_pictures_of_other_noise_are_never_paired(made_up: Path) -> None:
    shifted = [one | {"seed": one["seed"] + 1} for one in cell([0] * 8, "caldia")]
    write(made_up, BASE, 101, {NUVIA: cell([0] * 8, "nuvia"), CALDIA: shifted})
    with pytest.raises(ValueError, match=r"not drawn from the same prompts and noise .* run the benchmark again"):
        tables.table(PART, World(made_up))


def test_units_of_other_settings_count_as_missing(made_up: Path) -> None:
    other = replace(PART, arms=(BASE, replace(LDM, optimizer=replace(LDM.optimizer, learning_rate=5e-4))))
    found = tables.table(other, World(made_up))
    assert list(found.arms) == ["base"] and found.missing == ("LDM, seed 101", "LDM, seed 102")


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": {}}', '{"cells": [], "measures": {}, "hash": ""}'])
def test_a_damaged_unit_file_is_one_sentence(made_up: Path, text: str) -> None:
    unit_file(made_up, (PART, LDM, 101)).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^The unit file ablation/LDM-101.json is damaged: remove it [^.]*\.$"):
        tables.table(PART, World(made_up))


# --- the reading ---

UP, DOWN, OPEN = (Figure(v, v - r, v + r, 100, 5) for v, r in ((0.2, 0.1), (-0.2, 0.1), (0.05, 0.1)))


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
    found = reading.change_sentence("C", "dark skin", change, more_is_better)
    assert found.verdict == verdict and found.text == f"C changes dark skin {words}"


def test_a_change_without_an_interval_shows_nothing() -> None:
    found = reading.change_sentence("C", "diversity", Figure(0.4, math.nan, math.nan, 9, 1), True)
    assert found.verdict == "not shown" and found.text.endswith("by +0.40 (one training, no interval).")


def test_every_place_that_leaks_or_may_leak_is_named() -> None:
    own = {
        "borea": Figure(0.2, 0.1, 0.3, 100, 5),
        "aria": Figure(-0.2, -0.3, -0.06, 100, 5),
        "caldia": Figure(0.0, -0.08, 0.08, 100, 5),
        "no place": Figure(0.0, -0.04, 0.04, 100, 5),
    }
    found = reading._leaks("LDM", "dark skin", own)
    assert found.verdict == "worse"
    assert found.text == (
        "LDM: dark skin leaks into borea +0.20 [+0.10, +0.30], aria -0.20 [-0.30, -0.06]; is not shown to leave alone "
        "caldia +0.00 [-0.08, +0.08] (within ±0.05 in no place)."
    )
    unsure = reading._leaks("LDM", "dark skin", {"caldia": own["caldia"]})
    assert unsure.verdict == "not shown" and "leaks into" not in unsure.text
    clean = reading._leaks("LDM", "dark skin", {"no place": own["no place"]})
    assert clean.verdict == "better" and "no leakage" in clean.text
    palette = {"caldia": Figure(-0.19, -0.27, -0.11, 100, 5)}
    assert "own palette changes in caldia -0.19" in reading._leaks("LDM", "own palette", palette).text
    assert reading._leaks("LDM", "dark skin", {"borea": Figure(0.01, math.nan, math.nan, 9, 1)}).verdict == "not shown"


def test_the_ablation_is_read_with_what_is_unflattering(made_up: Path) -> None:
    found = reading.read({"ablation": tables.table(PART, World(made_up))})["ablation"]
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
    memorised = [v for t, v in said.items() if t.startswith("M (LDM → +M) changes the memorisation gap by -0.35")]
    assert memorised == ["better"]
    assert any(t.startswith("C (+M → +MPC) changes the memorisation gap by +0.35") for t, v in said.items())
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
    assert any(t.startswith("M lowers the memorisation gap (-0.35") and v == "better" for t, v in said.items())
    assert not any("Within ±0.05" in text for text in said), "+M's interval is wide"


@pytest.mark.parametrize("dark, words, verdict", [([1] * 8, "reached", "better"), ([1, 0] * 4, "not reached", "worse")])
def test_the_aim_of_the_careful_part_is_said_to_be_reached_or_not(
    tmp_path: Path, dark: list[int], words: str, verdict: str
) -> None:
    part = replace(PART, name="careful", arms=(replace(M, name="careful"),))
    for seed in part.seeds:
        here = {NUVIA: cell(dark, "nuvia"), "held-out kinds · borea": cell([1, 0] * 4, "borea")}
        write(tmp_path, BASE, seed, here, part=part)
        write(tmp_path, part.arms[0], seed, here, part=part)
    found = reading.read({"careful": tables.table(part, World(tmp_path))})["careful"]
    assert found[0].verdict == verdict and f"the aim of 0.90 is {words}" in found[0].text
    assert any("borea (looked at when settings were chosen)" in sentence.text for sentence in found)
    short = summary.in_short({"careful": tables.table(part, World(tmp_path))})
    assert [s.verdict for s in short] == ["worse" if verdict == "worse" else "not shown"]
    assert f"aim 0.90 {words}; not shown to leave alone borea" in short[0].text


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
    found = reading.read({"control": tables.table(control, world), "features": tables.table(features, world)})
    assert [s.verdict for s in found["control"]] == ["worse", "better"]
    assert "C's direction, against P pushed equally hard, changes dark skin" in found["control"][0].text
    assert found["features"][0].text.startswith("Nearest to the community's own pictures by KID: layer 1, 10")
    first, last = (next(s for s in found["features"] if s.text.startswith(n)) for n in ("Layer 1", "Gradient"))
    assert first.verdict == "better" and last.verdict == "worse"


def test_training_further_is_read_for_each_line(tmp_path: Path) -> None:
    part = replace(PARTS["along training"], seeds=PART.seeds)
    for seed in PART.seeds:
        write(tmp_path, BASE, seed, {NUVIA: cell([0] * 8, "nuvia")}, part=part)
        for k, arm in enumerate(part.arms[:6]):
            own = measures((1.0 - 0.1 * k, 1.0 - 0.1 * k), (1.0, 1.0), diversity=0.5 - 0.05 * k)
            write(tmp_path, arm, seed, {NUVIA: cell([1] * 8, "nuvia")}, own, part=part)
    found = reading.read({"along training": tables.table(part, World(tmp_path))})["along training"]
    assert [s.verdict for s in found] == ["worse", "worse"]
    assert "LDM, from step 50 to 300: further training changes the memorisation gap by +0.5000" in found[0].text
    assert "changes diversity on trained captions by -0.250" in found[1].text


# --- what is compared, and what is kept back ---


def test_the_hash_of_a_unit_follows_its_settings_and_nothing_else(tmp_path: Path) -> None:
    world = World(tmp_path)

    def known(arm: arms.Arm, seed: int = 101, part: arms.Part = PART) -> tuple[str, str]:
        return key_of(arm, seed, world), hash_of((part, arm, seed), world)

    first = known(MPC)
    assert known(replace(MPC, name="another name")) == first
    assert known(MPC, part=replace(PART, name="another part")) == first
    late = known(replace(MPC, at=50))
    assert late[0] == first[0] and late[1] != first[1], "one training, other pictures"
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
    assert known(BASE)[1] != hash_of((PART, BASE, 101), World(tmp_path, limit=6)), "other pictures"


def test_the_workflows_settings_are_those_of_the_ablation() -> None:
    path = Path(__file__).parents[1] / "workflows" / "api" / "train-cultural-lora-mini.json"
    nodes = {node["class_type"]: node["inputs"] for node in json.loads(path.read_text(encoding="utf-8")).values()}
    train, lora, optimizer = (nodes[f"SCoFT_{name}"] for name in ("TrainLora", "LoraOptions", "OptimizerOptions"))
    for name in ("steps", "batch_size", "accumulation", "resolution", "flip", "precision", "noise_offset"):
        assert getattr(MPC.train, name) == train[name], name
    for name in ("rank", "alpha", "targets", "dropout", "dora"):
        assert getattr(MPC.lora, name) == lora[name], name
    for name in ("optimizer", "learning_rate", "schedule", "warmup", "clip", "weight_decay", "ema"):
        assert getattr(MPC.optimizer, name) == optimizer[name], name
    for name in ("every", "steps", "guidance", "gradient_step", "kappa", "grid"):
        assert getattr(MPC.rollout, name) == nodes["SCoFT_RolloutOptions"][name], name
    losses = dict(MPC.losses)
    assert losses["diffusion"]["weight"] == nodes["SCoFT_DiffusionLoss"]["weight"]
    assert losses["memorization"]["weight"] == nodes["SCoFT_MemorizationLoss"]["weight"]
    for name in ("weight", "margin"):
        assert losses["contrastive"][name] == nodes["SCoFT_ContrastiveLoss"][name]
    assert losses["contrastive"]["features"] == nodes["SCoFT_LoadFeatures"]["network"]


def test_what_settings_are_chosen_by_is_not_what_is_reported() -> None:
    assert not set(cells.TEST_KINDS) & set(cells.DEVELOPMENT_KINDS)
    assert sorted(cells.TEST_KINDS + cells.DEVELOPMENT_KINDS) == sorted(HELD_OUT_KINDS)
    assert not set(cells.TEST_SEEDS) & set(cells.DEVELOPMENT_SEEDS)
    assert not set(cells.TEST_PLACES) & set(cells.DEVELOPMENT_PLACES)
    development = cells.FORMS["development"]
    assert {cell.place for cell in development} == {"nuvia", *cells.DEVELOPMENT_PLACES}
    shown = {kind for cell in development for kind in cell.kinds if kind not in TRAINED_KINDS}
    assert shown == set(cells.DEVELOPMENT_KINDS)
    for part in PARTS.values():
        assert set(part.seeds) <= set(cells.TEST_SEEDS)
        asked = {kind for cell in cells.FORMS[part.form] for kind in cell.kinds if cell.what == cells.HELD_OUT}
        assert asked == set(cells.TEST_KINDS)


def test_cells_are_large_shared_by_the_forms_and_paired_by_their_noise(tmp_path: Path) -> None:
    dataset = World(tmp_path).dataset
    full = cells.FORMS["full"]
    for cell_ in full:
        asked = cell_.asked(101, dataset)
        assert len(asked) >= 100 or cell_.what == cells.HOUSES
        assert len({one.seed for one in asked}) == len(asked), "each picture has noise of its own"
    assert set(cells.FORMS["lean"]) < set(full) and set(cells.FORMS["taught"]) < set(full)
    here, there = (c.asked(101, dataset) for c in full[:2])
    assert [one.seed for one in here] == [one.seed for one in there]
    assert here[0].prompt == world.caption(cells.TEST_KINDS[0], "nuvia")
    assert not {one.seed for one in here} & {one.seed for one in full[0].asked(102, dataset)}
    trained = next(c for c in full if c.what == cells.TRAINED)
    captions = {record.caption for record in dataset.records}
    assert {one.prompt for one in trained.asked(101, dataset)} <= captions and len(trained.kinds) == 12


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
    every = arms.units(tuple(PARTS.values()))
    own = [unit for unit in every if unit[1].losses]
    assert len({unit_file(tmp_path, unit) for unit in own}) == len(own)
    world = World(tmp_path)
    assert key_of(MP, 101, world) == key_of(PARTS["control"].arms[0], 101, world), "trained once for both"


# --- the page ---


def test_the_page_says_the_same_in_all_forms(made_up: Path, tmp_path: Path) -> None:
    extra = made_up / "added" / "corrector.json"
    extra.parent.mkdir()
    part = {"title": "Corrector <x>", "about": "A&B.", "columns": ["", "a"], "rows": [["one", "1"]], "reading": ["So."]}
    extra.write_text(json.dumps(part), encoding="utf-8")
    unit_file(made_up, (PART, MPC, 102)).unlink()
    files = page.write(World(made_up), tmp_path / "page", (PART,))
    assert {path.name for path in files} >= {"results.json", "page.md", "page.html", "page.png"}
    text, html = ((tmp_path / "page" / name).read_text(encoding="utf-8") for name in ("page.md", "page.html"))
    content = json.loads((tmp_path / "page" / "results.json").read_text(encoding="utf-8"))
    ablation = content["parts"][0]
    assert ablation["arms"]["LDM"]["figures"][tables.leakage("dark skin", "caldia")]["value"] == 0.5
    for said in (
        "Not there yet: +MPC, seed 102.",
        "leaks into caldia +0.50",
        "python -m comfy_scoft benchmark",
        "python 3",
        "Training seeds 101, 102",
        *(sentence["text"] for sentence in ablation["reading"]),
    ):
        assert said in text and render.escape(said) in html
    assert "| LDM | 0.50 [0.28, 0.72] |" in text and "<td>0.50 [0.28, 0.72]</td>" in html
    assert "Corrector &lt;x&gt;" in html and "A&amp;B." in html and "Corrector <x>" in text
    assert "NaN" not in json.dumps(content) and "nan" not in html.split("</style>")[1].split("base64")[0]
    assert "http" not in html and "<script" not in html and 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


def test_an_added_part_of_another_form_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"title": "x"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"^The added part x.json cannot be read: give it title[^.]*\.$"):
        page.added_parts(tmp_path)


def test_a_page_without_any_result_says_what_is_missing(tmp_path: Path) -> None:
    page.write(World(tmp_path), tmp_path / "page", (PART,))
    text = (tmp_path / "page" / "page.md").read_text(encoding="utf-8")
    assert "Not there yet: base, seed 101, base, seed 102" in text and "and 2 more" in text


# --- the command ---


@pytest.mark.parametrize(
    "given, said",
    [
        (["--part", "ablaton"], "There is no part named 'ablaton'; choose from: ablation, careful"),
        (["--seeds", "-1"], "--seeds is -1"),
        (["--jobs", "-1"], "--jobs is -1"),
    ],
)
def test_a_wrong_choice_is_one_sentence(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*given, "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not any(tmp_path.iterdir())


def test_parts_and_seeds_can_be_chosen() -> None:
    assert [part.name for part in chosen(["control", "ablation", "control"])] == ["control", "ablation"]
    assert [part.seeds for part in chosen(["ablation"], seeds=2)] == [(101, 102)]
    assert len(chosen([])) == len(PARTS) and len(chosen([])[0].seeds) == 5
