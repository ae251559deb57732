"""The answers of a survey as arrays, and rankings as the binary labels of label models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ..common.errors import UserError
from .spec import Survey

UNSAID = "not said"


@dataclass(frozen=True)
class Rankings:
    """N rankings of G generators by P participants.

    participants: tokens, sorted by country; country (P,): index into `countries`, each named by its most frequent
    spelling (case and spaces are ignored). who, page, item (N,): indices into participants, `Survey.pages` and
    `Survey.items`. ranks (N, G): rank 1 … G of each generator, 1 is best.
    """

    participants: tuple[str, ...]
    countries: tuple[str, ...]
    country: np.ndarray
    who: np.ndarray
    page: np.ndarray
    item: np.ndarray
    ranks: np.ndarray

    def part(self, mask: np.ndarray) -> Rankings:
        """The rankings of a mask (N,); participants and countries keep their indices."""
        return replace(self, who=self.who[mask], page=self.page[mask], item=self.item[mask], ranks=self.ranks[mask])

    def present(self) -> np.ndarray:
        """Sorted indices of the participants with a ranking."""
        return np.unique(self.who)


def ranking_tables(survey: Survey) -> tuple[Rankings, Rankings]:
    """The rankings of a survey's pages, and those of its repeated pages (attention checks), with the same participants.

    Raises UserError without answers.
    """
    if not survey.responses:
        raise UserError("This survey has no answers yet: load the participants' files with Load Responses first.")
    written: dict[str, str] = {}
    for response in survey.responses:
        written[response.participant] = written.get(response.participant) or response.country
    spellings: dict[str, Counter] = {}
    for country in written.values():
        spellings.setdefault(_folded(country), Counter())[" ".join(country.split()) or UNSAID] += 1
    keys = sorted(spellings, key=lambda key: (not key, key))
    people = tuple(sorted(written, key=lambda token: (keys.index(_folded(written[token])), token)))
    countries = np.array([keys.index(_folded(written[token])) for token in people])
    names = tuple(min(spellings[key].items(), key=lambda kv: (-kv[1], kv[0]))[0] for key in keys)
    pages = {page.id: k for k, page in enumerate(survey.pages)}
    items = {item.id: k for k, item in enumerate(survey.items)}
    index = {token: k for k, token in enumerate(people)}
    rows = [
        (index[response.participant], pages[ranking.page], items[ranking.item], *_ranks(ranking.order))
        for response in survey.responses
        for ranking in response.rankings
    ]
    table = np.array(rows, dtype=int).reshape(len(rows), 3 + len(survey.generators))
    rankings = Rankings(people, names, countries, table[:, 0], table[:, 1], table[:, 2], table[:, 3:])
    repeated = np.array([bool(page.repeats) for page in survey.pages])[rankings.page]
    return rankings.part(~repeated), rankings.part(repeated)


def _folded(country: str) -> str:
    return " ".join(country.split()).casefold()


def _ranks(order: Sequence[int]) -> list[int]:
    """Rank of each generator; order: indices of generators, best first."""
    return [1 + order.index(generator) for generator in range(len(order))]


@dataclass(frozen=True)
class Labels:
    """Binary labels; a task is: "on this page and item, is the first generator above the second?".

    values (P, T): +1 true, -1 false, 0 not asked; pairs (T, 2): the two generators of each task, lower index first.
    """

    values: np.ndarray
    pairs: np.ndarray


def binary_labels(table: Rankings) -> Labels:
    """Every ranking as its G (G - 1) / 2 binary comparisons (the paper's Section 11.2), T = pages x items x pairs."""
    pairs = np.array(list(combinations(range(table.ranks.shape[1]), 2)))
    asked, task = np.unique(np.stack([table.page, table.item], 1), axis=0, return_inverse=True)
    values = np.zeros((len(table.participants), len(asked), len(pairs)), dtype=np.int8)
    above = table.ranks[:, pairs[:, 0]] < table.ranks[:, pairs[:, 1]]
    values[table.who, task.reshape(-1)] = np.where(above, 1, -1)
    return Labels(values.reshape(len(values), -1), np.tile(pairs, (len(asked), 1)))
