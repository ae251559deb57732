"""The result in plain words: who answered, whose images people prefer in how many of a hundred comparisons, what is
open, and which places differ. Nothing is claimed where the interval reaches 50, or where few people answered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..common.text import isolated
from .aggregate import ALL, Analysis, GroupMetrics, own_ranks
from .rankings import UNSAID

FEW_PEOPLE = 5
"""Smaller groups are not spoken for, since one more person could reverse their results."""


@dataclass(frozen=True)
class Share:
    """In how many of a hundred comparisons a model's images are preferred, with its 95 % interval.

    low, high: rounded away from `value`; NaN where one person answered. settled: the interval does not reach 50, and
    FEW_PEOPLE or more answered.
    """

    name: str
    value: int
    low: float
    high: float
    people: int

    @property
    def settled(self) -> bool:
        return self.people >= FEW_PEOPLE and (self.low > 50 or self.high < 50)

    @property
    def interval(self) -> str:
        return "interval unknown" if math.isnan(self.low) else f"{self.low:.0f} to {self.high:.0f}"

    @property
    def text(self) -> str:
        """ "78 of 100 comparisons (71 to 84)"."""
        return f"{self.value} of 100 comparisons ({self.interval})"


def share(name: str, figure: Iterable[float], people: int) -> Share:
    """A share from (value, low, high) in [0, 1]."""
    value, low, high = (100 * float(x) for x in figure)
    if math.isnan(low):
        return Share(name, round(value), low, high, people)
    return Share(name, round(value), math.floor(low + 1e-9), math.ceil(high - 1e-9), people)


@dataclass(frozen=True)
class Pair(Share):
    """Two models, of which `better` has the larger share."""

    better: str
    other: str


def pairs(group: GroupMetrics, labels: Sequence[str]) -> list[Pair]:
    """Every two models once, those of the best average rank first."""
    order = [int(k) for k in np.argsort(group.average[0], kind="stable")]
    found = []
    for one, two in combinations(order, 2):
        a, b = (one, two) if group.wins[0, one, two] >= 0.5 else (two, one)
        of = share(f"{labels[a]} over {labels[b]}", group.wins[:, a, b], group.people)
        found.append(Pair(**vars(of), better=labels[a], other=labels[b]))
    return found


def best_model(found: Analysis) -> str:
    """The model with the best average rank."""
    return found.survey.generators[int(np.argmin(found.whole.average[0]))]


def by_place_and_question(found: Analysis) -> list[Share]:
    """The best model's share of all its comparisons: of all together, if `pairs` does not say it, on each question and
    of each place, where there are several.

    With G models and the average rank r it is (G − r) / (G − 1).
    """
    count, rows = len(found.survey.generators), []
    best = found.survey.generators.index(best_model(found))
    for (country, item), group in found.cells.items():
        several = len(_places(found)) if country else len(found.survey.items) if item else count - 1
        if several == 1:
            continue
        value, low, high = (count - group.average[:, best]) / (count - 1)
        rows.append(share(found.titles.get(item) or country or "All together", (value, high, low), group.people))
    return rows


NAMED = 8
"""Places named in a sentence; of more, those with the fewest people are only counted."""


def _places(found: Analysis) -> dict[str, int]:
    """Each place with the number of people, the largest first."""
    counts = {country: group.people for (country, item), group in found.cells.items() if country and item == ALL}
    return dict(sorted(counts.items(), key=lambda entry: (entry[0] == UNSAID, -entry[1])))


def who_answered(found: Analysis) -> str:
    """ "24 people answered: 12 from nuvia, 7 from borea and 5 who did not say from where." """
    places = _places(found)
    named = [f"{count} from {isolated(place)}" for place, count in places.items() if place != UNSAID]
    if len(named) > NAMED:
        rest = [count for place, count in places.items() if place != UNSAID][NAMED:]
        named[NAMED:] = [f"{sum(rest)} from {len(rest)} other places"]
    named += [f"{places[UNSAID]} who did not say from where"] if UNSAID in places else []
    questions, pages = len(found.survey.items), len(np.unique(found.table.page))
    return (
        f"{people_text(found.whole.people)} answered: {listed(named)}. They compared the images of "
        f"{len(found.survey.generators)} models on {counted(pages, 'page')} and {counted(questions, 'question')}."
    )


def result(found: Analysis) -> str:
    """To whose images people prefer those of the best model; or that this is open."""
    labels = [isolated(label) for label in found.survey.generators]
    best = isolated(best_model(found))
    sure = [pair for pair in pairs(found.whole, labels) if pair.settled and pair.better == best]
    if not sure:
        return "It is open whose images people prefer."
    shares = [f"to those of {pair.other} in {pair.value} ({pair.interval})" for pair in sure]
    return f"People preferred the images of {best} {listed(shares)} of 100 comparisons."


def still_open(found: Analysis) -> list[str]:
    """A sentence for each two models whose order is not settled, and what to do; or that there are none."""
    unsure = [pair for pair in pairs(found.whole, found.survey.generators) if not pair.settled]
    sentences = [f"{p.better} or {p.other} is open: {p.better} was preferred in {_divided(found, p)}." for p in unsure]
    if not unsure:
        return ["Nothing is open: no interval reaches 50, which would be no difference."]
    if found.whole.people < FEW_PEOPLE:
        few = f"answers of {people_text(found.whole.people)} only: fewer than {FEW_PEOPLE} are too few for conclusions"
        return [*sentences, f"There are {few}."]
    return [*sentences, "An interval that reaches 50, no difference, settles nothing. Answers of more people may."]


def _divided(found: Analysis, pair: Pair) -> str:
    """ "50 of 100 comparisons (2 to 98); of 6 people, 3 mostly preferred base and 3 SCoFT": no difference, or two."""
    better, other = sides(found, pair)
    if not better or not other:
        return pair.text
    people = people_text(found.whole.people)
    return f"{pair.text}; of {people}, {better} mostly preferred {pair.better} and {other} {pair.other}"


def sides(found: Analysis, pair: Pair) -> tuple[int, int]:
    """How many people rank the first of two models better, and how many the other, on the average of their answers."""
    a, b = (found.survey.generators.index(name) for name in (pair.better, pair.other))
    ranks = own_ranks(found.table).values()
    return sum(bool(r[a] < r[b]) for r in ranks), sum(bool(r[b] < r[a]) for r in ranks)


def divided(found: Analysis) -> bool:
    """Whether there are people on both sides of a pair that is open."""
    unsure = [pair for pair in pairs(found.whole, found.survey.generators) if not pair.settled]
    return any(all(sides(found, pair)) for pair in unsure)


def places_that_differ(found: Analysis) -> list[str]:
    """A sentence for each place that prefers, of two models, not the one that all together prefer; where these prefer
    neither, for each place that does."""
    labels, places = [isolated(label) for label in found.survey.generators], _places(found)
    whole = {(pair.better, pair.other): pair.value for pair in pairs(found.whole, labels)}
    whole |= {(other, better): 100 - value for (better, other), value in whole.items()}
    sentences = []
    for place in places if len(places) > 1 else ():
        own = pairs(found.cells[place, ALL], labels)
        ties = [pair for pair in own if pair.settled and whole[pair.better, pair.other] == 50]
        other_way = [pair for pair in own if pair.value > 50 > whole[pair.better, pair.other]] + ties
        for pair in [pair for pair in other_way if pair.settled] or other_way[:1]:
            chance = "" if pair.settled else "; this may be chance"
            what = f"{pair.better} was preferred to {pair.other} in {pair.text}"
            all_ = whole[pair.better, pair.other]
            sentences.append(
                f"{isolated(place)}, {people_text(pair.people)}: {what}, by all together in {all_}{chance}."
            )
    return sentences


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def counted(n: int, what: str) -> str:
    """ "1 page", "8 pages"."""
    return f"{n} {what}" + ("" if n == 1 else "s")


def people_text(n: int) -> str:
    """ "1 person", "7 people"."""
    return "1 person" if n == 1 else f"{n} people"
