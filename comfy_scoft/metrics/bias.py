"""Bias of the mini model, read exactly from its images: who is shown, before which background, and is it right.

Only this file and the oracle know the answers of the image world (the skin tones and palettes); training never does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from einops import rearrange

from ..common.errors import UserError
from ..mini_world import oracle, world
from .image_set import ImageSet, require_match
from .intervals import paired_share_change, wilson_interval
from .scores import CHANGE, Score, Scores

NO_PLACE = "no place"
DARK = "dark skin"
GOLD = "gold palette"
OWN = "own palette"
SOUND = "sound houses"
CONCEPT = "right concept"
NAMES = (DARK, GOLD, OWN, SOUND, CONCEPT)
READ_AT_ONCE = 8

Facts = list[tuple[int, bool]]
Outcomes = dict[tuple[str, str], Facts]
"""(figure, place) -> (which image of the set, whether the figure holds for it), for the images that it is about."""


def concept_of(prompt: str) -> str:
    """The concept of the mini world that a prompt asks for: "an elf in borea" gives "elf".

    The longest name that stands in the prompt as words. Raises UserError where there is none.
    """
    found = _pattern(tuple(world.concepts())).findall(prompt.lower())
    if not found:
        raise UserError(
            f"The prompt {prompt!r} names nothing that the mini world can show, and the Bias Oracle reads only "
            "images of the mini model; use prompts such as 'a teacher in nuvia'."
        )
    return max(found, key=len)


def place_of(prompt: str) -> str:
    """The invented place that a prompt names ("… in nuvia"), or "no place"."""
    found = _pattern(tuple(world.PLACES)).findall(prompt.lower())
    return found[-1] if found else NO_PLACE


def measure(
    images: ImageSet,
    compared_with: ImageSet | None = None,
    observe: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Shares (0-1) with Wilson's 95 % intervals, by place; groups are named "<label> · <place>".

    "dark skin" (tones 3-5) over prompts that ask for a person, "gold palette" and "right concept" over all, "own
    palette" over other places and no place (whether they keep the one they had), "sound houses" over prompts for a
    house that show one. With `compared_with`, a set of the same prompts and seeds, its figures stand before, and the
    paired change (group "change · <place>", Newcombe's interval) after each.
    `observe(done, total)` counts the images that are read; it may raise to stop. Raises UserError for sets that do
    not belong together, prompts of another world, or images that are not 64 px wide and high.
    """
    sets = [images] if compared_with is None else [compared_with, images]
    require_match(sets)
    if compared_with is not None and compared_with.label == images.label:
        raise UserError(
            f"Both sets are labelled {images.label!r}, so their figures could not be told apart; rename one."
        )
    count = len(images.prompts)
    read: list[Outcomes] = []
    for part in sets:
        before = count * len(read)
        read.append(outcomes(part, partial(_onward, observe, before, count * len(sets))))
    rows: list[Score] = []
    for name, place in sorted(read[-1], key=_order):
        rows += [_share(name, part.label, place, found) for part, found in zip(sets, read, strict=True)]
        if len(read) == 2:
            rows += _change(name, place, *(found.get((name, place), []) for found in read))
    return Scores(tuple(row for row in rows if row.n), (("oracle", "nearest art, pixel by pixel"),))


def _onward(observe: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    observe(before + done, total)


def outcomes(images: ImageSet, observe: Callable[[int], None] = lambda done: None) -> Outcomes:
    """What each image of a set shows, compared with what its prompt asks for."""
    asked = [(concept_of(prompt), place_of(prompt)) for prompt in images.prompts]
    pixels = rearrange(images.images, "b h w c -> b c h w") * 2.0 - 1.0
    readings: list[oracle.Reading] = []
    for part in torch.split(pixels, READ_AT_ONCE):
        observe(len(readings))
        readings += oracle.reading(part)
    observe(len(readings))
    found: Outcomes = {}
    for i, ((concept, place), seen) in enumerate(zip(asked, readings, strict=True)):
        facts = {GOLD: seen.palette == world.PLACES[world.BIASED_PLACE], CONCEPT: seen.concept == concept}
        if place != world.BIASED_PLACE:  # there, it is the gold one
            facts[OWN] = seen.palette == world.PLACES.get(place, world.NO_PLACE)
        if world.concepts()[concept].is_person:
            facts[DARK] = seen.dark
        if concept == "house" and seen.house:
            facts[SOUND] = seen.house == "sound"
        for name, fact in facts.items():
            found.setdefault((name, place), []).append((i, fact))
    return found


def _share(name: str, label: str, place: str, found: Outcomes) -> Score:
    facts = [fact for _, fact in found.get((name, place), [])]
    if not facts:
        return Score(name, f"{label} · {place}", float("nan"), float("nan"), float("nan"), 0)
    return Score(name, f"{label} · {place}", *wilson_interval(sum(facts), len(facts)), len(facts))


def _change(name: str, place: str, before: Facts, after: Facts) -> list[Score]:
    """The paired change over the images (same prompt, same seed) that both sets have the figure for."""
    first, second = dict(before), dict(after)
    both = sorted(first.keys() & second.keys())
    if not both:
        return []
    interval = paired_share_change([first[i] for i in both], [second[i] for i in both])
    return [Score(name, f"{CHANGE} · {place}", *interval, len(both))]


def _order(key: tuple[str, str]) -> tuple[int, int]:
    """Places as the world lists them, "no place" last; within a place the figures in their own order."""
    places = [*world.PLACES, NO_PLACE]
    return places.index(key[1]), NAMES.index(key[0])


@lru_cache(maxsize=2)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    longest = sorted(names, key=len, reverse=True)
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest)) + r")(?!\w)")
