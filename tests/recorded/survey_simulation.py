"""Does the survey's analysis find what is there? Simulated participants at the paper's size, and the truth beside it.

    python tests/recorded/survey_simulation.py            # all of it, about ten minutes on one core
    python tests/recorded/survey_simulation.py --runs 10  # a look

51 people of five countries rank 766 pages in all on four items; each country has pages of its own. Adjacent generators
are ranked above each other at the paper's rates (.63, .56, .62). People differ in skill and taste, and rank the items
of one page alike half of the time. Results go to records/survey_simulation.json; stopped, it goes on where
it was (records/survey_simulation.part.json).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path += [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

from survey_crowd import PAPER_WIN_RATES, Crowd, expected_ranks, simulated_rankings, win_rate, worth_of  # noqa: E402

from comfy_scoft.common.files import write_atomically  # noqa: E402
from comfy_scoft.survey.bradley_terry import comparisons, noisy_bradley_terry  # noqa: E402
from comfy_scoft.survey.consensus import consensus, ranked  # noqa: E402
from comfy_scoft.survey.intervals import average_ranks_and_win_rates  # noqa: E402
from comfy_scoft.survey.rankings import Rankings, binary_labels  # noqa: E402

RECORD = Path(__file__).parent / "records" / "survey_simulation.json"
PEOPLE, PAGES, ITEMS = 51, 766, 4
COUNTRIES = np.repeat(np.arange(5), [14, 11, 10, 9, 7])
PAGES_OF_COUNTRY = 30
FEWEST = 4
"""Pages that everybody ranks at least."""
SKILL = (0.5, 1.5)
TASTE, HABIT = 0.5, 0.5
RANDOM = 5
"""Participants who rank at random, in the part that has some."""
TRUE_ORDER = [4.0, 3.0, 2.0, 1.0]


def community() -> Crowd:
    """Everybody who could take part: skills spread evenly, worths with which they have the paper's win rates."""
    skill = np.linspace(*SKILL, 201)
    return Crowd(worth_of(PAPER_WIN_RATES, skill, TASTE), skill, TASTE, HABIT)


def participants(everybody: Crowd, country: np.ndarray, pages: int, generator: np.random.Generator) -> Rankings:
    """People drawn from the community and their rankings; `pages` in all, unevenly shared."""
    people = len(country)
    crowd = Crowd(everybody.worth, generator.uniform(*SKILL, people), TASTE, HABIT)
    return simulated_rankings(crowd, country, shares(people, pages, generator), PAGES_OF_COUNTRY, ITEMS, generator)


def shares(people: int, pages: int, generator: np.random.Generator) -> np.ndarray:
    """How many pages each one ranks: FEWEST and more, at most all of a country's."""
    eager = generator.dirichlet(np.full(people, 6.0))
    each = np.full(people, FEWEST)
    while (left := pages - each.sum()) > 0:
        each = np.minimum(each + generator.multinomial(left, eager), PAGES_OF_COUNTRY)
    return each


def recovery(run: int, everybody: Crowd) -> dict[str, Any]:
    """Which methods find the order of the generators."""
    generator = np.random.default_rng([1, run])
    found = participants(everybody, COUNTRIES, PAGES, generator)
    agreed = consensus(binary_labels(found), 4)
    check = noisy_bradley_terry(comparisons(found), PEOPLE, 4)
    ranks = {
        "MMSR + Vote": agreed.rank,
        "average rank": ranked(-found.ranks.mean(0)),
        "noisy Bradley-Terry": ranked(check),
    }
    right = {name: bool((value == TRUE_ORDER).all()) for name, value in ranks.items()}
    return {**right, "converged": agreed.skills.converged, "iterations": agreed.skills.iterations}


def random_answerers(run: int, everybody: Crowd) -> dict[str, Any]:
    """The weights that people who rank at random get, beside everybody else's, and whether the order still is found."""
    generator = np.random.default_rng([2, run])
    skill = generator.uniform(*SKILL, PEOPLE)
    lost = generator.choice(PEOPLE, RANDOM, replace=False)
    skill[lost] = 0.0
    crowd = Crowd(everybody.worth, skill, TASTE, HABIT)
    each = shares(PEOPLE, PAGES, generator)
    found = simulated_rankings(crowd, COUNTRIES, each, PAGES_OF_COUNTRY, ITEMS, generator)
    agreed = consensus(binary_labels(found), 4)
    weight = agreed.skills.weight
    others = np.delete(weight, lost)
    return {
        "MMSR + Vote": bool((agreed.rank == TRUE_ORDER).all()),
        "mean weight of random answerers": float(weight[lost].mean()),
        "mean weight of the others": float(others.mean()),
        "random answerers below the others' median weight": float((weight[lost] < np.median(others)).mean()),
    }


def coverage(run: int, everybody: Crowd, country: np.ndarray, pages: int, one_item: bool) -> dict[str, list[bool]]:
    """Whether each 95 % interval holds the truth: average ranks of all generators, win rates of neighbours."""
    generator = np.random.default_rng([3, len(country), int(one_item), run])
    found = participants(everybody, country, pages, generator)
    if one_item:
        found = found.part(found.item == 0)
    average, wins = average_ranks_and_win_rates(found, generator)
    worth = everybody.worth
    true_ranks, true_wins = truth()
    near = [wins[:, k + 1, k] for k in range(len(worth) - 1)]
    return {
        "average rank": [bool(a[1] <= t <= a[2]) for a, t in zip(average.T, true_ranks, strict=True)],
        "win rate": [bool(w[1] <= t <= w[2]) for w, t in zip(near, true_wins, strict=True)],
    }


@lru_cache(maxsize=1)
def truth() -> tuple[np.ndarray, list[float]]:
    """The average ranks and the neighbours' win rates of the whole community."""
    everybody = community()
    gaps = np.diff(everybody.worth)
    return expected_ranks(everybody), [win_rate(float(gap), everybody.skill, TASTE) for gap in gaps]


def share_of(rows: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([np.mean(row[name]) for row in rows]))


def summary(parts: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means over the runs of each part, four digits."""
    found: dict[str, Any] = {}
    for part, rows in parts.items():
        found[part] = {"runs": len(rows)} | {name: round(share_of(rows, name), 4) for name in rows[0]}
    return found


def everything(runs: int, coverage_runs: int) -> dict[str, tuple[int, Callable[[int], dict[str, Any]]]]:
    """Part -> (runs, what one run is)."""
    everybody = community()
    seven, fourteen = np.zeros(7, dtype=int), np.zeros(14, dtype=int)
    return {
        "order recovered": (runs, lambda k: recovery(k, everybody)),
        f"with {RANDOM} random answerers": (runs, lambda k: random_answerers(k, everybody)),
        "coverage, 51 people, all items": (coverage_runs, lambda k: coverage(k, everybody, COUNTRIES, PAGES, False)),
        "coverage, 51 people, one item": (coverage_runs, lambda k: coverage(k, everybody, COUNTRIES, PAGES, True)),
        "coverage, 14 people, all items": (coverage_runs, lambda k: coverage(k, everybody, fourteen, 210, False)),
        "coverage, 7 people, all items": (coverage_runs, lambda k: coverage(k, everybody, seven, 105, False)),
    }


def run(runs: int, coverage_runs: int, record: Path) -> dict[str, Any]:
    """All parts, from where an interrupted run stopped; writes and returns the record."""
    part_file = record.with_suffix(".part.json")
    done = json.loads(part_file.read_text(encoding="utf-8")) if part_file.exists() else {}
    seconds = done.pop("seconds", 0.0)
    start = time.monotonic()
    for name, (count, one) in everything(runs, coverage_runs).items():
        rows = done.setdefault(name, [])
        while len(rows) < count:
            rows.append(one(len(rows)))
            if len(rows) % 50 == 0 or len(rows) == count:
                state = {**done, "seconds": seconds + time.monotonic() - start}
                write_atomically(part_file, json.dumps(state).encode())
                print(f"{name}: {len(rows)} of {count}", flush=True)
    result = {
        "command": f"python tests/recorded/survey_simulation.py --runs {runs} --coverage-runs {coverage_runs}",
        "setting": {
            "people": PEOPLE,
            "pages": PAGES,
            "items": ITEMS,
            "adjacent win rates": list(PAPER_WIN_RATES),
            "skill": list(SKILL),
            "taste": TASTE,
            "habit": HABIT,
            "nominal coverage": 0.95,
        },
        "results": summary(done),
        "seconds": round(seconds + time.monotonic() - start),
    }
    write_atomically(record, (json.dumps(result, indent=1) + "\n").encode())
    part_file.unlink(missing_ok=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="simulated surveys for the order and the weights")
    parser.add_argument("--coverage-runs", type=int, default=1000, help="simulated surveys for each coverage")
    parser.add_argument("--record", type=Path, default=RECORD, help="where the result is written")
    given = parser.parse_args()
    print(json.dumps(run(given.runs, given.coverage_runs, given.record), indent=1))


if __name__ == "__main__":
    main()
