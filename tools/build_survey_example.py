"""The synthetic survey that the pack ships: simulated participants of invented places rank images that do not exist.

    python tools/build_survey_example.py

writes comfy_scoft/survey/example/, the same bytes every time. 24 participants: 12 of nuvia, three of whom agree on the
opposite ranking; 7 of borea, who prefer SCoFT+MP; 5 of aria. One participant of each place ranks at random.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from checkout import ROOT
from survey_crowd import PAPER_GENERATORS, Crowd, answer_file, simulated_ranks, simulated_survey, worth_of

from comfy_scoft.common.files import write_atomically
from comfy_scoft.survey.spec import KEY_ENDING, Survey, to_json

EXAMPLE = ROOT / "comfy_scoft" / "survey" / "example"
SEED = 2024
TITLE = "Synthetic example: no person answered this"
PAGES, REPEATS = 8, 1
PLACES = ("nuvia",) * 12 + ("borea",) * 7 + ("aria",) * 5
AT_RANDOM = (11, 18, 23)
OTHERWISE = (8, 9, 10)
WIN_RATES = (0.7, 0.62, 0.66)
README = """# Synthetic example

Nobody answered this survey. `tools/build_survey_example.py` simulated 24 participants of invented places, so that the
analysis can be tried before the first real answer: three of nuvia rank against the consensus and agree with each other,
the people of borea like SCoFT+MP best, and one participant of each place ranks at random. No figure here says anything
about any model or any people.
"""


def ranks_of(survey: Survey, person: int, generator: np.random.Generator) -> np.ndarray:
    """Ranks (pages, items, G) of one participant; repeated pages are ranked similarly, except at random."""
    worth = worth_of(WIN_RATES, np.ones(1))
    if PLACES[person] == "borea":
        worth = worth[[0, 1, 3, 2]]
    if person in OTHERWISE:
        worth = worth[::-1]
    skill = 0.0 if person in AT_RANDOM else float(generator.uniform(1.0, 2.0))
    crowd = Crowd(worth, np.array([skill]), taste=0.2, habit=0.5)
    ranks, _ = simulated_ranks(crowd, np.array([len(survey.pages)]), len(survey.items), generator)
    number = {page.id: k for k, page in enumerate(survey.pages)}
    for k, page in enumerate(survey.pages):
        if page.repeats and skill:
            kept = generator.random(len(survey.items)) < 0.7
            ranks[k] = np.where(kept[:, None], ranks[number[page.repeats]], ranks[k])
    return ranks


def build(folder: Path = EXAMPLE) -> None:
    survey = simulated_survey(PAPER_GENERATORS, PAGES, REPEATS, SEED, TITLE)
    generator = np.random.default_rng(SEED)
    key = json.dumps(to_json(survey), ensure_ascii=False, indent=1)
    write_atomically(folder / f"synthetic{KEY_ENDING}", key.encode("utf-8"))
    for person, place in enumerate(PLACES):
        years = float(generator.integers(5, 60))
        answers = answer_file(survey, ranks_of(survey, person, generator), place, years, generator)
        text = json.dumps(answers, ensure_ascii=False, separators=(",", ":"))
        write_atomically(folder / f"synthetic-{person + 1:02d}.json", text.encode("utf-8"))
    write_atomically(folder / "README.md", README.encode("utf-8"))


if __name__ == "__main__":
    build()
