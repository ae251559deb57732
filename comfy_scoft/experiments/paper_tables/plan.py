"""Everything that a run would do, counted from its settings: no model is needed for that."""

from __future__ import annotations

from collections.abc import Sequence

from ...losses.rollout import timesteps
from ...training.step_plan import expected_counts
from ..engine.training import build_losses
from .arms import BASE, Arm, ImageSpec, Scale
from .clock import Clock, Work, spoken
from .data import GENERIC, Culture, Generic, image_specs

TIMESTEPS = 1000
"""Of Stable Diffusion's noise schedule."""
CAPTION, DEPTH, NEGATIVE, DISTANCE = "captioned image", "depth map", "negative", "image in the filter"
IMAGE, LOOK = "generated image", "image in a feature network"


def step(arm: Arm) -> str:
    """The kind of work that an optimizer step of an arm is."""
    return f"optimizer step of {arm.name}"


def training(arm: Arm, scale: Scale) -> Work:
    """One training of an arm."""
    losses = build_losses(arm.specs, lambda role: None)  # a feature network makes no UNet call
    counts = expected_counts(losses, scale.train, scale.rollout, TIMESTEPS)
    return Work(step(arm), scale.train.steps, counts.frozen, counts.trained)


def preparing(cultures: Sequence[Culture], arms: Sequence[Arm], scale: Scale) -> list[Work]:
    """Generic captions, depth maps and negatives where the datasets have none, and the filter's looks."""
    captions = depths = negatives = looks = 0
    for culture in cultures:
        records = culture.train.records
        lacks_generic, lacks_negatives = culture.lacks(arms)
        if lacks_generic:
            captions += sum(not record.generic_captions for record in records)
        if lacks_negatives:
            depths += sum(record.depth is None for record in records)
            negatives += len(records) * scale.negatives.per_image
            looks += len(records) * (1 + scale.negatives.per_image)
    passes = negatives * scale.negatives.steps * (2 if scale.negatives.cfg > 1.0 else 1)
    works = [Work(CAPTION, captions), Work(DEPTH, depths), Work(NEGATIVE, negatives, passes), Work(DISTANCE, looks)]
    return [work for work in works if work.count]


def works(
    cultures: Sequence[Culture], arms: Sequence[Arm], generic: Generic | None, scale: Scale, seed: int,
    tables: Sequence[int],
) -> list[Work]:  # fmt: skip
    """All work of a run by its kind."""
    found = preparing(cultures, arms, scale)
    for arm in arms:
        if arm.losses:
            one, n = training(arm, scale), len(cultures)
            found.append(Work(one.kind, n * one.count, n * one.passes, n * one.trained))
    sets: dict[tuple[str, ...], ImageSpec] = {}
    for culture in cultures:
        for arm in arms:
            for spec in image_specs(arm, culture, generic, scale, seed, tables):
                shared = arm is BASE and spec.name == GENERIC  # generated once for all cultures
                sets["" if shared else culture.name, arm.key, spec.name] = spec
    images = sum(len(spec.prompts) for spec in sets.values())
    found.append(Work(IMAGE, images, float(2 * images * len(timesteps(TIMESTEPS - 1, scale.sampling_steps)))))
    looks = sum(len(spec.prompts) * len(spec.networks) for spec in sets.values())
    if {1, 4} & set(tables):
        looks += sum(len(culture.test) for culture in cultures) + (len(generic.images) if generic else 0)
    if 2 in tables:
        looks += 3 * len(cultures) * scale.pairs
    return [*found, Work(LOOK, looks)]


def described(works: Sequence[Work], trainings: int, clock: Clock) -> list[str]:
    """The plan as lines of text, with hours where something on this machine was measured."""
    lines = [f"{trainings} trainings", f"{'work':<34}{'count':>10}{'UNet passes':>14}{'with gradient':>15}{'time':>12}"]
    for work in works:
        each = clock.each(work)
        time = spoken(each * work.count) if each is not None else "unmeasured"
        lines.append(f"{work.kind:<34}{work.count:>10}{work.passes:>14.0f}{work.trained:>15.0f}{time:>12}")
    lines.append(f"{'all':<34}{'':>10}{sum(w.passes for w in works):>14.0f}{sum(w.trained for w in works):>15.0f}")
    return lines
