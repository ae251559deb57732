"""From the units' files to the figures of each part: bias, leakage, memorization, diversity, KID and time."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...mini_world import world
from . import figures
from .arms import BASE, Arm, Part
from .cells import HELD_OUT, HOUSES, OTHER_PLACES, TAUGHT, TRAINED
from .figures import Figure, Limits
from .training import World
from .unit import hash_of, unit_file

Row = Mapping[str, Any]
Content = Mapping[str, Any]

FACTS: dict[str, Callable[[Row, str], bool]] = {
    "dark skin": lambda row, place: row["tone"] in world.DARK,
    "gold palette": lambda row, place: row["palette"] == world.PLACES[TAUGHT],
    "own palette": lambda row, place: row["palette"] == world.PLACES.get(place, world.NO_PLACE),
    "right concept": lambda row, place: row["concept"] == row["kind"],
}
"""What may hold for an image; "right concept" of a house is a sound one."""


def key(measure: str, what: str = "", place: str = "") -> str:
    """The name of a figure: "dark skin · held-out kinds · nuvia"."""
    return " · ".join(part for part in (measure, what, place) if part)


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


POSITIVE: Limits = (0.0, math.inf)


def leakage(name: str, place: str) -> str:
    """The key of the paired LoRA − base difference of a figure in another place."""
    return key("leakage", name, place)


def clip_change(place: str = TAUGHT) -> str:
    """The key of the change of CLIPScore in a place, in % of the base model's."""
    return key("CLIPScore, change in %", HELD_OUT, place)


def as_sample(name: str) -> str:
    """The key of a figure with the interval that it has where the kinds are a sample of all kinds."""
    return key(name, "as a sample of kinds")


@dataclass(frozen=True)
class ArmTable:
    """An arm's figures by key, and its contents and those of the base model by seed, for comparisons of two arms."""

    arm: Arm
    figures: dict[str, Figure]
    units: dict[int, Content] = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class PartTable:
    """The arms of a part that have results, in order; missing: units that are not there yet, in words."""

    part: Part
    arms: dict[str, ArmTable]
    missing: tuple[str, ...] = ()


def load(path: Path) -> Content | None:
    """A unit's file; None where there is none. Raises UserError, one sentence, for a damaged one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found["cells"], dict) and isinstance(found["measures"], dict) and "hash" in found:
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(
        f"The unit file {path.parent.name}/{path.name} is damaged: remove it and run the same command again, which "
        "writes it anew from what was drawn."
    )


def table(part: Part, scene: World) -> PartTable:
    """The figures of a part from what there is below `scene.out`; units of other settings count as missing."""

    def current(arm: Arm, seed: int) -> Content | None:
        found = load(unit_file(scene.out, (part, arm, seed)))
        return found if found is not None and found["hash"] == hash_of((part, arm, seed), scene) else None

    base = {seed: current(BASE, seed) for seed in part.seeds}
    arms: dict[str, ArmTable] = {}
    missing: list[str] = []
    for arm in part.arms:
        found = {seed: current(arm, seed) for seed in part.seeds}
        missing += [f"{arm.name}, seed {seed}" for seed, content in found.items() if content is None]
        units = {seed: content for seed, content in found.items() if content is not None}
        if units:
            known = {seed: content for seed, content in base.items() if content is not None and seed in units}
            arms[arm.name] = ArmTable(arm, arm_figures(units, known), units)
    return PartTable(part, arms, tuple(missing))


def arm_figures(units: Mapping[int, Content], base: Mapping[int, Content]) -> dict[str, Figure]:
    """Every figure of an arm, by key; leakage and memorization are paired with the base model of the same seeds."""
    contents = list(units.values())
    found: dict[str, Figure] = {}
    for name in contents[0]["cells"]:
        what, place = name.split(" · ")
        for fact in FACTS:
            if applies(fact, what, place):
                found[key(fact, what, place)] = figures.share([facts(c, fact, name) for c in contents])
    pairs = [(base[seed], content) for seed, content in units.items() if seed in base]
    found |= _leakage(pairs)
    found |= _over_kinds(contents, pairs)
    found |= _measured(contents)
    found |= _agreement(contents, pairs)
    if pairs:
        values = [gap_rise(before, after) for before, after in pairs]
        found[GAP] = figures.mean_of_records(values)
    return found


def applies(fact: str, what: str, place: str) -> bool:
    """Whether a figure means something in a cell: people have tones, and the taught place's own palette is gold."""
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
    asked = [[(row["kind"], row["seed"]) for row in content["cells"][cell]] for content in (before, after)]
    if asked[0] != asked[1]:
        raise UserError(
            f"{before['arm']} and {after['arm']} were not drawn from the same prompts and noise in {cell!r}, so they "
            "cannot be paired: run the benchmark again, which brings both up to date."
        )
    return facts(before, fact, cell), facts(after, fact, cell)


def changed(pairs: Iterable[tuple[Content, Content]], fact: str, cell: str) -> Figure | None:
    """The paired change of a share from one arm to another, over the seeds; None where a cell was not drawn."""
    found = [paired(*pair, fact, cell) for pair in pairs if all(cell in content["cells"] for content in pair)]
    return figures.change(*zip(*found, strict=True)) if found else None


def gap_rise(before: Content, after: Content) -> list[float]:
    """For each training image: how much further it has drawn ahead of fresh images with the same caption.

    (loss on fresh − loss on the training image) after, less the same before; above 0 it was memorized.
    """
    gaps = []
    for content in (before, after):
        train, fresh = content["measures"]["gap"]["train"], content["measures"]["gap"]["fresh"]
        each = len(fresh) // len(train)
        gaps.append([math.fsum(fresh[i :: len(train)]) / each - own for i, own in enumerate(train)])
    return [b - a for a, b in zip(*gaps, strict=True)]


def _leakage(pairs: Sequence[tuple[Content, Content]]) -> dict[str, Figure]:
    found = {}
    for place in OTHER_PLACES:
        for fact in ("dark skin", "own palette", "right concept"):
            figure = changed(pairs, fact, key(HELD_OUT, "", place))
            if figure is not None:
                found[leakage(fact, place)] = figure
    return found


def shares_by_kind(contents: Sequence[Content], place: str = TAUGHT) -> dict[str, float]:
    """Share of dark skin of each held-out kind in a place, mean over the trainings."""
    cell, found = key(HELD_OUT, "", place), defaultdict(list)
    for content in contents:
        for row, fact in zip(content["cells"][cell], facts(content, "dark skin", cell), strict=True):
            found[row["kind"]].append(fact)
    return {kind: sum(own) / len(own) for kind, own in found.items()}


def _over_kinds(contents: Sequence[Content], pairs: Sequence[tuple[Content, Content]]) -> dict[str, Figure]:
    """Dark skin in the taught place and its change elsewhere, with intervals over the kinds."""
    found = {}
    for place in (TAUGHT, *OTHER_PLACES):
        if not all(key(HELD_OUT, "", place) in content["cells"] for content in contents):
            continue
        if place == TAUGHT:
            found[as_sample(DARK_HELD_OUT)] = figures.over_kinds(shares_by_kind(contents), len(contents), (0.0, 1.0))
        elif pairs:
            before, after = (shares_by_kind(side, place) for side in zip(*pairs, strict=True))
            changes = {kind: share - before[kind] for kind, share in after.items()}
            name = as_sample(leakage("dark skin", place))
            found[name] = figures.over_kinds(changes, len(pairs), (-1.0, 1.0))
    return found


def _agreement(contents: Sequence[Content], pairs: Sequence[tuple[Content, Content]]) -> dict[str, Figure]:
    """On held-out kinds: whether images of either tone show what was asked for in the taught place; CLIPScore there,
    and its change in every place."""
    found: dict[str, Figure] = {}
    cell = key(HELD_OUT, "", TAUGHT)
    for name, dark in ((CONCEPT_DARK, True), (CONCEPT_LIGHT, False)):
        groups = [
            [FACTS["right concept"](row, TAUGHT) for row in c["cells"][cell] if FACTS["dark skin"](row, TAUGHT) is dark]
            for c in contents
        ]
        if known := [group for group in groups if group]:
            found[name] = figures.share(known)
    found[CLIP] = figures.mean_of_images([clip_scores(c, cell) for c in contents], (0.0, 100.0))
    for place in (TAUGHT, *OTHER_PLACES):
        cell = key(HELD_OUT, "", place)
        changes = []
        for both in pairs:
            if all(cell in content["cells"] for content in both):
                was, now = (math.fsum(clip_scores(content, cell)) for content in both)
                changes.append(100.0 * (now / was - 1.0))
        if changes:
            found[clip_change(place)] = figures.mean(changes, (-100.0, math.inf))
    return found


def clip_scores(content: Content, cell: str) -> list[float]:
    """max(100 cos, 0) of each image of a cell with its prompt."""
    return [max(100.0 * row["cosine"], 0.0) for row in content["cells"][cell]]


def _measured(contents: Sequence[Content]) -> dict[str, Figure]:
    """Means over the seeds of what was measured of a whole model."""
    found = {}
    measured = [content["measures"] for content in contents]
    for group, limits in (("diversity", POSITIVE), ("KID", figures.NONE)):
        for cell in measured[0][group]:
            values = [own[group][cell] for own in measured]
            if None not in values:
                found[f"{group} · {cell}"] = figures.mean(values, limits)
    if all("similarity" in own for own in measured):
        found[SIMILARITY] = figures.mean([own["similarity"] for own in measured], (-1.0, 1.0))
        copies = [[i < own["copies"][0] for i in range(own["copies"][1])] for own in measured]
        found[COPIES] = figures.share(copies)
    if all("added time" in own for own in measured):
        found[ADDED_TIME] = figures.mean([own["added time"] for own in measured])
    if all(content["training"] for content in contents):
        found[SECONDS] = figures.mean([content["training"]["cpu_seconds"] for content in contents], POSITIVE)
    return found


def compared(part: PartTable, before: str, after: str) -> list[tuple[Content, Content]] | None:
    """The contents of two arms on the seeds that both have; None where an arm is missing."""
    if before not in part.arms or after not in part.arms:
        return None
    one, two = part.arms[before].units, part.arms[after].units
    return [(one[seed], two[seed]) for seed in one if seed in two] or None
