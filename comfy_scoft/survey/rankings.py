"""The answers of a survey as arrays, and rankings as the binary labels that label models read."""

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

    participants: tokens, those of one country together; country (P,): index into `countries`, whose names are those
    most often written, spellings that differ in case or spaces being one country. who, page, item (N,): indices into
    participants, `Survey.pages` and `Survey.items`. ranks (N, G): rank 1 … G of each generator, 1 the best.
    """

    participants: tuple[str, ...]
    countries: tuple[str, ...]
    country: np.ndarray
    who: np.ndarray
    page: np.ndarray
    item: np.ndarray
    ranks: np.ndarray

    def part(self, chosen: np.ndarray) -> Rankings:
        """The rankings that a mask (N,) chooses; participants and countries keep their numbers."""
        return replace(
            self, who=self.who[chosen], page=self.page[chosen], item=self.item[chosen], ranks=self.ranks[chosen]
        )

    def present(self) -> np.ndarray:
        """Indices of the participants who have a ranking here, sorted."""
        return np.unique(self.who)


def rankings(survey: Survey) -> tuple[Rankings, Rankings]:
    """The rankings of a survey's pages, and those of its repeated pages (attention checks), with the same participants.

    Repeated pages count for attention only: the same image is not judged twice. Raises UserError without answers.
    """
    if not survey.responses:
        raise UserError("This survey has no answers yet: load the participants' files with Load Responses first.")
    named: dict[str, str] = {}
    for response in survey.responses:
        named[response.participant] = named.get(response.participant) or response.country
    spellings: dict[str, Counter] = {}
    for written in named.values():
        spellings.setdefault(_folded(written), Counter())[" ".join(written.split()) or UNSAID] += 1
    folded = sorted(spellings, key=lambda f: (not f, f))
    people = tuple(sorted(named, key=lambda token: (folded.index(_folded(named[token])), token)))
    country = np.array([folded.index(_folded(named[token])) for token in people])
    names = tuple(min(spellings[f].items(), key=lambda kv: (-kv[1], kv[0]))[0] for f in folded)
    pages = {page.id: k for k, page in enumerate(survey.pages)}
    items = {item.id: k for k, item in enumerate(survey.items)}
    place = {token: k for k, token in enumerate(people)}
    rows = [
        (place[response.participant], pages[found.page], items[found.item], *_ranks(found.order))
        for response in survey.responses
        for found in response.rankings
    ]
    table = np.array(rows, dtype=int).reshape(len(rows), 3 + len(survey.generators))
    whole = Rankings(people, names, country, table[:, 0], table[:, 1], table[:, 2], table[:, 3:])
    repeated = np.array([bool(page.repeats) for page in survey.pages])[whole.page]
    return whole.part(~repeated), whole.part(repeated)


def _folded(country: str) -> str:
    return " ".join(country.split()).casefold()


def _ranks(order: Sequence[int]) -> list[int]:
    """Rank of each generator from the order, best first."""
    ranks = [0] * len(order)
    for rank, generator in enumerate(order, start=1):
        ranks[generator] = rank
    return ranks


@dataclass(frozen=True)
class Labels:
    """Binary labels: a task is "on this page and item, is generator `better` above generator `worse`?".

    values (P, T): +1 true, -1 false, 0 not asked; pairs (T, 2): the two generators of each task, lower index first.
    """

    values: np.ndarray
    pairs: np.ndarray


def labels(found: Rankings) -> Labels:
    """Every ranking as its G (G - 1) / 2 binary comparisons (the paper's Section 11.2), T = pages x items x pairs."""
    generators = found.ranks.shape[1]
    pairs = np.array(list(combinations(range(generators), 2)))
    asked, task = np.unique(np.stack([found.page, found.item], 1), axis=0, return_inverse=True)
    values = np.zeros((len(found.participants), len(asked), len(pairs)), dtype=np.int8)
    above = found.ranks[:, pairs[:, 0]] < found.ranks[:, pairs[:, 1]]
    values[found.who, task.reshape(-1)] = np.where(above, 1, -1)
    return Labels(values.reshape(len(values), -1), np.tile(pairs, (len(asked), 1)))
