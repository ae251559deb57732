"""Which rule for the signs of the MMSR skills finds the true order of the generators most often?

    python tests/recorded/survey_signs.py             # all of it, about an hour on one core
    python tests/recorded/survey_signs.py --crowds 5  # a look

MMSR finds the sizes of skills; who mostly contradicts the others, and so counts against the consensus, is a rule of its
own. Crowds are those of survey_simulation.py, of the paper's size and win rates; and the same with 5 or 10 of the 51
people numbering their ranks the wrong way round, for where nobody does, the rule "all +1" is right by construction.
Rules were compared on crowds of DEVELOPMENT: the one is chosen whose orders are right most often in the mean over the
three kinds of crowds and three scopes. What is reported are other crowds, REPORTED. Results go to
records/survey_signs.json; stopped, it goes on where it was (records/survey_signs.part.json).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path += [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

from recorded.survey_simulation import (  # noqa: E402
    COUNTRIES,
    HABIT,
    ITEMS,
    PAGES,
    PAGES_OF_COUNTRY,
    PEOPLE,
    SKILL,
    TASTE,
    TRUE_ORDER,
    community,
    shares,
)
from survey_crowd import Crowd, simulated_rankings  # noqa: E402

from comfy_scoft.common.files import write_atomically  # noqa: E402
from comfy_scoft.survey import mmsr  # noqa: E402
from comfy_scoft.survey.consensus import majority_ranks, shares_won  # noqa: E402
from comfy_scoft.survey.rankings import Labels, Rankings, binary_labels  # noqa: E402

RECORD = Path(__file__).parent / "records" / "survey_signs.json"
DEVELOPMENT, REPORTED = "development", "reported"
SEEDS = {DEVELOPMENT: 11, REPORTED: 13}
KINDS = {"like the paper's": 0, "5 inverted": 5, "10 inverted": 10}
"""Kind of crowd -> how many participants number their ranks the wrong way round."""
Rule = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""Agreement (P, P), sizes of the skills (P,) and number of tasks of a group -> its signs (P,)."""


def ascent(c: np.ndarray, size: np.ndarray, tasks: int, *, beyond: float) -> np.ndarray:
    """From all +1, each in turn is -1 where the weighted agreement with the rest, those of -1 counted against, is below
    -beyond / √tasks; until none changes."""
    known = ~np.isnan(c)
    mean = np.nan_to_num(c) * size / np.maximum(known @ size, 1e-12)[:, None]
    sign = np.ones(len(c))
    for _ in range(100):
        before = sign.copy()
        for i in range(len(c)):
            sign[i] = -1.0 if mean[i] @ sign < -beyond / np.sqrt(tasks) else 1.0
        if (sign == before).all():
            break
    return sign if sign.sum() >= 0 else -sign


def crowd_kit(c: np.ndarray, size: np.ndarray, tasks: int) -> np.ndarray:
    """crowd-kit's own function."""
    from crowdkit.aggregation import MMSR

    found = MMSR._sign_determination_valid(np.nan_to_num(c), np.ones((len(c), 1)))
    return np.where(found[:, 0] < 0, -1.0, 1.0)


def leading(matrix: np.ndarray) -> np.ndarray:
    """Signs of the leading eigenvector, the majority +1."""
    vector = np.linalg.eigh(np.nan_to_num(matrix))[1][:, -1]
    sign = np.where(vector < 0, -1.0, 1.0)
    return sign if sign.sum() >= 0 else -sign


def contradiction(c: np.ndarray, size: np.ndarray, tasks: int, *, beyond: float) -> np.ndarray:
    """-1 where the agreement with all others, weighted by their skills, is below -beyond / √tasks."""
    known = ~np.isnan(c)
    mean = (np.nan_to_num(c) @ size) / np.maximum(known @ size, 1e-12)
    return np.where(mean < -beyond / np.sqrt(tasks), -1.0, 1.0)


RULES: dict[str, Rule] = {
    **{
        f"agreement with the rest, beyond {beyond:g} / √tasks": partial(ascent, beyond=beyond)
        for beyond in (0.0, 1.0, 2.0, 4.0)
    },
    "crowd-kit": crowd_kit,
    "eigenvector of the signs": lambda c, size, tasks: leading(np.sign(c)),
    "eigenvector of the agreement": lambda c, size, tasks: leading(c),
    "eigenvector of the weighted agreement": lambda c, size, tasks: leading(c * np.outer(size, size)),
    **{
        f"agreement with all, beyond {beyond:g} / √tasks": partial(contradiction, beyond=beyond)
        for beyond in (0.0, 1.0, 2.0, 4.0)
    },
    "all +1": lambda c, size, tasks: np.ones(len(c)),
}


def right_orders(labels: Labels) -> dict[str, bool]:
    """Rule -> whether the consensus is the true order."""
    skills = mmsr.skills(labels.values)
    groups = [g for g in mmsr.components(~np.isnan(skills.agreement)) if len(g) >= mmsr.FEWEST]
    found = {}
    for name, rule in RULES.items():
        weight = np.abs(skills.weight)
        for group in groups:
            tasks = int((labels.values[group] != 0).any(0).sum())
            weight[group] *= rule(skills.agreement[np.ix_(group, group)], np.abs(skills.skill[group]), tasks)
        found[name] = majority_ranks(shares_won(labels, weight, len(TRUE_ORDER))).tolist() == TRUE_ORDER
    return found


def crowd(seed: int, number: int, inverted: int, everybody: Crowd) -> Rankings:
    """The rankings of one crowd."""
    generator = np.random.default_rng([seed, inverted, number])
    own = Crowd(everybody.worth, generator.uniform(*SKILL, PEOPLE), TASTE, HABIT)
    each = shares(PEOPLE, PAGES, generator)
    found = simulated_rankings(own, COUNTRIES, each, PAGES_OF_COUNTRY, ITEMS, generator)
    wrong_way = np.isin(found.who, generator.choice(PEOPLE, inverted, replace=False))
    found.ranks[wrong_way] = len(TRUE_ORDER) + 1 - found.ranks[wrong_way]
    return found


def one(seed: int, number: int, inverted: int, everybody: Crowd) -> dict[str, dict[str, list[bool]]]:
    """Scope -> rule -> whether each order of that scope is the true one: one overall, one a country, one an item."""
    found = crowd(seed, number, inverted, everybody)
    of_person = COUNTRIES[found.who]
    scopes = {
        "overall": [found],
        "by country": [found.part(of_person == k) for k in range(COUNTRIES.max() + 1)],
        "by item": [found.part(found.item == k) for k in range(ITEMS)],
    }
    result = {}
    for scope, parts in scopes.items():
        right = [right_orders(binary_labels(part)) for part in parts]
        result[scope] = {rule: [each[rule] for each in right] for rule in RULES}
    return result


def run(crowds: int, record: Path) -> dict[str, Any]:
    """All crowds, from where an interrupted run stopped; writes and returns the record."""
    part_file = record.with_suffix(".part.json")
    done = json.loads(part_file.read_text(encoding="utf-8")) if part_file.exists() else {}
    everybody = community()
    result: dict[str, Any] = {
        "command": f"python tests/recorded/survey_signs.py --crowds {crowds}",
        "about": f"share of true orders in {crowds} crowds of {PEOPLE} people of 5 countries, of each kind and set",
    }
    for seeds, seed in SEEDS.items():
        result[seeds] = {}
        for kind, inverted in KINDS.items():
            rows = done.setdefault(f"{seeds}, {kind}", [])
            while len(rows) < crowds:
                rows.append(one(seed, len(rows), inverted, everybody))
                if len(rows) % 25 == 0 or len(rows) == crowds:
                    write_atomically(part_file, json.dumps(done).encode())
                    print(f"{seeds}, {kind}: {len(rows)} of {crowds}", flush=True)
            result[seeds][kind] = {
                scope: {rule: round(float(np.mean([row[scope][rule] for row in rows])), 4) for rule in RULES}
                for scope in rows[0]
            }
        result[seeds]["mean of all"] = {
            rule: round(float(np.mean([s[rule] for kind in list(result[seeds].values()) for s in kind.values()])), 4)
            for rule in RULES
        }
    means = result[DEVELOPMENT]["mean of all"]
    result["chosen on development crowds"] = max(means, key=lambda rule: means[rule])
    write_atomically(record, (json.dumps(result, indent=1) + "\n").encode())
    part_file.unlink(missing_ok=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crowds", type=int, default=500, help="simulated crowds of each kind and set")
    parser.add_argument("--record", type=Path, default=RECORD, help="where the result is written")
    given = parser.parse_args()
    print(json.dumps(run(given.crowds, given.record), indent=1))


if __name__ == "__main__":
    main()
