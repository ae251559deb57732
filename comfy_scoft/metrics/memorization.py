"""Memorization: similarity of generated images to training images (the paper's Table 2), and near copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import UserError
from ..common.text import composed
from ..data.records import Dataset
from ..features import FeatureNetwork
from .image_set import ImageSet
from .inputs import BATCH, ImageCounter, OnImages, checked_sets, embeddings, of_records, set_embeddings
from .intervals import RESAMPLES, grouped_share, grouped_share_change
from .scores import Score, Scores, mean_scores, scored

QUANTILE = 0.05
CAUTION = (
    "Near copies: without held-out images, near means nearer than training images are to one another, and a shared "
    "subject alone brings an image that near. Compare with the base model, and look at the images."
)
SAME = 1e-6
"""Cosine distance up to which two training images count as the same."""


def similarities(generated: Tensor, prompts: Sequence[str], training: Tensor, captions: Sequence[str]) -> list[float]:
    """Cosine similarity of each generated image to the training image whose caption is its prompt, the mean of several.

    generated: (N, D) embeddings of N prompts; training: (M, D) of M captions. NaN if the prompt is not a caption.
    Case and spacing are ignored.
    """
    cosines = F.normalize(generated.double(), dim=1) @ F.normalize(training.double(), dim=1).T
    by_caption: dict[str, list[int]] = {}
    for i, caption in enumerate(captions):
        by_caption.setdefault(folded(caption), []).append(i)
    matches = [by_caption.get(folded(prompt), []) for prompt in prompts]
    return [float(cosines[i, columns].mean()) if columns else math.nan for i, columns in enumerate(matches)]


def folded(text: str) -> str:
    """The text in lower case with single spaces."""
    return " ".join(composed(text).casefold().split())


@dataclass(frozen=True)
class Copies:
    """nearest: (N,) index of the nearest training image of each generated one; distances: (N,) 1 − cosine to it.

    copied: (N,) bool, whether the distance is below the threshold.
    """

    nearest: Tensor
    distances: Tensor
    threshold: float

    @property
    def copied(self) -> Tensor:
        return self.distances < self.threshold


def copies(generated: Tensor, training: Tensor, quantile: float = QUANTILE, held_out: Tensor | None = None) -> Copies:
    """Find generated images that are nearer to a training image than real images that were not trained on.

    The threshold is a quantile of the distances of held-out images to their nearest training image, so that a model
    that copies nothing is below it in about that share of its images. Without held-out images, the distances of
    training images to the nearest other training image are used (identical images count once); see CAUTION.
    generated: (N, D), training: (M, D), held_out: (K, D) embeddings. Raises UserError for fewer than 3 different
    training images without held-out ones.
    """
    a, b = F.normalize(generated.double(), dim=1), F.normalize(training.double(), dim=1)
    distances, nearest = (1.0 - a @ b.T).min(1)
    if held_out is not None:
        apart = 1.0 - F.normalize(held_out.double(), dim=1) @ b.T
    else:
        among = 1.0 - b @ b.T
        first = [i for i in range(len(b)) if not bool((among[i, :i] <= SAME).any())]
        if len(first) < 3:
            raise UserError(
                f"The training set has {len(first)} different image(s), but the distance between its images needs at "
                "least 3: connect the set that the LoRA was trained on, or held-out images."
            )
        apart = among[first][:, first].fill_diagonal_(math.inf)
    return Copies(nearest, distances, float(torch.quantile(apart.min(1).values, quantile)))


@dataclass(frozen=True)
class MemorizationResult:
    """copies: of the set itself; training: the records that `copies.nearest` indexes."""

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
    observe: OnImages = lambda done, total: None,
    batch: int = BATCH,
) -> MemorizationResult:
    """Similarity to the training image of the same prompt, and the share of near copies; lower is better for both.

    Only records of the split "train" are compared with. The similarity leaves out images whose prompt is not one of
    their captions, with a note; the share takes all images. held_out: images that set the threshold of `copies`,
    without those that are training images.
    Raises UserError for fewer than two images with such a prompt, no training image, no held-out image that is not a
    training image, sets that cannot be compared, and a network without embeddings.
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
            "Every held-out image is a training image too, so they set no threshold; connect images of another split, "
            "for example Load Dataset with the split 'test'."
        )
    counter = ImageCounter(len(training) + len(fresh or ()) + sum(len(s.images) for s in sets), observe)
    of_training = embeddings(network, of_records(training, (height, width)), counter, batch)
    of_sets = set_embeddings(network, sets, counter, batch)
    of_fresh = None if fresh is None else embeddings(network, of_records(fresh, (height, width)), counter, batch)
    near = [copies(vectors, of_training, quantile, of_fresh) for vectors in of_sets]
    owners = torch.tensor([i for i, record in enumerate(training.records) for _ in record.captions])
    alike = [similarities(vectors, images.prompts, of_training[owners], training.captions) for vectors in of_sets]
    name = f"similarity to training images of the same prompt · {network.name}"
    copies_name = f"near copies of training images · {network.name}"
    rows = _similarity_rows(name, sets, alike)
    rows += _copy_rows(copies_name, sets, near, "" if fresh else CAUTION)
    others = f"{len(fresh)} held-out images" if fresh else "training images to one another"
    threshold = f"{near[-1].threshold:.4g} (1 − cosine), as only {quantile:.0%} of {others} are"
    methods = (
        (name, f"mean cosine; interval by {RESAMPLES} bootstrap samples of the prompts; lower is less memorized"),
        (copies_name, f"share nearer to a training image than {threshold}; lower is less memorized"),
    )
    return MemorizationResult(Scores(tuple(rows), methods), near[-1], training)


def _similarity_rows(name: str, sets: Sequence[ImageSet], alike: Sequence[Sequence[float]]) -> list[Score]:
    kept = [i for i, value in enumerate(alike[-1]) if not math.isnan(value)]
    prompts = [sets[-1].prompts[i] for i in kept]
    if len(kept) < 2:
        raise UserError(
            f"{len(kept)} image(s) of the set {sets[-1].label!r} have a prompt that is the caption of a training "
            "image, but memorization compares images of the same caption: give Generate Set the captions of the "
            "images that were trained on."
        )
    total = len(set(sets[-1].prompts))
    missing = total - len(set(prompts))
    note = f"{missing} of {total} prompts are no caption of a training image and are left out." if missing else ""
    values = [[of_set[i] for i in kept] for of_set in alike]
    return mean_scores(name, [part.label for part in sets], values, prompts, -1.0, 1.0, note)


def _copy_rows(name: str, sets: Sequence[ImageSet], near: Sequence[Copies], note: str) -> list[Score]:
    prompts, copied = sets[-1].prompts, [of_set.copied.tolist() for of_set in near]
    intervals = [grouped_share(own, prompts) for own in copied]
    if len(copied) == 2:
        intervals.append(grouped_share_change(copied[0], copied[1], prompts))
    return scored(name, [part.label for part in sets], intervals, len(prompts), note)
