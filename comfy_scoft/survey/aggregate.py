"""What the answers say: average ranks, win rates, consensus and its check, overall, by country and by item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..common.errors import UserError
from ..metrics.intervals import Interval
from ..metrics.scores import Score, Scores
from .agreement import attention, krippendorff_alpha, mean_kendall_w, rating_matrix
from .bradley_terry import comparisons, noisy_bradley_terry
from .consensus import Consensus, consensus, ranked
from .intervals import RESAMPLES, average_ranks_and_win_rates
from .mmsr import ITERATIONS, TOLERANCE
from .rankings import Rankings, labels, rankings
from .spec import Survey

ALL = ""
"""Stands for all countries, or all items."""
NAN = float("nan")
BEST_FIRST = "Ranks: 1 is the best. Intervals hold for other people of the same community on the same pages."


@dataclass(frozen=True)
class Figures:
    """Plain figures of one group of people on one item, or on all.

    people, rankings: how many; average (3, G) and wins (3, G, G): average rank and win rate (row above column) with
    the ends of their 95 % intervals.
    """

    people: int
    rankings: int
    average: np.ndarray
    wins: np.ndarray


@dataclass(frozen=True)
class Cell(Figures):
    """A group's figures and its consensus: MMSR + Vote; check (G,): noisy Bradley-Terry scores in (0, 1), 0.5 the
    average; alpha, kendall_w: agreement between the people (NaN where no two ranked the same)."""

    consensus: Consensus
    check: np.ndarray
    alpha: float
    kendall_w: float

    @property
    def ranks(self) -> np.ndarray:
        """The consensus ranks (G,), 1 the best."""
        return self.consensus.rank

    @property
    def order(self) -> list[int]:
        """Generators in the order of the consensus, best first."""
        return [int(k) for k in np.lexsort((self.average[0], self.ranks))]


@dataclass(frozen=True)
class Analysis:
    """survey: with its answers; table, again: as from `rankings`; figures: by (country, item), ALL for all;
    cells: the same with a consensus, where one of the two is ALL; attention: participant index -> (share of pairs
    ordered alike when a page came again, pairs)."""

    survey: Survey
    table: Rankings
    again: Rankings
    figures: dict[tuple[str, str], Figures]
    cells: dict[tuple[str, str], Cell]
    attention: dict[int, tuple[float, int]]

    @property
    def whole(self) -> Cell:
        return self.cells[ALL, ALL]

    @property
    def titles(self) -> dict[str, str]:
        """Item id -> title; the id itself where two items have one title."""
        titles = [item.title for item in self.survey.items]
        return {item.id: item.title if titles.count(item.title) == 1 else item.id for item in self.survey.items}

    def named(self, country: str, item: str) -> str:
        """ "", ", <item>", " (<country>)" or both: what follows a figure's name."""
        return (f", {self.titles[item]}" if item else "") + (f" ({country})" if country else "")

    def scores(self) -> Scores:
        """Every figure: one name a measure and group of people, one column a generator. Combinations of country and
        item are left to the report page, for a table of them would not be read."""
        shown = list(self.cells)
        rows = [row for key in shown for row in self._ranks(*key)]
        rows += [row for key in shown for row in self._consensus(*key)]
        rows += [row for key in shown if key[0] == ALL for row in self._wins(*key)]
        rows += [row for key in shown for row in self._check(*key)]
        settings = (("MMSR", f"{ITERATIONS} iterations, tolerance {TOLERANCE:g}"), ("survey", self.survey.id))
        return Scores(tuple(rows), settings)

    def _ranks(self, country: str, item: str) -> list[Score]:
        cell, name = self.cells[country, item], "average rank" + self.named(country, item)
        return [
            Score(name, label, *_interval(cell.average[:, k]), cell.rankings, BEST_FIRST)
            for k, label in enumerate(self.survey.generators)
        ]

    def _wins(self, country: str, item: str) -> list[Score]:
        cell, suffix, labels_ = self.cells[country, item], self.named(country, item), self.survey.generators
        return [
            Score(f"ranked above {other}{suffix}", label, *_interval(cell.wins[:, k, j]), cell.rankings)
            for j, other in enumerate(labels_)
            for k, label in enumerate(labels_)
            if k != j
        ]

    def _consensus(self, country: str, item: str) -> list[Score]:
        cell, name = self.cells[country, item], "consensus rank, MMSR + Vote" + self.named(country, item)
        return [
            Score(name, label, float(cell.ranks[k]), NAN, NAN, cell.consensus.labels)
            for k, label in enumerate(self.survey.generators)
        ]

    def _check(self, country: str, item: str) -> list[Score]:
        cell, name = self.cells[country, item], "noisy Bradley–Terry score" + self.named(country, item)
        return [
            Score(name, label, float(cell.check[k]), NAN, NAN, cell.consensus.labels)
            for k, label in enumerate(self.survey.generators)
        ]


def _interval(figure: np.ndarray) -> Interval:
    value, low, high = map(float, figure)
    return Interval(value, low, high)


def aggregate(survey: Survey, seed: int = 0, resamples: int = RESAMPLES) -> Analysis:
    """Every figure of a survey with answers: all together, by item, by country, and by both.

    seed draws the bootstrap's resamples. Pages shown again count for attention only. Raises UserError without answers.
    """
    table, again = rankings(survey)
    if not len(table.who):
        raise UserError("No answer holds a whole page that is not a repeated one; ask participants to finish a page.")
    groups: dict[tuple[str, str], np.ndarray] = {(ALL, ALL): np.ones(len(table.who), dtype=bool)}
    items = {item.id: table.item == k for k, item in enumerate(survey.items)}
    groups |= {(ALL, item): mask for item, mask in items.items()}
    for k, country in enumerate(table.countries):
        here = table.country[table.who] == k
        if here.any():
            groups[country, ALL] = here
            groups |= {(country, item): here & mask for item, mask in items.items()}
    generator = np.random.default_rng(seed)
    all_figures: dict[tuple[str, str], Figures] = {}
    for key, mask in groups.items():
        of_group = cell if ALL in key else figures
        all_figures[key] = of_group(table.part(mask), generator, resamples)
    cells = {key: found for key, found in all_figures.items() if isinstance(found, Cell)}
    return Analysis(survey, table, again, all_figures, cells, attention(survey, table, again))


def figures(found: Rankings, generator: np.random.Generator, resamples: int = RESAMPLES) -> Figures:
    """Average ranks and win rates of some rankings."""
    average, wins = average_ranks_and_win_rates(found, generator, resamples)
    return Figures(len(found.present()), len(found.who), average, wins)


def cell(found: Rankings, generator: np.random.Generator, resamples: int = RESAMPLES) -> Cell:
    """All figures of some rankings, and their consensus."""
    generators, plain = found.ranks.shape[1], figures(found, generator, resamples)
    return Cell(
        **vars(plain),
        consensus=consensus(labels(found), generators),
        check=noisy_bradley_terry(comparisons(found), len(found.participants), generators),
        alpha=krippendorff_alpha(rating_matrix(found)),
        kendall_w=mean_kendall_w(found),
    )


def own_ranks(found: Rankings) -> dict[int, np.ndarray]:
    """Participant -> ranks (G,) of the generators by that participant's own average rank."""
    return {int(who): ranked(-found.ranks[found.who == who].mean(0)) for who in found.present()}
