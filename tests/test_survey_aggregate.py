"""The analysis of a survey: by hand arithmetic, against crowd-kit and SciPy, and against simulated truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import survey_simulation as simulation
from comfy_scoft.scores import Scores
from comfy_scoft.survey import mmsr, responses
from comfy_scoft.survey.aggregate import ALL, aggregate
from comfy_scoft.survey.agreement import kendall_w, krippendorff_alpha, mean_kendall_w
from comfy_scoft.survey.bradley_terry import comparisons, log_likelihood, noisy_bradley_terry
from comfy_scoft.survey.consensus import consensus, majority_ranks
from comfy_scoft.survey.findings import minorities, report_text, warnings
from comfy_scoft.survey.intervals import average_ranks_and_win_rates
from comfy_scoft.survey.rankings import Rankings, labels, rankings
from comfy_scoft.survey.responses import load_responses
from comfy_scoft.survey.simulate import (
    PAPER_GENERATORS,
    PAPER_WIN_RATES,
    Crowd,
    expected_ranks,
    rankings_with_averages,
    simulated_rankings,
    simulated_survey,
    worth_of,
)
from comfy_scoft.survey.spec import Ranking, Response, Survey

EXAMPLE = Path(responses.__file__).parent / "example"
TABLE_1 = {
    "alignment": (3.09, 2.57, 2.33, 1.83),
    "representation": (3.07, 2.56, 2.35, 1.84),
    "stereotypes": (2.98, 2.66, 2.34, 1.91),
    "offensiveness": (3.07, 2.59, 2.30, 1.78),
}
"""Average ranks of PAPER_GENERATORS (the paper's Table 1)."""


def answered(
    survey: Survey, answers: dict[str, list[list[tuple[int, ...]]]], countries: tuple[str, ...] = ()
) -> Survey:
    """A survey with answers: participant -> pages -> one order for each item."""
    found = []
    for k, (name, pages) in enumerate(answers.items()):
        given = [
            Ranking(page.id, item.id, order)
            for page, orders in zip(survey.pages, pages, strict=False)
            for item, order in zip(survey.items, orders, strict=True)
        ]
        country = countries[k] if countries else "nuvia"
        found.append(Response(name, country, None, tuple(given), f"{name}.json"))
    return replace(survey, responses=tuple(found))


def alike(survey: Survey, people: dict[str, tuple[int, ...]], countries: tuple[str, ...] = ()) -> Survey:
    """Everybody ranks every page and item in one order of their own."""
    pages, items = len(survey.pages), len(survey.items)
    return answered(survey, {name: [[order] * items] * pages for name, order in people.items()}, countries)


def example():
    return aggregate(load_responses(None, EXAMPLE)[0], resamples=300)


def noisy(people: int = 12, pages: int = 20, seed: int = 0, skill: float = 1.0) -> Rankings:
    generator = np.random.default_rng(seed)
    crowd = Crowd(worth_of(PAPER_WIN_RATES, np.ones(1)), np.full(people, skill), 0.2)
    return simulated_rankings(crowd, np.zeros(people, int), np.full(people, pages), pages, 4, generator)


# Average ranks, win rates and their intervals


def test_average_ranks_and_win_rates_by_hand():
    survey = simulated_survey(("a", "b", "c"), 1, 0, 1, "t")
    found = aggregate(alike(survey, {"x": (0, 1, 2), "y": (1, 0, 2), "z": (0, 2, 1)}))
    assert found.whole.average[0].tolist() == pytest.approx([4 / 3, 2.0, 8 / 3])
    assert found.whole.wins[0][0, 1] == pytest.approx(2 / 3) and found.whole.wins[0][1, 0] == pytest.approx(1 / 3)
    assert found.whole.wins[0][0, 2] == 1.0 and np.isnan(found.whole.wins[0]).sum() == 3
    assert (found.whole.people, found.whole.rankings) == (3, 12)
    assert all(found.figures[ALL, item.id].average[0] == pytest.approx([4 / 3, 2.0, 8 / 3]) for item in survey.items)


def test_the_papers_average_ranks_come_out_of_answers_built_to_have_them():
    """Complete rankings of four have the mean 2.5, but the ranks of the paper's Table 1 add up to less than ten (ties
    or blanks were possible there). Each item is moved by what is missing; all differences are the paper's."""
    survey = simulated_survey(PAPER_GENERATORS, 20, 0, 1, "Table 1")
    built, wanted = {}, {}
    for item, printed in TABLE_1.items():
        wanted[item] = np.array(printed) + (10 - sum(printed)) / 4  # whole multiples of 1 / 400
        orders = np.argsort(rankings_with_averages(wanted[item], 400), axis=1)
        built[item] = np.random.default_rng(1).permutation(orders)
    answers = {
        f"p{p}": [[tuple(map(int, built[item.id][20 * p + page])) for item in survey.items] for page in range(20)]
        for p in range(20)
    }
    found = aggregate(answered(survey, answers))
    for item, printed in TABLE_1.items():
        averages = found.figures[ALL, item].average[0]
        assert averages == pytest.approx(wanted[item], abs=1e-9)
        assert averages - averages.mean() == pytest.approx(np.array(printed) - np.mean(printed), abs=1e-9)
    assert found.whole.ranks.tolist() == [4, 3, 2, 1]


def test_rankings_that_cannot_have_the_averages_are_refused():
    with pytest.raises(ValueError, match="add up to 10, not 9.82"):
        rankings_with_averages(TABLE_1["alignment"], 100)


def test_people_are_resampled_not_their_rankings():
    """Ten times the same rankings by the same people tell nothing new: the interval must not shrink."""
    found = noisy()
    again = Rankings(**{**vars(found), **{k: np.tile(getattr(found, k), 10) for k in ("who", "page", "item")},
                        "ranks": np.tile(found.ranks, (10, 1))})  # fmt: skip
    once = average_ranks_and_win_rates(found, np.random.default_rng(0))[0]
    ten = average_ranks_and_win_rates(again, np.random.default_rng(0))[0]
    assert ten == pytest.approx(once)
    assert (once[2] - once[1] > 0.1).all()


def test_one_persons_interval_is_unknown_and_unanimity_is_no_point():
    survey = simulated_survey(("a", "b"), 3, 0, 1, "t")
    alone = aggregate(alike(survey, {"x": (0, 1)})).whole
    assert alone.average[0].tolist() == [1.0, 2.0] and np.isnan(alone.average[1:]).all()
    five = aggregate(alike(survey, dict.fromkeys("vwxyz", (0, 1)))).whole
    low = 1 / (1 + 1.959964**2 / 5)  # Wilson's lower end of 5 of 5
    assert five.wins[:, 0, 1] == pytest.approx([1.0, low, 1.0])
    assert five.average[:, 0] == pytest.approx([1.0, 1.0, 2.0 - low])


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


def test_weights_near_zero_have_crowd_kits_size_and_more_often_the_true_sign():
    """Where people hardly beat chance, crowd-kit's eigenvector takes some for liars who are none."""
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
    first, _ = rankings(survey)
    found = labels(first)
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
    weight = consensus(labels(found), 4).skills.weight
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
    """Half of the people always choose the left picture; left and right alternate, so this moves no score."""
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
    first, _ = rankings(answered(survey, {"x": [same, same], "y": [same, other], "z": [same]}))
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


# Groups, minorities and warnings


def test_countries_are_told_apart_by_name_not_by_spelling():
    survey = simulated_survey(("a", "b"), 1, 0, 1, "t")
    people = dict.fromkeys("pqrst", (0, 1))
    found = aggregate(alike(survey, people, ("Korea", "korea ", "Korea", "", "México")))
    assert found.table.countries == ("Korea", "México", "not said")
    assert found.cells["Korea", ALL].people == 3 and ("Korea", "alignment") in found.figures


def test_the_examples_minorities_are_shown_beside_the_consensus():
    found = example()
    assert found.whole.ranks.tolist() == [4, 3, 2, 1]
    borea, against = minorities(found)
    assert borea.name == "borea" and borea.cell.ranks.tolist() == [4, 3, 1, 2]
    assert "SCoFT+MP above SCoFT+MPC" in borea.sentence and "beyond chance" in borea.sentence
    assert against.name == "3 of 24 people against the consensus" and against.cell.average[0].argmin() == 0
    assert "they agree with each other: a view of their own" in against.sentence
    assert "counts 3 of them with a negative weight" in against.sentence
    assert "can hide an insightful minority" in report_text(found)


def test_people_who_rank_at_random_are_not_called_a_minority_with_a_view():
    generator = np.random.default_rng(0)
    survey = simulated_survey(("a", "b", "c", "d"), 30, 0, 1, "t")
    people = {f"p{k}": [[(0, 1, 2, 3)] * 4] * 30 for k in range(12)}
    for k in range(12):
        people[f"r{k}"] = [[tuple(map(int, generator.permutation(4))) for _ in range(4)] for _ in range(30)]
    (against,) = minorities(aggregate(answered(survey, people), resamples=100))
    assert len(against.members) >= 3 and "this looks like chance" in against.sentence


def test_too_few_people_and_open_orders_are_said():
    survey = simulated_survey(("base", "SCoFT"), 4, 0, 1, "t")
    text = report_text(aggregate(alike(survey, {"x": (0, 1)})))
    for part in (
        "answers of 1 person only: fewer than 5",
        "weights need 3 people",
        "order of base and SCoFT is not settled",
        "their agreement is unknown",
    ):
        assert part in text, part
    many = report_text(aggregate(alike(survey, {f"p{k}": (1, 0) for k in range(9)}, ("a",) * 6 + ("b",) * 3)))
    assert "too few to speak for a country: b 3." in many and "not settled" not in many


def test_methods_that_differ_are_named():
    """Nine prefer b slightly more often; by average rank a wins because the others put it far ahead."""
    survey = simulated_survey(("a", "b", "c", "d"), 1, 0, 1, "t")
    people = {f"p{k}": (1, 0, 2, 3) for k in range(5)} | {f"q{k}": (0, 2, 3, 1) for k in range(4)}
    text = "\n".join(warnings(aggregate(alike(survey, people))))
    assert "By average rank the order is a > " in text


def test_a_survey_without_answers_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="has no answers yet: load the participants' files"):
        aggregate(simulated_survey(("a", "b"), 1, 0, 1, "t"))


def test_scores_hold_every_figure_once_and_are_the_same_each_time():
    found = example()
    scores = found.scores()
    assert isinstance(scores, Scores)
    assert len({(row.name, row.group) for row in scores.rows}) == len(scores.rows)
    by_name = {(row.name, row.group): row for row in scores.rows}
    row = by_name["average rank", "SCoFT+MPC"]
    assert row.low < row.value < row.high and row.n == 24 * 8 * 4
    assert by_name["consensus rank, MMSR + Vote (borea)", "SCoFT+MP"].value == 1
    assert by_name["ranked above SCoFT+MP, Offensiveness", "SCoFT+MPC"].n == 24 * 8
    assert 0.5 < by_name["noisy Bradley–Terry score", "SCoFT+MPC"].value < 1
    assert ("ranked above SCoFT+MP", "SCoFT+MP") not in by_name
    assert example().scores() == scores


# Simulated truth


def test_expected_ranks_are_what_the_paper_rates_give():
    crowd = Crowd(worth_of(PAPER_WIN_RATES, np.linspace(0.5, 1.5, 51), 0.4), np.linspace(0.5, 1.5, 51), 0.4)
    ranks = expected_ranks(crowd)
    assert ranks.sum() == pytest.approx(10) and (np.diff(ranks) < 0).all()
    generator = np.random.default_rng(0)
    people = Crowd(crowd.worth, generator.uniform(0.5, 1.5, 4000), 0.4)
    found = simulated_rankings(people, np.zeros(4000, int), np.full(4000, 5), 5, 2, generator)
    assert found.ranks.mean(0) == pytest.approx(ranks, abs=0.03)


@pytest.mark.long
def test_the_order_is_recovered_and_intervals_cover_at_the_papers_size(tmp_path):
    result = simulation.run(25, 200, tmp_path / "record.json")["results"]
    check_simulation(result, runs=25, coverage_runs=200, slack=0.05)


def check_simulation(result: dict, runs: int, coverage_runs: int, slack: float) -> None:
    recovered = result["order recovered"]
    assert recovered["runs"] >= runs and recovered["MMSR + Vote"] >= 0.95
    lost = result["with 5 random answerers"]
    assert lost["mean weight of random answerers"] < 0.25 * lost["mean weight of the others"]
    for name, part in result.items():
        if name.startswith("coverage"):
            assert part["runs"] >= coverage_runs, name
            assert abs(part["average rank"] - 0.95) <= slack and abs(part["win rate"] - 0.95) <= slack, name


def test_the_recorded_simulation_meets_its_claims():
    record = json.loads(simulation.RECORD.read_text(encoding="utf-8"))
    assert record["setting"]["people"] == 51 and record["setting"]["pages"] == 766
    assert record["setting"]["adjacent win rates"] == [0.63, 0.56, 0.62]
    check_simulation(record["results"], runs=200, coverage_runs=1000, slack=0.03)


@pytest.mark.recorded
def test_the_whole_simulation(tmp_path):
    result = simulation.run(200, 1000, tmp_path / "record.json")["results"]
    check_simulation(result, runs=200, coverage_runs=1000, slack=0.03)
