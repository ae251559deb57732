"""Consensus and agreement of a survey: by hand arithmetic, against crowd-kit and SciPy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from recorded import survey_signs
from survey_answers import EXAMPLE, alike, answered, noisy
from survey_crowd import PAPER_WIN_RATES, Crowd, simulated_rankings, simulated_survey, worth_of

from comfy_scoft.survey import mmsr
from comfy_scoft.survey.aggregate import aggregate
from comfy_scoft.survey.agreement import kendall_w, krippendorff_alpha, mean_kendall_w
from comfy_scoft.survey.bradley_terry import comparisons, log_likelihood, noisy_bradley_terry
from comfy_scoft.survey.consensus import consensus, majority_ranks
from comfy_scoft.survey.findings import report_text, warnings
from comfy_scoft.survey.rankings import binary_labels, ranking_tables
from comfy_scoft.survey.responses import load_responses

# Consensus


def random_labels(seed: int, lowest: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    people, tasks = int(generator.integers(4, 40)), 300
    skill = generator.uniform(lowest, 0.9, people)
    right = generator.random((people, tasks)) < (1 + skill[:, None]) / 2
    values = np.where(right, 1, -1) * generator.choice([-1, 1], tasks)
    return (values * (generator.random((people, tasks)) < 0.7)).astype(np.int8), skill


def crowdkit_frame(values: np.ndarray):
    import pandas as pd

    who, task = np.nonzero(values)
    return pd.DataFrame({"worker": who, "task": task, "label": values[who, task]})


@pytest.mark.parametrize("seed", range(6))
def test_weights_and_labels_equal_crowd_kits_mmsr(seed):
    from crowdkit.aggregation import MMSR

    values, _ = random_labels(seed)
    frame = crowdkit_frame(values)
    theirs = MMSR(n_iter=10_000, tol=1e-10)
    decided = theirs.fit_predict(frame).sort_index()
    ours = mmsr.skills(values)
    assert theirs.skills_ is not None
    assert ours.weight == pytest.approx(theirs.skills_.sort_index().to_numpy(), abs=1e-9)
    assert ours.iterations == len(theirs.loss_history_)
    vote = (ours.weight @ values)[decided.index]
    assert (np.sign(vote) == decided.to_numpy()).all()


@pytest.mark.long
def test_weights_near_zero_have_crowd_kits_size_and_more_often_the_true_sign():
    """The sizes are crowd-kit's, the signs are not: where people hardly beat chance, crowd-kit's eigenvector takes some
    for liars who are none."""
    from crowdkit.aggregation import MMSR

    wrong = {"ours": 0, "theirs": 0}
    for seed in range(100, 106):
        values, _ = random_labels(seed, lowest=0.02)  # everybody is better than chance
        theirs = MMSR().fit(crowdkit_frame(values)).skills_.sort_index().to_numpy()
        ours = mmsr.skills(values).weight
        assert np.abs(ours) == pytest.approx(np.abs(theirs), abs=1e-9)
        wrong["ours"] += int((ours < 0).sum())
        wrong["theirs"] += int((theirs < 0).sum())
    assert wrong["ours"] < wrong["theirs"]


def test_the_consensus_of_a_survey_equals_crowd_kits_step_by_step():
    from crowdkit.aggregation import MMSR

    survey = load_responses(None, EXAMPLE)[0]
    first, _ = ranking_tables(survey)
    found = binary_labels(first)
    decided = MMSR(n_iter=10_000, tol=1e-10).fit_predict(crowdkit_frame(found.values))
    wins = np.zeros((4, 4))
    for task, label in decided.items():
        a, b = found.pairs[task] if label > 0 else found.pairs[task][::-1]
        wins[a, b] += 1
    theirs = majority_ranks(np.divide(wins, wins + wins.T, out=np.full((4, 4), np.nan), where=wins + wins.T > 0))
    assert consensus(found, 4).rank.tolist() == theirs.tolist()


def test_people_without_common_pages_are_weighed_apart():
    """crowd-kit takes "no common task" for disagreement, and ends in NaN here."""
    one, skill_one = random_labels(1)
    two, skill_two = random_labels(2)
    values = np.zeros((len(one) + len(two), one.shape[1] + two.shape[1]), dtype=np.int8)
    values[: len(one), : one.shape[1]], values[len(one) :, one.shape[1] :] = one, two
    together = mmsr.skills(values)
    apart = np.concatenate([mmsr.skills(one).weight, mmsr.skills(two).weight])
    assert together.weight == pytest.approx(apart)
    assert np.isnan(together.agreement[0, -1]) and np.isnan(together.agreement[0, 0])


def test_known_skills_are_found_and_liars_weigh_against():
    values, skill = random_labels(3)
    values[0] = -values[1]
    found = mmsr.skills(values)
    assert np.corrcoef(found.skill[2:], skill[2:])[0, 1] > 0.9
    assert found.weight[0] == pytest.approx(-found.weight[1], abs=0.3) and found.weight[0] < -0.2


def test_the_rule_for_signs_is_the_one_that_found_the_true_order_most_often():
    """The committed record chose it on its development crowds, and its reported crowds, which nobody had looked at,
    have more true orders by it than by crowd-kit's rule, in crowds like the paper's and with inverted ranks."""
    record = json.loads(survey_signs.RECORD.read_text(encoding="utf-8"))
    chosen, reported = record["chosen on development crowds"], record[survey_signs.REPORTED]
    generator = np.random.default_rng(7)
    for people in (3, 7, 14):
        c = generator.uniform(-0.3, 0.3, (people, people))
        c = (c + c.T) / 2.0
        np.fill_diagonal(c, np.nan)
        size = generator.uniform(0.0, 0.5, people)
        assert mmsr._signs(c, size, 400).tolist() == survey_signs.RULES[chosen](c, size, 400).tolist()
    assert (
        "--crowds 500" in record["command"] and reported["mean of all"][chosen] > reported["mean of all"]["crowd-kit"]
    )
    page = (survey_signs.RECORD.parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for kind in survey_signs.KINDS:
        ours, theirs = (reported[kind]["by country"][rule] for rule in (chosen, "crowd-kit"))
        assert ours > theirs and f"{100 * ours:.1f} %" in page and f"{100 * theirs:.1f} %" in page


@pytest.mark.parametrize("people", [1, 2, 3, 8])
def test_few_and_unanimous_people_have_a_consensus_too(people):
    survey = simulated_survey(("a", "b", "c"), 4, 0, 1, "t")
    found = aggregate(alike(survey, {f"p{k}": (2, 0, 1) for k in range(people)})).whole
    assert found.ranks.tolist() == [2, 3, 1]
    assert np.isfinite(found.consensus.skills.weight).all() and np.isfinite(found.check).all()
    assert found.consensus.weighted == (people >= 3)


def test_perfect_disagreement_is_a_tie_and_no_failure():
    survey = simulated_survey(("a", "b"), 4, 0, 1, "t")
    found = aggregate(alike(survey, {"x": (0, 1), "y": (1, 0)})).whole
    assert found.ranks.tolist() == [1.5, 1.5] and found.check == pytest.approx([0.5, 0.5])


def test_majority_ranks_by_pairs_beaten_then_by_share():
    nan = np.nan
    cycle = np.array([[nan, 0.9, 0.4], [0.1, nan, 0.6], [0.6, 0.4, nan]])  # each beats one other
    assert majority_ranks(cycle).tolist() == [1, 3, 2]
    assert majority_ranks(np.array([[nan, 0.5], [0.5, nan]])).tolist() == [1.5, 1.5]


def test_random_answerers_weigh_little():
    generator = np.random.default_rng(4)
    skill = np.array([1.5] * 20 + [0.0] * 4)
    crowd = Crowd(worth_of(PAPER_WIN_RATES, np.ones(1)), skill)
    found = simulated_rankings(crowd, np.zeros(24, int), np.full(24, 30), 30, 4, generator)
    weight = consensus(binary_labels(found), 4).skills.weight
    assert weight[:20].min() > np.abs(weight[20:]).max()
    assert np.abs(weight[20:]).mean() < 0.3 * weight[:20].mean()


# Noisy Bradley-Terry


def test_the_likelihood_equals_crowd_kits_and_its_gradient_is_exact():
    from crowdkit.aggregation import NoisyBradleyTerry

    rows = comparisons(noisy(6, 5))
    generator = np.random.default_rng(0)
    point = generator.normal(size=4 + 2 * 6)
    parts = np.split(point, [4, 10])
    value, *slopes = log_likelihood(*parts, rows)
    who, left, right, chose_left = rows.T
    data = np.stack([left, right, np.where(chose_left == 1, left, right)], 1) + 1
    base = np.concatenate([[0.0], point])
    assert -value == pytest.approx(NoisyBradleyTerry._compute_log_likelihood(base, data, who, 4, 6, 0.0))
    for k in range(len(point)):
        step = np.zeros(len(point))
        step[k] = 1e-6
        ends = [log_likelihood(*np.split(point + s * step, [4, 10]), rows)[0] for s in (1, -1)]
        assert np.concatenate(slopes)[k] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-4)


def test_it_orders_generators_as_crowd_kits_class_does():
    import pandas as pd
    from crowdkit.aggregation import NoisyBradleyTerry

    rows = comparisons(noisy(12, 10))
    who, left, right, chose_left = rows.T
    frame = pd.DataFrame({"worker": who, "left": left, "right": right, "label": np.where(chose_left == 1, left, right)})
    state = np.random.get_state()
    theirs = NoisyBradleyTerry().fit_predict(frame).sort_index().to_numpy()
    np.random.set_state(state)
    ours = noisy_bradley_terry(rows, 12, 4)
    assert np.argsort(ours).tolist() == np.argsort(theirs).tolist() == [0, 1, 2, 3]


def test_a_habit_for_one_side_is_no_preference():
    """Half of the people always choose the left image; left and right alternate, so this moves no score."""
    rows = comparisons(noisy(10, 20, skill=2.0))
    rows[rows[:, 0] >= 5, 3] = 1
    biased, honest = noisy_bradley_terry(rows, 10, 4), noisy_bradley_terry(rows[rows[:, 0] < 5], 5, 4)
    assert np.argsort(biased).tolist() == [0, 1, 2, 3]
    assert biased == pytest.approx(honest, abs=0.06)
    for a, b in ((0, 1), (2, 3)):
        sides = rows[(np.sort(rows[:, 1:3], axis=1) == (a, b)).all(1), 1]
        assert (sides == a).mean() == pytest.approx(0.5, abs=0.01)


# Agreement


def test_krippendorffs_alpha_of_his_own_example():
    """Krippendorff (2011), example C: four observers, twelve units, interval alpha 0.849."""
    gap = np.nan
    values = np.array([
        [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
        [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
    ])  # fmt: skip
    assert krippendorff_alpha(values) == pytest.approx(0.849, abs=5e-4)
    assert np.isnan(krippendorff_alpha(values[:1])) and np.isnan(krippendorff_alpha(np.ones((3, 4))))


def test_kendalls_w_equals_friedmans_statistic_over_its_largest_value():
    from scipy.stats import friedmanchisquare

    generator = np.random.default_rng(0)
    ranks = np.stack([generator.permutation(5) + 1 for _ in range(7)])
    assert kendall_w(ranks) == pytest.approx(friedmanchisquare(*ranks.T).statistic / (7 * 4))
    assert kendall_w(np.tile([1, 2, 3], (4, 1))) == pytest.approx(1.0)


def test_w_is_the_mean_over_shared_pages():
    survey = simulated_survey(("a", "b"), 2, 0, 1, "t")
    same, other = [(0, 1)] * 4, [(1, 0)] * 4
    first, _ = ranking_tables(answered(survey, {"x": [same, same], "y": [same, other], "z": [same]}))
    assert mean_kendall_w(first) == pytest.approx((3 * 1.0 + 2 * 0.0) / 5)


def test_a_page_shown_again_counts_for_attention_only():
    survey = simulated_survey(("a", "b", "c"), 2, 1, 1, "t")
    up, down = [(0, 1, 2)] * 4, [(2, 1, 0)] * 4
    once = survey.pages.index(next(p for p in survey.pages if p.id == survey.pages[2].repeats))
    pages = [up, up, [(0, 1, 2), (0, 2, 1), (2, 1, 0), (0, 1, 2)]]
    found = aggregate(answered(survey, {"x": pages, "y": [up, up, down], "z": [up, up]}))
    assert once in (0, 1) and found.whole.rankings == 3 * 2 * 4
    assert found.whole.average[0].tolist() == [1, 2, 3]
    tokens = found.table.participants
    shares = {tokens[who]: share for who, (share, _) in found.attention.items()}
    assert shares == {"x": (3 + 2 + 0 + 3) / 12, "y": 0.0}
    assert "No more consistent than chance" in "\n".join(warnings(found)) and "no. 2 (nuvia) 0%" in report_text(found)
