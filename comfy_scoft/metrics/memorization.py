"""Memorization: how like its training image a generated one is (the paper's Table 2), and which are nearly copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import UserError
from ..data.records import Dataset
from ..features import FeatureNetwork
from .image_set import ImageSet
from .inputs import BATCH, Observer, Work, checked_sets, embeddings, of_images, of_records
from .intervals import RESAMPLES, bootstrap_mean, grouped_share, grouped_share_change, paired_difference_interval
from .scores import CHANGE, Score, Scores

QUANTILE = 0.05
CAUTION = (
    "Near copies: without held-out images, near means nearer than training images are to one another, and a shared "
    "subject alone brings an image that near. Compare with the base model, and look at the images."
)
SAME = 1e-6
"""Cosine distance up to which two training images are one."""


def similarities(generated: Tensor, prompts: Sequence[str], training: Tensor, captions: Sequence[str]) -> list[float]:
    """Cosine of each generated image to the training image of the same words, their mean where there are several.

    generated: (N, D) embeddings of N prompts; training: (M, D) of M captions. A prompt that is no caption gives NaN.
    Words are compared without regard to case and spacing.
    """
    cosines = F.normalize(generated.double(), dim=1) @ F.normalize(training.double(), dim=1).T
    known: dict[str, list[int]] = {}
    for i, caption in enumerate(captions):
        known.setdefault(plain(caption), []).append(i)
    rows = [known.get(plain(prompt), []) for prompt in prompts]
    return [float(cosines[i, row].mean()) if row else math.nan for i, row in enumerate(rows)]


def plain(text: str) -> str:
    return " ".join(text.casefold().split())


@dataclass(frozen=True)
class Copies:
    """nearest: (N,) which training image is nearest to each generated one; distances: (N,) 1 − cosine to it.

    threshold: those nearer than this count as copies; copied: (N,) bool.
    """

    nearest: Tensor
    distances: Tensor
    threshold: float

    @property
    def copied(self) -> Tensor:
        return self.distances < self.threshold


def copies(generated: Tensor, training: Tensor, quantile: float = QUANTILE, held_out: Tensor | None = None) -> Copies:
    """Generated images that are nearer to a training image than real images are that were never trained on.

    The rule: take the distance of each held-out image to its nearest training image; the threshold is the
    `quantile` of these. A model that copies nothing falls below it about as often as the quantile says, 5 %. Without
    held-out images the distance of each training image to the nearest *other* one takes their place (images that
    are the same count once); see CAUTION.
    generated: (N, D), training: (M, D), held_out: (K, D) embeddings. Raises UserError for fewer than 3 different
    training images, where there are no held-out ones.
    """
    a, b = F.normalize(generated.double(), dim=1), F.normalize(training.double(), dim=1)
    distances, nearest = (1.0 - a @ b.T).min(1)
    if held_out is not None:
        apart = (1.0 - F.normalize(held_out.double(), dim=1) @ b.T).min(1).values
        return Copies(nearest, distances, float(torch.quantile(apart, quantile)))
    own = 1.0 - b @ b.T
    first = [i for i in range(len(b)) if not bool((own[i, :i] <= SAME).any())]
    if len(first) < 3:
        raise UserError(
            f"The training set has {len(first)} different image(s), but how near its images are to one another can "
            "only be told of at least 3: connect the set that the LoRA was trained on, or held-out images."
        )
    apart = own[first][:, first].fill_diagonal_(math.inf).min(1).values
    return Copies(nearest, distances, float(torch.quantile(apart, quantile)))


@dataclass(frozen=True)
class Memorization:
    """scores: the figures; copies: of the set itself, by number in `training`, the records that were compared with."""

    scores: Scores
    copies: Copies
    training: Dataset


def measure(
    images: ImageSet,
    dataset: Dataset,
    network: FeatureNetwork,
    compared_with: ImageSet | None = None,
    held_out: Dataset | None = None,
    quantile: float = QUANTILE,
    observe: Observer = lambda done, total: None,
    batch: int = BATCH,
) -> Memorization:
    """Similarity to the training image of the same prompt, and the share of copies; lower is better for both.

    Only records of the split "train" count, for only those are trained on. Images whose prompt is no caption of them
    are left out of the similarity, and a note says how many prompts; the share takes all images. held_out: images
    that were not trained on, by which `copies` tells what is near; those of it that were are left out.
    Raises UserError, one sentence, where fewer than two images have such a prompt, for a set without training
    images, held-out images that all are training images, sets that do not belong together, and a network that
    gives no vector for an image.
    """
    sets = checked_sets(images, compared_with)
    training = dataset.split("train")
    if not len(training):
        raise UserError(
            f"The dataset {dataset.name!r} has no image of the split 'train', and only those can be memorized; "
            "load that split."
        )
    height, width = images.images.shape[1:3]
    fresh = held_out.without(training) if held_out is not None and len(held_out) else None
    if fresh is not None and not len(fresh):
        raise UserError(
            "Every held-out image is a training image too, so nothing would tell what is near; connect images of "
            "another split, for example Load Dataset with the split 'test'."
        )
    work = Work(len(training) + len(fresh or ()) + sum(len(s.images) for s in sets), observe)
    known = embeddings(network, of_records(training, (height, width)), work, batch)
    found = [embeddings(network, of_images(s.images, s.label), work, batch) for s in sets]
    real = None if fresh is None else embeddings(network, of_records(fresh, (height, width)), work, batch)
    near = [copies(own, known, quantile, real) for own in found]
    captions = [record.caption for record in training.records]
    alike = [similarities(own, images.prompts, known, captions) for own in found]
    rows = _similarity_rows(sets, alike, network.name)
    rows += _copy_rows(sets, near, network.name, "" if fresh else CAUTION)
    others = f"{len(fresh)} held-out images" if fresh else "training images to one another"
    said = _said(network.name, f"{near[-1].threshold:.4g} (1 − cosine), as only {quantile:.0%} of {others} are")
    return Memorization(Scores(tuple(rows), said), near[-1], training)


def _similarity_rows(sets: Sequence[ImageSet], alike: Sequence[Sequence[float]], network: str) -> list[Score]:
    kept = [i for i, value in enumerate(alike[-1]) if not math.isnan(value)]
    prompts = [sets[-1].prompts[i] for i in kept]
    if len(kept) < 2:
        raise UserError(
            f"{len(kept)} image(s) of the set {sets[-1].label!r} have a prompt that is the caption of a training "
            "image, but memorization compares images of the same words: give Generate Set the captions of the "
            "images that were trained on."
        )
    total = len(set(sets[-1].prompts))
    missing = total - len(set(prompts))
    note = f"{missing} of {total} prompts are no caption of a training image and are left out." if missing else ""
    title = f"similarity to training images of the same prompt · {network}"
    values = [[row[i] for i in kept] for row in alike]
    rows = [
        Score(title, part.label, *bootstrap_mean(own, groups=prompts).cut(-1.0, 1.0), len(own), note)
        for part, own in zip(sets, values, strict=True)
    ]
    if len(values) == 2:
        change = paired_difference_interval(values[1], values[0], groups=prompts)
        rows.append(Score(title, CHANGE, *change, len(prompts), note))
    return rows


def _copy_rows(sets: Sequence[ImageSet], near: Sequence[Copies], network: str, note: str) -> list[Score]:
    title = f"near copies of training images · {network}"
    facts = [copies.copied.tolist() for copies in near]
    rows = [
        Score(title, part.label, *grouped_share(own, part.prompts), len(own), note)
        for part, own in zip(sets, facts, strict=True)
    ]
    if len(facts) == 2:
        rows.append(
            Score(title, CHANGE, *grouped_share_change(facts[0], facts[1], sets[-1].prompts), len(facts[1]), note)
        )
    return rows


def _said(network: str, near: str) -> tuple[tuple[str, str], ...]:
    return (
        (
            f"similarity to training images of the same prompt · {network}",
            f"mean cosine; interval by {RESAMPLES} bootstrap samples of the prompts; lower is less memorized",
        ),
        (
            f"near copies of training images · {network}",
            f"share nearer to a training image than {near}; lower is less memorized",
        ),
    )
