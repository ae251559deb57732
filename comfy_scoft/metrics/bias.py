"""Bias of the mini model, measured exactly from its images: skin tones, palettes and concepts by the oracle."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from einops import rearrange

from ..common.errors import UserError
from ..common.mentions import mentions
from ..common.text import composed, printable
from ..mini_world import oracle, world
from .image_set import ImageSet, require_different_labels, require_match
from .inputs import ImageCounter, OnImages
from .intervals import paired_share_change, wilson_interval
from .scores import CHANGE, Score, Scores

NO_PLACE = "no place"
DARK = "dark skin"
GOLD = "gold palette"
OWN = "own palette"
SOUND = "sound houses"
CONCEPT = "right concept"
NAMES = (DARK, GOLD, OWN, SOUND, CONCEPT)
ORACLE_BATCH = 8

Outcomes = dict[tuple[str, str], dict[int, bool]]
"""(metric, place) -> {image of the set: whether the metric holds for it}, for the images that the metric applies to."""


def concept_of(prompt: str) -> str:
    """The concept of the mini world that a prompt names, the longest of several: "an elf in borea" gives "elf".

    Raises UserError if it names none.
    """
    names = _named(world.concepts(), prompt)
    if not names:
        raise UserError(
            f"The prompt {printable(prompt)!r} names nothing that the mini world can show, and the Bias Oracle reads "
            "only images of the mini model; use prompts such as 'a teacher in nuvia'."
        )
    return max(names, key=len)


def place_of(prompt: str) -> str:
    """The invented place that a prompt names, the last of several, or "no place"."""
    places = _named(world.PLACES, prompt)
    return places[-1] if places else NO_PLACE


def measure(
    images: ImageSet, compared_with: ImageSet | None = None, observe: OnImages = lambda done, total: None
) -> Scores:
    """Shares in [0, 1] with Wilson's 95 % intervals, by place; groups are named "<label> · <place>".

    "dark skin" (tones 3-5): prompts for a person. "gold palette" and "right concept": all prompts. "own palette":
    prompts of other places and of no place, whether they keep their palette. "sound houses": prompts for a house whose
    image shows one. With `compared_with`, a set of the same prompts and seeds, its shares come first, and the paired
    change (group "change · <place>", Newcombe's interval) over the images that the metric applies to in both follows.
    Raises UserError for sets that cannot be compared, prompts that are not of the mini world, and images that are not
    64 × 64 pixels.
    """
    sets = [images] if compared_with is None else [compared_with, images]
    require_match(sets)
    require_different_labels([part.label for part in sets])
    counter = ImageCounter(len(images.prompts) * len(sets), observe)
    measured = [outcomes(part, counter) for part in sets]
    rows: list[Score] = []
    for name, place in sorted(measured[-1], key=_order):
        by_image = [of_set.get((name, place), {}) for of_set in measured]
        rows += [
            Score(name, f"{part.label} · {place}", *wilson_interval(sum(own.values()), len(own)), len(own))
            for part, own in zip(sets, by_image, strict=True)
            if own
        ]
        if len(by_image) == 2:
            before, after = by_image
            if both := sorted(before.keys() & after.keys()):
                change = paired_share_change([before[i] for i in both], [after[i] for i in both])
                rows.append(Score(name, f"{CHANGE} · {place}", *change, len(both)))
    return Scores(tuple(rows), (("oracle", "nearest art, pixel by pixel"),))


def outcomes(images: ImageSet, counter: ImageCounter | None = None) -> Outcomes:
    """Compare what each image of a set shows, by the oracle, with its prompt."""
    targets = [(concept_of(prompt), place_of(prompt)) for prompt in images.prompts]
    pixels = rearrange(images.images, "b h w c -> b c h w") * 2.0 - 1.0
    counter = counter or ImageCounter(len(pixels))
    labels: list[oracle.ImageLabels] = []
    counter.add(0)
    for part in torch.split(pixels, ORACLE_BATCH):
        labels += oracle.classify(part)
        counter.add(len(part))
    results: Outcomes = {}
    for i, ((concept, place), shown) in enumerate(zip(targets, labels, strict=True)):
        of_image = {GOLD: shown.palette == world.PLACES[world.BIASED_PLACE], CONCEPT: shown.concept == concept}
        if place != world.BIASED_PLACE:  # its own palette is gold
            of_image[OWN] = shown.palette == world.PLACES.get(place, world.NO_PLACE)
        if world.concepts()[concept].is_person:
            of_image[DARK] = shown.dark
        if concept == "house" and shown.house:
            of_image[SOUND] = shown.house == "sound"
        for name, holds in of_image.items():
            results.setdefault((name, place), {})[i] = holds
    return results


def _order(key: tuple[str, str]) -> tuple[int, int]:
    """Sort key: places in the world's order, "no place" last; then metrics in the order of NAMES."""
    places = [*world.PLACES, NO_PLACE]
    return places.index(key[1]), NAMES.index(key[0])


def _named(names: Iterable[str], prompt: str) -> list[str]:
    """Those of the names that a prompt mentions, in its order."""
    text = composed(prompt.lower())
    return [text[start:end] for start, end in mentions(names, text)]
