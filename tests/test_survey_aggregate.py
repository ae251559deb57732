"""The analysis of a survey: averages and win rates by hand, what is said of groups, and simulated truth."""

from __future__ import annotations

import json
import re
from functools import lru_cache

import numpy as np
import pytest
import survey_simulation as simulation
from survey_answers import EXAMPLE, alike, answered, noisy
from survey_crowd import (
    PAPER_GENERATORS,
    PAPER_WIN_RATES,
    Crowd,
    expected_ranks,
    rankings_with_averages,
    simulated_rankings,
    simulated_survey,
    worth_of,
)

from comfy_scoft.metrics.scores import Scores
from comfy_scoft.survey.aggregate import ALL, aggregate, group_metrics
from comfy_scoft.survey.findings import minorities, report_text, warnings
from comfy_scoft.survey.intervals import average_ranks_and_win_rates
from comfy_scoft.survey.preferences import by_place_and_question, pairs, places_that_differ, result, who_answered
from comfy_scoft.survey.rankings import Rankings, ranking_tables
from comfy_scoft.survey.responses import load_responses

TABLE_1 = {
    "alignment": (3.09, 2.57, 2.33, 1.83),
    "representation": (3.07, 2.56, 2.35, 1.84),
    "stereotypes": (2.98, 2.66, 2.34, 1.91),
    "offensiveness": (3.07, 2.59, 2.30, 1.78),
}
"""Average ranks of PAPER_GENERATORS (the paper's Table 1)."""


@lru_cache(maxsize=1)
def example():
    return aggregate(load_responses(None, EXAMPLE)[0], resamples=300)


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
    assert borea.statistics == (
        "The consensus of borea is another one: SCoFT+MP > SCoFT+MPC > SCoFT+M > Stable Diffusion."
    )
    (place,) = places_that_differ(found)
    assert place.startswith("borea, 7 people: SCoFT+MP was preferred to SCoFT+MPC in 68 of 100 comparisons (5")
    assert place.endswith(", by all together in 46.")
    assert against.name == "3 of 24 people against the consensus" and against.cell.average[0].argmin() == 0
    assert "They agree with each other: a shared view." in against.sentence
    assert "counts 3 of them with a negative weight" in against.statistics
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
        "1 person answered: 1 from nuvia. They compared the images of 2 models on 4 pages and 4",
        "It is open whose images people prefer.",
        "base or SCoFT is open: base was preferred in 100 of 100 comparisons (interval unknown).",
        "answers of 1 person only: fewer than 5",
        "weights need 3 people",
        "their agreement is unknown",
    ):
        assert part in text, part
    many = report_text(aggregate(alike(survey, {f"p{k}": (1, 0) for k in range(9)}, ("a",) * 6 + ("b",) * 3)))
    assert "too few to speak for a country: b 3." in many and "Nothing is open" in many
    assert "9 people answered: 6 from a and 3 from b." in many
    assert "People preferred the images of SCoFT to those of base in 100 (70 to 100) of 100 comparisons." in many


STATISTICS = re.compile("MMSR|Krippendorff|Kendall|Bradley|rank, 1 the best", re.IGNORECASE)


def test_the_report_says_who_answered_and_what_they_prefer_before_any_statistic():
    lines = report_text(example()).split("\n")
    assert lines[0].startswith("24 people answered: 12 from nuvia, 7 from borea and 5 from aria.")
    assert lines[1].startswith("People preferred the images of SCoFT+MPC to those of SCoFT+M in 70 (5")
    assert lines[2].startswith("SCoFT+MPC or SCoFT+MP is open: SCoFT+MPC was preferred in 54 of 100 comparisons (4")
    assert STATISTICS.search("\n".join(lines)) and not STATISTICS.search("\n".join(lines[:7]))


def test_nothing_is_claimed_where_the_interval_reaches_fifty_or_few_people_answered():
    survey, generator = simulated_survey(("base", "SCoFT"), 4, 0, 1, "t"), np.random.default_rng(0)
    settled = []
    for ahead, people in ((5, 9), (6, 9), (7, 9), (8, 9), (9, 9), (4, 4), (3, 3), (2, 2), (1, 1)):
        answers = alike(survey, {f"p{k}": (1, 0) if k < ahead else (0, 1) for k in range(people)})
        found = group_metrics(ranking_tables(answers)[0], generator, 300)
        (pair,) = pairs(found, survey.generators)
        assert (pair.better, pair.value) == ("SCoFT", round(100 * ahead / people))
        low, high = 100 * found.wins[1:, 1, 0]
        assert np.isnan(low) or (pair.low <= low + 1e-6 and pair.high >= high - 1e-6)
        assert pair.settled == (people >= 5 and pair.low > 50)
        settled += [(ahead, people)] if pair.settled else []
    assert (9, 9) in settled and (5, 9) not in settled
    for ahead, people, claimed in ((9, 9, True), (5, 9, False), (4, 4, False)):
        answers = alike(survey, {f"p{k}": (1, 0) if k < ahead else (0, 1) for k in range(people)})
        text = report_text(aggregate(answers, resamples=100))
        assert ("People preferred" in text) == claimed != ("SCoFT or base is open" in text)


def test_people_who_are_divided_are_never_called_of_one_mind():
    """Half of all, of two places or of one, rank the other way round; there is no consensus to be against."""
    survey = simulated_survey(("base", "SCoFT"), 4, 0, 1, "t")
    people = {f"a{k}": (0, 1) for k in range(20)} | {f"b{k}": (1, 0) for k in range(20)}
    text = report_text(aggregate(alike(survey, people, ("China",) * 20 + ("Korea",) * 20), resamples=100))
    assert "China, 20 people: base was preferred to SCoFT in 100 of 100 comparisons (8" in text
    assert "Korea, 20 people: SCoFT was preferred to base in 100 of 100 comparisons (8" in text
    assert "of 40 people, 20 mostly preferred base and 20 SCoFT." in text and "Nobody" not in text
    text = report_text(aggregate(alike(survey, people), resamples=100))
    assert "where it is open, people are divided" in text and "Nobody: no place" not in text
    assert "Nobody" in report_text(aggregate(alike(survey, {"x": (0, 1), "y": (0, 1)}), resamples=100))


def test_of_many_places_the_largest_are_named():
    survey = simulated_survey(("base", "SCoFT"), 1, 0, 1, "t")
    places = [f"P{k}" for k in range(12) for _ in range(1 + (k == 3))]
    found = aggregate(alike(survey, {f"x{k}": (0, 1) for k in range(len(places))}, tuple(places)), resamples=10)
    assert who_answered(found).startswith("13 people answered: 2 from P3, 1 from P0, ")
    assert " and 4 from 4 other places. They compared" in who_answered(found)


def test_numbers_beside_a_name_from_right_to_left_keep_their_place():
    survey = simulated_survey(("base", "ثقافة"), 1, 0, 1, "t")
    found = aggregate(alike(survey, {f"x{k}": (1, 0) for k in range(9)}, ("مصر",) * 5 + ("India",) * 4), resamples=10)
    assert who_answered(found).startswith("9 people answered: 5 from \u2068مصر\u2069 and 4 from India.")
    assert result(found).startswith("People preferred the images of \u2068ثقافة\u2069 to those of base in 100")


def test_the_best_models_share_follows_from_average_ranks_by_place_and_question():
    survey = simulated_survey(("a", "b", "c"), 1, 0, 1, "t")
    people = {f"x{k}": (0, 1, 2) for k in range(6)} | {f"y{k}": (1, 0, 2) for k in range(6)}
    rows = by_place_and_question(aggregate(alike(survey, people, ("X",) * 6 + ("Y",) * 6), resamples=100))
    assert [(row.name, row.value) for row in rows if row.name in ("All together", "X", "Y")] == [
        ("All together", 75), ("X", 100), ("Y", 50)]  # fmt: skip
    assert len(rows) == 7 and rows[0].low <= 75 <= rows[0].high


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
    assert example.__wrapped__().scores() == scores


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
    assert lost["MMSR + Vote"] >= 0.95
    assert lost["mean weight of random answerers"] < 0.5 * lost["mean weight of the others"], "noise has a size too"
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
