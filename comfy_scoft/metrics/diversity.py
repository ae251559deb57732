"""DIV: the mean distance between images of one prompt (the paper's Table 2)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..common.errors import UserError
from ..features import FeatureNetwork
from .image_set import ImageSet
from .inputs import BATCH, ImageCounter, OnImages, checked_sets, features, of_images
from .intervals import RESAMPLES, Interval, bootstrap_mean, paired_difference_interval
from .scores import Scores, scored

PAIRS = 64
"""Pairs compared at once."""


@torch.no_grad()
def diversities(
    features: Tensor,
    prompts: Sequence[str],
    distance: Callable[[Tensor, Tensor], Tensor],
    pairs: int = PAIRS,
    check: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Mean distance over all pairs of images of each prompt; prompts with one image are left out.

    features: (N, C, …) of N prompts; distance: two batches (B, C, …) -> (B,), such as `network.distance`.
    pairs: compared at once; check: called before each batch of pairs, may raise to stop.
    """
    by_prompt: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        by_prompt.setdefault(prompt, []).append(i)
    means = {}
    for prompt, indices in by_prompt.items():
        first, second = torch.triu_indices(len(indices), len(indices), 1)
        if not len(first):
            continue
        rows = features[indices]
        values = []
        for i, j in zip(first.split(pairs), second.split(pairs), strict=True):
            check()
            values.append(distance(rows[i], rows[j]).cpu())
        means[prompt] = float(torch.cat(values).double().mean())
    return means


def measure(
    images: ImageSet,
    network: FeatureNetwork,
    compared_with: ImageSet | None = None,
    observe: OnImages = lambda done, total: None,
    batch: int = BATCH,
) -> Scores:
    """Mean distance between images of one prompt, averaged over prompts; higher is more varied.

    With `compared_with`, also of that set, and the paired change. Prompts with one image are left out, with a note; for
    a single prompt the interval is NaN. Raises UserError if no prompt has two images, or the sets cannot be compared.
    """
    sets = checked_sets(images, compared_with)
    total = len(set(images.prompts))
    if total == len(images.prompts):
        raise UserError(
            f"Every prompt of the set {images.label!r} has one image, but diversity is measured among images of "
            "one prompt: raise images_per_prompt to at least two."
        )
    counts = Counter(images.prompts).values()
    batches = sum(-(-math.comb(count, 2) // PAIRS) for count in counts)  # of pairs, each like one image
    counter = ImageCounter(len(sets) * (len(images.prompts) + batches), observe)
    means: list[dict[str, float]] = []

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return network.distance(a.to(network.device), b.to(network.device))

    for part in sets:
        of_set = features(network, of_images(part.images, part.label), counter, batch)
        means.append(diversities(of_set, part.prompts, distance, check=lambda: counter.add(1)))
    count, n = len(means[-1]), sum(prompt in means[-1] for prompt in images.prompts)
    notes = [f"{total - count} of {total} prompts have one image and are left out."] if total > count else []
    notes += ["Diversity of a single prompt has no interval over prompts."] if count < 2 else []
    name, note = f"diversity within a prompt · {network.name}", " ".join(notes)
    values = [list(of_prompt.values()) for of_prompt in means]
    intervals = [_mean(own) for own in values]
    if len(values) == 2:
        before, after = values
        intervals.append(paired_difference_interval(after, before) if count > 1 else _mean([after[0] - before[0]]))
    rows = scored(name, [part.label for part in sets], intervals, n, note)
    method = f"mean distance over all pairs of images of a prompt, mean over {count} prompts; interval by {RESAMPLES} "
    return Scores(tuple(rows), ((name, method + "bootstrap samples of the prompts; higher is more varied"),))


def _mean(values: Sequence[float]) -> Interval:
    """The mean with its interval; NaN ends for a single value."""
    return bootstrap_mean(values).cut(0.0) if len(values) > 1 else Interval(values[0], math.nan, math.nan)
