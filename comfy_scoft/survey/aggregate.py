"""Analysis of the answers: average ranks, win rates, consensus and its check, overall, by country and by item."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from ..common.errors import UserError
from ..metrics.intervals import Interval
from ..metrics.scores import Score, Scores
from .agreement import attention, krippendorff_alpha, mean_kendall_w, rating_matrix
from .bradley_terry import comparisons, noisy_bradley_terry
from .consensus import Consensus, consensus, ranked
from .intervals import RESAMPLES, average_ranks_and_win_rates
from .mmsr import ITERATIONS, TOLERANCE
from .rankings import Rankings, binary_labels, ranking_tables
from .spec import Survey

ALL = ""
"""The key of all countries, or of all items."""
NAN = float("nan")
BEST_FIRST = "Ranks: 1 is the best. Intervals hold for other people of the same community on the same pages."


@dataclass(frozen=True)
class GroupMetrics:
    """Average ranks and win rates of one group of people on one item, or on all.

    people, rankings: their number; average (3, G) and wins (3, G, G): average rank and win rate (row above column), and
    the low and high ends of their 95 % intervals.
    """

    people: int
    rankings: int
    average: np.ndarray
    wins: np.ndarray


@dataclass(frozen=True)
class GroupConsensus(GroupMetrics):
    """A group's metrics with its consensus by MMSR + Vote.

    check (G,): noisy Bradley-Terry scores in (0, 1), 0.5 the average; alpha, kendall_w: agreement between the people,
    NaN if no two ranked the same page.
    """

    consensus: Consensus
    check: np.ndarray
    alpha: float
    kendall_w: float

    @property
    def ranks(self) -> np.ndarray:
        """The consensus ranks (G,), 1 is best."""
        return self.consensus.rank

    @property
    def order(self) -> list[int]:
        """Generators in the order of the consensus, best first."""
        return [int(k) for k in np.lexsort((self.average[0], self.ranks))]


@dataclass(frozen=True)
class Analysis:
    """The analysis of a survey.

    survey: with its answers; table, again: from `ranking_tables`; figures: by (country, item), ALL for all; cells: the
    same with a consensus, where country or item is ALL; attention: participant index -> (share of pairs ordered alike
    on repeated pages, number of pairs).
    """

    survey: Survey
    table: Rankings
    again: Rankings
    figures: dict[tuple[str, str], GroupMetrics]
    cells: dict[tuple[str, str], GroupConsensus]
    attention: dict[int, tuple[float, int]]

    @property
    def whole(self) -> GroupConsensus:
        return self.cells[ALL, ALL]

    @property
    def titles(self) -> dict[str, str]:
        """Item id -> title, or the id if two items have the same title."""
        titles = [item.title for item in self.survey.items]
        return {item.id: item.title if titles.count(item.title) == 1 else item.id for item in self.survey.items}

    def named(self, country: str, item: str) -> str:
        """The suffix of a metric's name: "", ", <item>", " (<country>)" or both."""
        return (f", {self.titles[item]}" if item else "") + (f" ({country})" if country else "")

    def scores(self) -> Scores:
        """All metrics, one name for each metric and group of people, and one row for each generator.

        Combinations of country and item are only in the report page.
        """
        generators = list(enumerate(self.survey.generators))
        ranks, orders, wins, checks = [], [], [], []
        for key, cell in self.cells.items():
            suffix, n, labels = self.named(*key), cell.rankings, cell.consensus.labels
            for k, label in generators:
                average = Interval(*map(float, cell.average[:, k]))
                rank, check = float(cell.ranks[k]), float(cell.check[k])
                ranks.append(Score("average rank" + suffix, label, *average, n, BEST_FIRST))
                orders.append(Score("consensus rank, MMSR + Vote" + suffix, label, rank, NAN, NAN, labels))
                checks.append(Score("noisy Bradley–Terry score" + suffix, label, check, NAN, NAN, labels))
            for (j, other), (k, label) in product(generators, generators):
                if key[0] == ALL and k != j:
                    win_rate = Interval(*map(float, cell.wins[:, k, j]))
                    wins.append(Score(f"ranked above {other}{suffix}", label, *win_rate, n))
        rule = "signs not crowd-kit's (docs/evaluation.md)"
        settings = (("MMSR", f"{ITERATIONS} iterations, tolerance {TOLERANCE:g}, {rule}"), ("survey", self.survey.id))
        return Scores((*ranks, *orders, *wins, *checks), settings)


def aggregate(survey: Survey, seed: int = 0, resamples: int = RESAMPLES) -> Analysis:
    """Analyze a survey with answers: all together, by item, by country, and by both.

    seed: of the bootstrap. Repeated pages count for attention only. Raises UserError without answers.
    """
    table, again = ranking_tables(survey)
    if not len(table.who):
        raise UserError("No answer has a complete page that is not a repeated one: ask participants to finish a page.")
    groups: dict[tuple[str, str], np.ndarray] = {(ALL, ALL): np.ones(len(table.who), dtype=bool)}
    items = {item.id: table.item == k for k, item in enumerate(survey.items)}
    groups |= {(ALL, item): mask for item, mask in items.items()}
    for k, country in enumerate(table.countries):
        of_country = table.country[table.who] == k
        if of_country.any():
            groups[country, ALL] = of_country
            groups |= {(country, item): of_country & mask for item, mask in items.items()}
    generator = np.random.default_rng(seed)
    figures: dict[tuple[str, str], GroupMetrics] = {}
    for key, mask in groups.items():
        of_group = group_consensus if ALL in key else group_metrics
        figures[key] = of_group(table.part(mask), generator, resamples)
    cells = {key: group for key, group in figures.items() if isinstance(group, GroupConsensus)}
    return Analysis(survey, table, again, figures, cells, attention(survey, table, again))


def group_metrics(table: Rankings, generator: np.random.Generator, resamples: int = RESAMPLES) -> GroupMetrics:
    """Average ranks and win rates of some rankings."""
    average, wins = average_ranks_and_win_rates(table, generator, resamples)
    return GroupMetrics(len(table.present()), len(table.who), average, wins)


def group_consensus(table: Rankings, generator: np.random.Generator, resamples: int = RESAMPLES) -> GroupConsensus:
    """Metrics and consensus of some rankings."""
    generators = table.ranks.shape[1]
    return GroupConsensus(
        **vars(group_metrics(table, generator, resamples)),
        consensus=consensus(binary_labels(table), generators),
        check=noisy_bradley_terry(comparisons(table), len(table.participants), generators),
        alpha=krippendorff_alpha(rating_matrix(table)),
        kendall_w=mean_kendall_w(table),
    )


def own_ranks(table: Rankings) -> dict[int, np.ndarray]:
    """Participant -> ranks (G,) of the generators by that participant's average ranks."""
    return {int(who): ranked(-table.ranks[table.who == who].mean(0)) for who in table.present()}
