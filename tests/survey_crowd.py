"""Simulated participants of known skill, to test the analysis, build the example and plan the number of participants.

A participant with skill s and taste t ranks generators on each page by the utility s (w_g + t_g) + Gumbel noise, w the
true worth. One image is ranked above another with probability sigmoid(s · difference), as in the Bradley-Terry model,
and rankings follow Plackett-Luce. Skill 0 ranks at random.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from comfy_scoft.common.errors import UserError
from comfy_scoft.survey.items import default_items, read_items
from comfy_scoft.survey.languages import FIRST, language
from comfy_scoft.survey.rankings import Rankings
from comfy_scoft.survey.spec import ANSWER_FORMAT, ANSWER_VERSION, Survey, SurveyPage, content_hash

PAPER_GENERATORS = ("Stable Diffusion", "SCoFT+M", "SCoFT+MP", "SCoFT+MPC")
PAPER_WIN_RATES = (0.63, 0.56, 0.62)
"""Share of rankings with each of PAPER_GENERATORS but the first above the one before it (Section 6)."""


@dataclass(frozen=True)
class Crowd:
    """worth (G,); skill (P,); taste: standard deviation of each person's preference for each generator; habit: the
    probability that a person ranks an item like the page's first item."""

    worth: np.ndarray
    skill: np.ndarray
    taste: float = 0.0
    habit: float = 0.0


def win_rate(difference: float, skill: np.ndarray, taste: float) -> float:
    """Share of rankings with the better of two generators above the other, over people and their tastes."""
    from scipy.special import expit

    nodes, weights = _normal_nodes()
    shifted = difference + np.sqrt(2.0) * taste * nodes
    return float((expit(np.outer(skill, shifted)) @ weights).mean() / weights.sum())


@lru_cache(maxsize=1)
def _normal_nodes() -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of Gauss-Hermite quadrature over a normal distribution."""
    return np.polynomial.hermite_e.hermegauss(40)


def worth_of(win_rates: Sequence[float], skill: np.ndarray, taste: float = 0.0) -> np.ndarray:
    """Worths (G,), the first 0, that give each generator the given win rate over the one before it."""
    from scipy.optimize import brentq

    def gap(rate: float) -> float:
        return float(brentq(lambda d: win_rate(d, skill, taste) - rate, -60.0, 60.0))

    return np.concatenate([[0.0], np.cumsum([gap(rate) for rate in win_rates])])


def expected_ranks(crowd: Crowd) -> np.ndarray:
    """The expected average ranks (G,)."""
    g = len(crowd.worth)
    return np.array([
        1.0 + sum(win_rate(crowd.worth[j] - crowd.worth[k], crowd.skill, crowd.taste) for j in range(g) if j != k)
        for k in range(g)
    ])  # fmt: skip


def simulated_ranks(
    crowd: Crowd, pages_each: np.ndarray, items: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(ranks (N, items, G), who (N,)): person p ranks pages_each[p] pages on every item; N is their sum."""
    g = len(crowd.worth)
    liking = crowd.worth + crowd.taste * generator.standard_normal((len(crowd.skill), g))
    who = np.repeat(np.arange(len(crowd.skill)), pages_each)
    merit = (crowd.skill[:, None] * liking)[who, None, :]
    utility = merit + generator.gumbel(size=(len(who), items, g))
    same = generator.random((len(who), items, 1)) < crowd.habit
    utility = np.where(same, utility[:, :1], utility)
    return (-utility).argsort(-1).argsort(-1) + 1, who


def simulated_rankings(
    crowd: Crowd, country: np.ndarray, pages_each: np.ndarray, pages: int, items: int, generator: np.random.Generator
) -> Rankings:
    """Each country has its own `pages` pages, of which person p of country[p] ranks pages_each[p], chosen at random."""
    ranks, who = simulated_ranks(crowd, pages_each, items, generator)
    page = np.concatenate(
        [generator.choice(pages, n, replace=False) + pages * c for n, c in zip(pages_each, country, strict=True)]
    )
    return Rankings(
        participants=tuple(f"p{k}" for k in range(len(country))),
        countries=tuple(f"country {k + 1}" for k in range(int(country.max()) + 1)),
        country=country,
        who=np.repeat(who, items),
        page=np.repeat(page, items),
        item=np.tile(np.arange(items), len(who)),
        ranks=ranks.reshape(-1, ranks.shape[-1]),
    )


def rankings_with_averages(targets: Sequence[float], count: int) -> np.ndarray:
    """`count` complete rankings (count, G) whose average ranks are the targets, to within 1 / (2 count).

    Raises UserError if the targets do not add up to G (G + 1) / 2, or no such rankings are found.
    """
    g = len(targets)
    sums = np.round(np.asarray(targets) * count).astype(int)
    if sums.sum() != count * g * (g + 1) // 2:
        raise UserError(f"Average ranks of {g} generators add up to {g * (g + 1) / 2:g}, not {sums.sum() / count:g}.")
    rng = np.random.default_rng(0)
    ranks = np.tile(np.argsort(np.argsort(targets)) + 1, (count, 1))
    off = ranks.sum(0) - sums
    for _ in range(10_000 * g):  # swap two ranks of one ranking unless that moves the sums farther away
        if not off.any():
            return ranks
        row, (a, b) = rng.integers(count), rng.choice(g, 2, replace=False)
        gap = ranks[row, a] - ranks[row, b]
        if abs(off[a] - gap) + abs(off[b] + gap) <= abs(off[a]) + abs(off[b]):
            ranks[row, [a, b]] = ranks[row, [b, a]]
            off[a] -= gap
            off[b] += gap
    raise UserError(f"No {count} rankings were found with the averages {', '.join(f'{t:g}' for t in targets)}.")


def simulated_survey(generators: Sequence[str], pages: int, repeats: int, seed: int, title: str) -> Survey:
    """A survey of the paper's items without images: `pages` pages, and then `repeats` of them repeated."""
    rng = np.random.default_rng(seed)

    def tokens() -> tuple[str, ...]:
        return tuple(rng.bytes(5).hex() for _ in generators)

    all_pages = [SurveyPage(f"p{k + 1:03d}", f"prompt {k + 1}", seed + k, tokens()) for k in range(pages)]
    for k in range(repeats):
        again = all_pages[int(rng.integers(pages))]
        all_pages.append(replace(again, id=f"p{pages + k + 1:03d}", images=tokens(), repeats=again.id))
    items = read_items(default_items(), language(FIRST), "the culture", len(generators))
    survey = Survey(title, FIRST, items, tuple(generators), tuple(all_pages), seed, "", "")
    digest = content_hash(survey, b"no pictures")
    return replace(survey, id=digest[:12], hash=digest)


def answer_file(
    survey: Survey, ranks: np.ndarray, country: str, years: float, generator: np.random.Generator
) -> dict[str, Any]:
    """The answer file of one participant. ranks (pages, items, G), in the order of the survey."""
    pages = []
    for page, on_items in zip(survey.pages, ranks, strict=True):
        orders = {
            item.id: [page.images[k] for k in np.argsort(order)]
            for item, order in zip(survey.items, on_items, strict=True)
        }
        shown = [page.images[k] for k in generator.permutation(len(page.images))]
        pages.append({"page": page.id, "shown": shown, "ranks": orders})
    minutes = 2 * len(pages)
    return {
        "format": ANSWER_FORMAT,
        "version": ANSWER_VERSION,
        "survey": survey.id,
        "survey_hash": survey.hash,
        "participant": str(uuid.UUID(bytes=generator.bytes(16), version=4)),
        "consented": True,
        "affiliation": {"country": country, "years": years},
        "language": survey.language,
        "started": "2025-03-01T10:00:00.000Z",
        "finished": f"2025-03-01T{10 + minutes // 60}:{minutes % 60:02d}:00.000Z",
        "pages": pages,
    }
