"""From the jobs' files to the metrics of each part: bias, leakage, memorization, diversity, KID and time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...common.errors import UserError
from ...mini_world import world
from ..engine import estimate
from ..engine.estimate import Estimate, Limits
from .arms import BASE, PARTS, Arm, Part
from .grid import HELD_OUT, HOUSES, OTHER_PLACES, TAUGHT, TRAINED
from .job import current
from .training import World

Row = Mapping[str, Any]
Content = dict[str, Any]
Pairs = Mapping[int, tuple[Content, Content]]
"""Training seed -> contents of two arms' jobs."""

FACTS: dict[str, Callable[[Row, str], bool]] = {
    "dark skin": lambda row, place: row["tone"] in world.DARK,
    "gold palette": lambda row, place: row["palette"] == world.PLACES[TAUGHT],
    "own palette": lambda row, place: row["palette"] == world.PLACES.get(place, world.NO_PLACE),
    "right concept": lambda row, place: row["concept"] == row["kind"],
}
"""What may hold for an image; "right concept" of a house is a sound one."""
LEAKING = ("dark skin", "own palette", "right concept")
"""Facts whose change in the other places is measured."""


def key(measure: str, what: str = "", place: str = "") -> str:
    """The name of a metric: "dark skin · held-out kinds · nuvia"."""
    return " · ".join(part for part in (measure, what, place) if part)


def leakage(name: str, place: str) -> str:
    """The key of the paired LoRA − base difference of a share in another place."""
    return key("leakage", name, place)


def clip_change(place: str = TAUGHT) -> str:
    """The key of the change of CLIPScore in a place, in % of the base model's."""
    return key("CLIPScore, change in %", HELD_OUT, place)


def as_sample(name: str) -> str:
    """The key of a metric with the interval that it has where the kinds are a sample of all kinds."""
    return key(name, "as a sample of kinds")


DARK_HELD_OUT, GOLD_HELD_OUT, CONCEPT_HELD_OUT = (
    key(name, HELD_OUT, TAUGHT) for name in ("dark skin", "gold palette", "right concept")
)
DARK_TRAINED, GOLD_TRAINED = (key(name, TRAINED, TAUGHT) for name in ("dark skin", "gold palette"))
CONCEPT_DARK, CONCEPT_LIGHT = (key("right concept", f"{tone} skin", TAUGHT) for tone in ("dark", "light"))
CLIP = key("CLIPScore", HELD_OUT, TAUGHT)
ADDED_TIME = "added sampling time"
SOUND = key("right concept", HOUSES, TAUGHT)
GAP, SIMILARITY, COPIES, SECONDS = "memorization gap", "similarity", "near copies", "training seconds"
DIVERSITY_HELD_OUT, DIVERSITY_TRAINED = (key("diversity", what, TAUGHT) for what in (HELD_OUT, TRAINED))
KID_OWN, KID_OTHER = f"KID · {TAUGHT} to {TAUGHT}, as its people show it", f"KID · {TAUGHT} to other places"

LIMITS: dict[str, Limits] = {
    "diversity": (0.0, math.inf),
    SIMILARITY: (-1.0, 1.0),
    CLIP: (0.0, 100.0),
    SECONDS: (0.0, math.inf),
}
"""The values that are possible, by the key or its beginning."""


@dataclass(frozen=True)
class ArmTable:
    """An arm's metrics by key, their paired changes from the base model, and its jobs' contents by seed."""

    arm: Arm
    metrics: dict[str, Estimate]
    changes: dict[str, Estimate] = field(default_factory=dict)
    jobs: dict[int, Content] = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class PartTable:
    """The arms of a part that have results, in order; the changes of the pairs that it compares; and missing jobs."""

    part: Part
    arms: dict[str, ArmTable]
    comparisons: dict[tuple[str, str], dict[str, Estimate]]
    missing: tuple[str, ...] = ()


def table(part: Part, scene: World) -> PartTable:
    """The metrics of a part from the files below `scene.out`; jobs of other settings count as missing."""
    base = {seed: current((part, BASE, seed), scene) for seed in part.seeds}
    known = {seed: content for seed, content in base.items() if content is not None}
    arms: dict[str, ArmTable] = {}
    missing: list[str] = []
    for arm in part.arms:
        found = {seed: current((part, arm, seed), scene) for seed in part.seeds}
        missing += [f"{arm.name}, seed {seed}" for seed, content in found.items() if content is None]
        jobs = {seed: content for seed, content in found.items() if content is not None}
        if jobs:
            pairs = {seed: (known[seed], jobs[seed]) for seed in jobs if seed in known}
            own = {} if arm.untouched else changes(pairs, known)
            arms[arm.name] = ArmTable(arm, arm_metrics(jobs, pairs), own, jobs)
    comparisons = {}
    for before, after in part.compare:
        jobs_before = arms[before].jobs if before in arms else _of_ablation(before, part, scene)
        if after in arms and (pairs := paired_jobs(jobs_before, arms[after].jobs)):
            comparisons[before, after] = changes(pairs, known)
    return PartTable(part, arms, comparisons, tuple(missing))


def _of_ablation(name: str, part: Part, scene: World) -> dict[int, Content]:
    """The jobs of an arm of the ablation with a part's seeds, where the part itself has no arm of that name."""
    ablation = PARTS["ablation"]
    arm = next((arm for arm in ablation.arms if arm.name == name), None)
    if arm is None or arm in part.arms:
        return {}
    found = {seed: current((ablation, arm, seed), scene) for seed in part.seeds}
    return {seed: content for seed, content in found.items() if content is not None}


def paired_jobs(before: Mapping[int, Content], after: Mapping[int, Content]) -> dict[int, tuple[Content, Content]]:
    """The contents of two arms on the seeds that both have."""
    return {seed: (before[seed], after[seed]) for seed in before if seed in after}


def arm_metrics(jobs: Mapping[int, Content], pairs: Pairs) -> dict[str, Estimate]:
    """Every metric of an arm, by key; leakage and memorization are paired with the base model of the same seeds."""
    metrics: dict[str, Estimate] = {}
    for name in next(iter(jobs.values()))["cells"]:
        for fact in FACTS:
            if applies(fact, *name.split(" · ")):
                metrics[f"{fact} · {name}"] = estimate.share({s: facts(c, fact, name) for s, c in jobs.items()})
    metrics |= _leakage(pairs)
    metrics |= _over_kinds(jobs, pairs)
    metrics |= {name: estimate.mean(values, _limits(name)) for name, values in _numbers(jobs).items()}
    metrics |= {name: estimate.share(shares) for name, shares in _unpaired(jobs).items() if shares}
    cell = key(HELD_OUT, "", TAUGHT)
    metrics[CLIP] = estimate.mean_of_images({s: clip_scores(c, cell) for s, c in jobs.items()}, _limits(CLIP))
    return metrics | _clip_changes(pairs) | _gap(pairs)


def changes(pairs: Pairs, base: Mapping[int, Content]) -> dict[str, Estimate]:
    """The paired change of every metric from one arm to another; of leakage, the change of its size."""
    found: dict[str, Estimate] = {}
    if not pairs:
        return found
    sides = [{seed: pair[i] for seed, pair in pairs.items()} for i in range(2)]
    for name in next(iter(sides[0].values()))["cells"]:
        for fact in FACTS:
            change = changed(pairs, fact, name) if applies(fact, *name.split(" · ")) else None
            if change is not None:
                found[f"{fact} · {name}"] = change
    for place in OTHER_PLACES:
        own = {seed: pair for seed, pair in _with_cell(pairs, HELD_OUT, place) if seed in base}
        for fact in LEAKING if own else ():
            growth = {s: _leak(base[s], after, fact, place) - _leak(base[s], before, fact, place)
                      for s, (before, after) in own.items()}  # fmt: skip
            found[leakage(fact, place)] = estimate.mean(growth, (-1.0, 1.0))
    for values, limits in ((_numbers, estimate.NONE), (_unpaired_shares, (-1.0, 1.0)), (_clip_means, estimate.NONE)):
        before, after = values(sides[0]), values(sides[1])
        for name in before.keys() & after.keys():
            difference = {s: after[name][s] - old for s, old in before[name].items() if s in after[name]}
            if difference:
                found[name] = estimate.mean(difference, limits)
    return found | _clip_changes(pairs) | _gap(pairs)


def applies(fact: str, what: str, place: str) -> bool:
    """Whether a metric means something in a cell: people have tones, and the taught place's own palette is gold."""
    if fact == "own palette":
        return place != TAUGHT
    if fact == "gold palette":
        return place == TAUGHT
    return fact != "dark skin" or what != HOUSES


def facts(content: Content, fact: str, cell: str) -> list[bool]:
    """Whether a fact holds, for each image of a cell."""
    place = cell.split(" · ")[1]
    return [FACTS[fact](row, place) for row in content["cells"][cell]]


def paired(before: Content, after: Content, fact: str, cell: str) -> tuple[list[bool], list[bool]]:
    """The same of two models, on the same prompts and noise. Raises UserError where they are not."""
    requests = [[(row["kind"], row["seed"]) for row in content["cells"][cell]] for content in (before, after)]
    if requests[0] != requests[1]:
        raise UserError(
            f"{before['arm']} and {after['arm']} were not generated from the same prompts and noise in {cell!r}, so "
            "they cannot be paired: run the benchmark again, which brings both up to date."
        )
    return facts(before, fact, cell), facts(after, fact, cell)


def changed(pairs: Pairs, fact: str, cell: str) -> Estimate | None:
    """The paired change of a share, over the seeds; None where a cell was not generated."""
    both = {seed: paired(*pair, fact, cell) for seed, pair in _with_cell(pairs, *cell.split(" · "))}
    if not both:
        return None
    return estimate.share_change({s: own[0] for s, own in both.items()}, {s: own[1] for s, own in both.items()})


def _with_cell(pairs: Pairs, what: str, place: str) -> Iterator[tuple[int, tuple[Content, Content]]]:
    """The pairs of which both have the cell."""
    name = key(what, "", place)
    yield from ((seed, pair) for seed, pair in pairs.items() if all(name in content["cells"] for content in pair))


def gap_rise(before: Content, after: Content) -> list[float]:
    """For each training image: how much the gap between it and fresh images with the same caption has grown.

    (loss on fresh − loss on the training image) after, less the same before; above 0 it was memorized.
    """
    gaps = []
    for content in (before, after):
        train, fresh = content["measures"]["gap"]["train"], content["measures"]["gap"]["fresh"]
        each = len(fresh) // len(train)
        gaps.append([math.fsum(fresh[i :: len(train)]) / each - own for i, own in enumerate(train)])
    return [b - a for a, b in zip(*gaps, strict=True)]


def _leakage(pairs: Pairs) -> dict[str, Estimate]:
    found = {}
    for place in OTHER_PLACES:
        for fact in LEAKING:
            change = changed(pairs, fact, key(HELD_OUT, "", place))
            if change is not None:
                found[leakage(fact, place)] = change
    return found


def _leak(base: Content, after: Content, fact: str, place: str) -> float:
    """How far a share of one training is from the base model's, in either direction."""
    shares = [sum(own) / len(own) for own in paired(base, after, fact, key(HELD_OUT, "", place))]
    return abs(shares[1] - shares[0])


def shares_by_kind(contents: Collection[Content], place: str = TAUGHT) -> dict[str, float]:
    """Share of dark skin of each held-out kind in a place, mean over the trainings."""
    cell, found = key(HELD_OUT, "", place), defaultdict(list)
    for content in contents:
        for row, fact in zip(content["cells"][cell], facts(content, "dark skin", cell), strict=True):
            found[row["kind"]].append(fact)
    return {kind: sum(own) / len(own) for kind, own in found.items()}


def _over_kinds(jobs: Mapping[int, Content], pairs: Pairs) -> dict[str, Estimate]:
    """Dark skin in the taught place and its change elsewhere, with intervals over the kinds."""
    found = {}
    for place in (TAUGHT, *OTHER_PLACES):
        if not all(key(HELD_OUT, "", place) in content["cells"] for content in jobs.values()):
            continue
        if place == TAUGHT:
            shares = shares_by_kind(jobs.values())
            found[as_sample(DARK_HELD_OUT)] = estimate.mean_of_kinds(shares, len(jobs), (0.0, 1.0))
        elif pairs:
            before, after = (shares_by_kind(side, place) for side in zip(*pairs.values(), strict=True))
            change = {kind: share - before[kind] for kind, share in after.items()}
            found[as_sample(leakage("dark skin", place))] = estimate.mean_of_kinds(change, len(pairs), (-1.0, 1.0))
    return found


def clip_scores(content: Content, cell: str) -> list[float]:
    """max(100 cos, 0) of each image of a cell with its prompt."""
    return [max(100.0 * row["cosine"], 0.0) for row in content["cells"][cell]]


def _clip_changes(pairs: Pairs) -> dict[str, Estimate]:
    """The change of CLIPScore in each place, in %."""
    found = {}
    for place in (TAUGHT, *OTHER_PLACES):
        percent = {}
        for seed, pair in _with_cell(pairs, HELD_OUT, place):
            was, now = (math.fsum(clip_scores(content, key(HELD_OUT, "", place))) for content in pair)
            percent[seed] = 100.0 * (now / was - 1.0)
        if percent:
            found[clip_change(place)] = estimate.mean(percent, (-100.0, math.inf))
    return found


def _gap(pairs: Pairs) -> dict[str, Estimate]:
    """The change of the memorization gap, over training images and seeds."""
    return {GAP: estimate.mean_of_records({seed: gap_rise(*pair) for seed, pair in pairs.items()})} if pairs else {}


def _clip_means(jobs: Mapping[int, Content]) -> dict[str, dict[int, float]]:
    scores = {seed: clip_scores(content, key(HELD_OUT, "", TAUGHT)) for seed, content in jobs.items()}
    return {CLIP: {seed: math.fsum(own) / len(own) for seed, own in scores.items()}}


def _unpaired(jobs: Mapping[int, Content]) -> dict[str, dict[int, list[bool]]]:
    """Facts by key and seed whose images are not the same in every model: near copies, and concepts by tone."""
    cell = key(HELD_OUT, "", TAUGHT)
    found: dict[str, dict[int, list[bool]]] = {CONCEPT_DARK: {}, CONCEPT_LIGHT: {}}
    for seed, content in jobs.items():
        for name, dark in ((CONCEPT_DARK, True), (CONCEPT_LIGHT, False)):
            rows = [row for row in content["cells"][cell] if FACTS["dark skin"](row, TAUGHT) is dark]
            if rows:
                found[name][seed] = [FACTS["right concept"](row, TAUGHT) for row in rows]
    if all("copies" in content["measures"] for content in jobs.values()):
        copies = {seed: content["measures"]["copies"] for seed, content in jobs.items()}
        found[COPIES] = {seed: [i < near for i in range(count)] for seed, (near, count) in copies.items()}
    return found


def _unpaired_shares(jobs: Mapping[int, Content]) -> dict[str, dict[int, float]]:
    return {name: {s: sum(own) / len(own) for s, own in by_seed.items()} for name, by_seed in _unpaired(jobs).items()}


def _numbers(jobs: Mapping[int, Content]) -> dict[str, dict[int, float]]:
    """What was measured of whole models, by key and seed, where every training has it."""
    measured = {seed: content["measures"] for seed, content in jobs.items()}
    found: dict[str, dict[int, Any]] = {}
    for group in ("diversity", "KID"):
        for cell in next(iter(measured.values()))[group]:
            found[f"{group} · {cell}"] = {seed: own[group].get(cell) for seed, own in measured.items()}
    found[SIMILARITY] = {seed: own.get("similarity") for seed, own in measured.items()}
    found[ADDED_TIME] = {seed: own.get("added time") for seed, own in measured.items()}
    found[SECONDS] = {seed: content["training"].get("cpu_seconds") for seed, content in jobs.items()}
    return {name: values for name, values in found.items() if None not in values.values()}


def _limits(name: str) -> Limits:
    return LIMITS.get(name, LIMITS.get(name.split(" · ")[0], estimate.NONE))
