"""Surveys with answers that are made up, simulated, or shipped as the example."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from survey_crowd import PAPER_WIN_RATES, Crowd, simulated_rankings, worth_of

from comfy_scoft.survey import responses
from comfy_scoft.survey.rankings import Rankings
from comfy_scoft.survey.spec import Ranking, Response, Survey

EXAMPLE = Path(responses.__file__).parent / "example"


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


def noisy(people: int = 12, pages: int = 20, seed: int = 0, skill: float = 1.0) -> Rankings:
    generator = np.random.default_rng(seed)
    crowd = Crowd(worth_of(PAPER_WIN_RATES, np.ones(1)), np.full(people, skill), 0.2)
    return simulated_rankings(crowd, np.zeros(people, int), np.full(people, pages), pages, 4, generator)
