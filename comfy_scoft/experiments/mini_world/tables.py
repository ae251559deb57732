"""From the jobs' files to the metrics of each part: bias, leakage, memorization, diversity, KID and time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
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
Data = list[bool] | list[float] | float
"""What a job says of a metric: whether a fact holds of each image, a score of each image, or one number."""

FACTS: dict[str, Callable[[Row, str], bool]] = {
    "dark skin": lambda row, place: row["tone"] in world.DARK,
    "gold palette": lambda row, place: row["palette"] == world.PLACES[TAUGHT],
    "own palette": lambda row, place: row["palette"] == world.PLACES.get(place, world.NO_PLACE),
    "right concept": lambda row, place: row["concept"] == row["kind"],
    "eyes and mouth": lambda row, place: row["drawn"]["features"],
    "overshoot": lambda row, place: row["drawn"]["overshoot"],
}
"""What may hold for an image; "right concept" of a house is a sound one."""
OF_PEOPLE = ("dark skin", "eyes and mouth", "overshoot")
LEAKING = ("dark skin", "own palette", "right concept")
"""Facts whose change in the other places is measured."""
HERE = f"{HELD_OUT} · {TAUGHT}"


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
FIGURE, FACE, FIGURE_ELSEWHERE = (
    key(name, HELD_OUT, place)
    for name, place in (("figure error", TAUGHT), ("face error", TAUGHT), ("figure error", "elsewhere"))
)
FEATURES, OVERSHOOT = (key(name, HELD_OUT, TAUGHT) for name in ("eyes and mouth", "overshoot"))
FEATURES_ELSEWHERE = key("eyes and mouth", HELD_OUT, "elsewhere")
ADDED_TIME = "added sampling time"
SOUND = key("right concept", HOUSES, TAUGHT)
GAP, SIMILARITY, COPIES, SECONDS = "memorization gap", "similarity", "near copies", "training seconds"
DIVERSITY_HELD_OUT, DIVERSITY_TRAINED = (key("diversity", what, TAUGHT) for what in (HELD_OUT, TRAINED))
KID_OWN, KID_OTHER = f"KID · {TAUGHT} to {TAUGHT}, as its people show it", f"KID · {TAUGHT} to other places"

OF_IMAGES = (CLIP, FIGURE, FACE, FIGURE_ELSEWHERE)
"""Scores of each image."""
UNPAIRED = (COPIES, CONCEPT_DARK, CONCEPT_LIGHT)
"""Facts of images that are not the same in every model."""
LIMITS: dict[str, Limits] = {
    "diversity": (0.0, math.inf),
    SIMILARITY: (-1.0, 1.0),
    CLIP: (0.0, 100.0),
    SECONDS: (0.0, math.inf),
    **dict.fromkeys(("figure error", "face error"), (0.0, 255.0)),
}
"""The values that are possible, by the key or its beginning."""


@dataclass(frozen=True)
class ArmTable:
    """An arm's metrics by key, their paired changes from the base model, and its jobs' contents by seed."""

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
    plain = {BASE.guidance: BASE} | {arm.guidance: arm for arm in part.arms if not arm.losses and not arm.strength}
    bases = {guidance: _jobs(part, arm, part.seeds, scene) for guidance, arm in plain.items()}
    arms: dict[str, ArmTable] = {}
    missing: list[str] = []
    for arm in part.arms:
        jobs = _jobs(part, arm, part.seeds, scene)
        missing += [f"{arm.name}, seed {seed}" for seed in part.seeds if seed not in jobs]
        if jobs:
            base = bases[BASE.guidance if arm in plain.values() else arm.guidance]  # what guidance does, or training
            pairs = paired(base, jobs)
            own = {} if arm.untouched else changes(pairs, base)
            arms[arm.name] = ArmTable(arm_metrics(jobs, pairs), own, jobs)
    ablation = PARTS["ablation"]
    others = {arm.name: arm for arm in ablation.arms}
    comparisons = {}
    for before, after in part.compare:
        if after in arms and (before in arms or before in others):
            now, seeds = arms[after].jobs, {*part.seeds, *ablation.seeds}
            known = arms[before].jobs if before in arms else _jobs(ablation, others[before], sorted(seeds), scene)
            of = {arm.name: arm.guidance for arm in (*ablation.arms, *part.arms)}
            # leakage is from the base model at an arm's own guidance: between two guidances it has no change
            base = bases.get(of[after], {}) if of[before] == of[after] else {}
            if known and now.keys() <= known.keys():
                comparisons[before, after] = changes(paired(known, now), base)
            elif known:
                comparisons[before, after] = unpaired(known, now)
    return PartTable(part, arms, comparisons, tuple(missing))


def _jobs(part: Part, arm: Arm, seeds: Sequence[int], scene: World) -> dict[int, Content]:
    found = {seed: current((part, arm, seed), scene) for seed in seeds}
    return {seed: content for seed, content in found.items() if content is not None}


def paired(before: Mapping[int, Content], after: Mapping[int, Content]) -> dict[int, tuple[Content, Content]]:
    """The contents of two arms on the seeds that both have. Raises UserError where prompts or noise differ."""
    pairs = {seed: (before[seed], content) for seed, content in after.items() if seed in before}
    for one, two in pairs.values():
        for cell in one["cells"].keys() & two["cells"].keys():
            requests = [[(row["kind"], row["seed"]) for row in content["cells"][cell]] for content in (one, two)]
            if requests[0] != requests[1]:
                raise UserError(
                    f"{one['arm']} and {two['arm']} were not generated from the same prompts and noise in {cell!r}, so "
                    "they cannot be paired: run the benchmark again, which brings both up to date."
                )
    return pairs


def data(content: Content) -> dict[str, Data]:
    """What a job says of each metric, by key; what was not measured is left out."""
    found: dict[str, Data | None] = {}
    for cell, rows in content["cells"].items():
        what, place = cell.split(" · ")
        for fact, holds in FACTS.items():
            if applies(fact, what, place):
                found[f"{fact} · {cell}"] = [holds(row, place) for row in rows]
    measured = content["measures"]
    for group in ("diversity", "KID"):
        found |= {f"{group} · {name}": value for name, value in measured[group].items()}
    found |= {SIMILARITY: measured.get("similarity"), ADDED_TIME: measured.get("added time")}
    found[SECONDS] = content["training"].get("cpu_seconds")
    if "copies" in measured:
        near, count = measured["copies"]
        found[COPIES] = [i < near for i in range(count)]
    rows = content["cells"][HERE]
    for name, dark in ((CONCEPT_DARK, True), (CONCEPT_LIGHT, False)):
        own = [row for row in rows if FACTS["dark skin"](row, TAUGHT) is dark]
        found[name] = [FACTS["right concept"](row, TAUGHT) for row in own] or None
    found[CLIP] = clip_scores(content, HERE)
    found[FIGURE], found[FACE] = ([row["drawn"][part] for row in rows] for part in ("figure", "face"))
    other = [row for place in OTHER_PLACES for row in content["cells"].get(key(HELD_OUT, "", place), ())]
    found[FIGURE_ELSEWHERE] = [row["drawn"]["figure"] for row in other] or None
    found[FEATURES_ELSEWHERE] = [row["drawn"]["features"] for row in other] or None
    return {name: value for name, value in found.items() if value is not None}


def arm_metrics(jobs: Mapping[int, Content], pairs: Pairs) -> dict[str, Estimate]:
    """Every metric of an arm, by key; leakage and memorization are paired with the base model of the same seeds."""
    every = {seed: data(content) for seed, content in jobs.items()}
    metrics: dict[str, Estimate] = {}
    for name in {name: None for own in every.values() for name in own}:
        values = {seed: own[name] for seed, own in every.items() if name in own}
        if len(values) == len(every) or name in UNPAIRED:
            metrics[name] = _estimate(name, values)
    for name, change in _share_changes(_both(pairs)).items():
        fact, what, place = name.split(" · ")
        if what == HELD_OUT and place != TAUGHT and fact in LEAKING:
            metrics[leakage(fact, place)] = change
    return metrics | _over_kinds(jobs, pairs) | _clip_changes(pairs) | _gap(pairs)


def changes(pairs: Pairs, base: Mapping[int, Content]) -> dict[str, Estimate]:
    """The paired change of every metric from one arm to another; of leakage, the change of its size."""
    both = _both(pairs)
    found = _share_changes(both)
    for name, sides in _shared(both).items():
        if name not in found:
            own = {seed: _mean(after) - _mean(before) for seed, (before, after) in sides.items()}
            found[name] = estimate.mean(own, change_limits(name))
    three = {seed: (data(content), *both[seed]) for seed, content in base.items() if seed in pairs}
    for place in OTHER_PLACES:
        for fact in LEAKING:
            name, growth = key(fact, HELD_OUT, place), {}
            for seed, arms in three.items():
                if all(name in side for side in arms):
                    plain, was, now = (_mean(side[name]) for side in arms)
                    growth[seed] = abs(now - plain) - abs(was - plain)
            if growth:
                found[leakage(fact, place)] = estimate.mean(growth, (-1.0, 1.0))
    return found | _clip_changes(pairs) | _gap(pairs)


def unpaired(before: Mapping[int, Content], after: Mapping[int, Content]) -> dict[str, Estimate]:
    """The change of every metric between arms of different trainings, as of independent figures."""
    was, now = (arm_metrics(jobs, {}) for jobs in (before, after))
    plain = {name for content in after.values() for name in data(content)} - {ADDED_TIME}
    return {
        name: estimate.independent_change(was[name], now[name], change_limits(name))
        for name in now
        if name in plain and name in was
    }


def change_limits(name: str) -> Limits:
    """The values that the change of a metric can have."""
    return (-1.0, 1.0) if name.split(" · ")[0] in FACTS or name in UNPAIRED else estimate.NONE


def _both(pairs: Pairs) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    return {seed: (data(before), data(after)) for seed, (before, after) in pairs.items()}


def _shared(both: Mapping[int, tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, dict[int, tuple[Any, Any]]]:
    """Of each metric that both arms have on some seeds: its data before and after, by seed."""
    found: dict[str, dict[int, tuple[Any, Any]]] = {}
    for seed, (before, after) in both.items():
        for name in before:
            if name in after:
                found.setdefault(name, {})[seed] = (before[name], after[name])
    return found


def _mean(value: Any) -> float:
    return math.fsum(value) / len(value) if isinstance(value, list) else value


def _estimate(name: str, values: Mapping[int, Any]) -> Estimate:
    limits = LIMITS.get(name, LIMITS.get(name.split(" · ")[0], estimate.NONE))
    if name in OF_IMAGES:
        return estimate.mean_of_images(values, limits)
    facts = isinstance(next(iter(values.values())), list)
    return estimate.share(values) if facts else estimate.mean(values, limits)


def _share_changes(both: Mapping[int, tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Estimate]:
    """The paired change of every share of the same images, over the seeds."""
    return {
        name: estimate.share_change(*({seed: pair[i] for seed, pair in sides.items()} for i in range(2)))
        for name, sides in _shared(both).items()
        if name.split(" · ")[0] in FACTS and name not in UNPAIRED
    }


def applies(fact: str, what: str, place: str) -> bool:
    """Whether a metric means something in a cell: people have tones, and the taught place's own palette is gold."""
    if fact == "own palette":
        return place != TAUGHT
    if fact == "gold palette":
        return place == TAUGHT
    return fact not in OF_PEOPLE or what != HOUSES


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


def _gap(pairs: Pairs) -> dict[str, Estimate]:
    """The change of the memorization gap, over training images and seeds."""
    return {GAP: estimate.mean_of_records({seed: gap_rise(*pair) for seed, pair in pairs.items()})} if pairs else {}


def shares_by_kind(contents: Collection[Content], place: str = TAUGHT) -> dict[str, float]:
    """Share of dark skin of each held-out kind in a place, mean over the trainings."""
    found = defaultdict(list)
    for content in contents:
        for row in content["cells"][key(HELD_OUT, "", place)]:
            found[row["kind"]].append(FACTS["dark skin"](row, place))
    return {kind: sum(own) / len(own) for kind, own in found.items()}


def _over_kinds(jobs: Mapping[int, Content], pairs: Pairs) -> dict[str, Estimate]:
    """Dark skin in the taught place and its change elsewhere, with intervals over the kinds."""
    shares = shares_by_kind(jobs.values())
    found = {as_sample(DARK_HELD_OUT): estimate.mean_of_kinds(shares, len(jobs), (0.0, 1.0))}
    for place in OTHER_PLACES if pairs else ():
        if all(key(HELD_OUT, "", place) in content["cells"] for content in jobs.values()):
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
        cell, percent = key(HELD_OUT, "", place), {}
        for seed, pair in pairs.items():
            if all(cell in content["cells"] for content in pair):
                was, now = (math.fsum(clip_scores(content, cell)) for content in pair)
                percent[seed] = 100.0 * (now / was - 1.0)
        if percent:
            found[clip_change(place)] = estimate.mean(percent, (-100.0, math.inf))
    return found
