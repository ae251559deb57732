"""DIV: how different the images of one prompt are from one another (the paper's Table 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..common.errors import UserError
from ..features import FeatureNetwork
from .image_set import ImageSet
from .inputs import BATCH, Observer, Work, checked_sets, device_of, features, of_images
from .intervals import RESAMPLES, Interval, bootstrap_mean, paired_difference_interval
from .scores import CHANGE, Score, Scores

PAIRS = 64
"""Pairs that are compared at once."""


@torch.no_grad()
def diversities(
    features: Tensor,
    prompts: Sequence[str],
    distance: Callable[[Tensor, Tensor], Tensor],
    pairs: int = PAIRS,
    check: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Mean distance over all pairs of images of each prompt, by prompt; prompts of one image are left out.

    features: (N, C, …) of N prompts; distance: D of two batches (B, C, …) -> (B,), such as `network.distance`.
    pairs: how many are compared at once; check: called before each, may raise to stop.
    """
    places: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        places.setdefault(prompt, []).append(i)
    found = {}
    for prompt, own in places.items():
        first, second = torch.triu_indices(len(own), len(own), 1)
        if not len(first):
            continue
        rows = features[own]
        values = []
        for i, j in zip(first.split(pairs), second.split(pairs), strict=True):
            check()
            values.append(distance(rows[i], rows[j]).cpu())
        found[prompt] = float(torch.cat(values).double().mean())
    return found


def measure(
    images: ImageSet,
    network: FeatureNetwork,
    compared_with: ImageSet | None = None,
    observe: Observer = lambda done, total: None,
    batch: int = BATCH,
) -> Scores:
    """Mean distance between images of one prompt, averaged over prompts; higher is more varied.

    With `compared_with`, of that too, and the paired change. Prompts of one image are left out, and a note says so;
    of a single prompt there is no interval. Raises UserError, one sentence, where no prompt has two images, and for
    sets that do not belong together.
    """
    sets = checked_sets(images, compared_with)
    total = len(set(images.prompts))
    if total == len(images.prompts):
        raise UserError(
            f"Every prompt of the set {images.label!r} has one image, but diversity is measured among images of "
            "one prompt: raise images_per_prompt to at least two."
        )
    work = Work(sum(len(s.images) for s in sets), observe)
    found: list[dict[str, float]] = []
    device = device_of(network)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return network.distance(a.to(device), b.to(device))

    for part in sets:
        seen = features(network, of_images(part.images, part.label), work, batch)
        found.append(diversities(seen, part.prompts, distance, check=lambda: work.add(0)))
    count, pictures = len(found[-1]), sum(prompt in found[-1] for prompt in images.prompts)
    notes = [f"{total - count} of {total} prompts have one image and are left out."] if total > count else []
    notes += ["Diversity of a single prompt has no interval over prompts."] if count < 2 else []
    title, note = f"diversity within a prompt · {network.name}", " ".join(notes)
    rows = [
        Score(title, part.label, *_mean(list(own.values())), pictures, note)
        for part, own in zip(sets, found, strict=True)
    ]
    if len(found) == 2:
        before, after = (list(own.values()) for own in found)
        change = paired_difference_interval(after, before) if count > 1 else _mean([after[0] - before[0]])
        rows.append(Score(title, CHANGE, *change, pictures, note))
    said = f"mean distance over all pairs of images of a prompt, mean over {count} prompts; interval by {RESAMPLES} "
    return Scores(tuple(rows), ((title, said + "bootstrap samples of the prompts; higher is more varied"),))


def _mean(values: Sequence[float]) -> Interval:
    """The mean with its interval; of one value, without."""
    return bootstrap_mean(values).cut(0.0) if len(values) > 1 else Interval(values[0], math.nan, math.nan)
