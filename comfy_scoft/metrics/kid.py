"""KID: how far the distribution of generated images is from that of a reference (Bińkowski et al. 2018).

The squared maximum mean discrepancy of features under the kernel (x·y / D + 1)³, estimated without bias: near 0 for
sets of one distribution, and then as often below it as above. torch-fidelity computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import UserError
from ..data.records import Dataset
from ..features import FeatureNetwork
from .image_set import ImageSet
from .inputs import BATCH, Observer, Pictures, Work, checked_sets, embeddings, of_images, of_records, require_one_size
from .intervals import Interval, bootstrap_ends, resample_counts
from .scores import CHANGE, Score, Scores

SHOWN = 1000.0
"""KID is shown in thousandths, as in the paper's tables."""


@dataclass(frozen=True)
class KidSettings:
    """The kernel (gamma x·y + coef) ^ degree; gamma None is 1 / D. Raises UserError for what cannot be.

    normalize: scale every vector to the length √D first, so that x·y / D is a cosine: networks differ in the size of
    their features by orders of magnitude, and in its cube a few long vectors decide. False takes features as they are,
    as published values of Inception's features do.
    subset_size: 0 takes all images at once, which is what the mean over subsets comes to when there are very many;
    else the value is the mean over `subsets` random subsets of that size, drawn as torch-fidelity draws them.
    seed: of the subsets and of the bootstrap; resamples: of the bootstrap.
    """

    subset_size: int = 0
    subsets: int = 100
    degree: int = 3
    gamma: float | None = None
    coef: float = 1.0
    normalise: bool = True
    seed: int = 2020
    resamples: int = 2000

    def __post_init__(self) -> None:
        if self.subset_size < 0 or self.subset_size == 1 or self.subsets < 1:
            raise UserError(
                f"KID cannot use {self.subsets} subsets of {self.subset_size} images: take one or more subsets of at "
                "least 2, or the size 0 for all images at once."
            )


class Kid(NamedTuple):
    """KID, not in thousandths, its 95 % interval, and the standard deviation over subsets (0 without subsets)."""

    value: float
    low: float
    high: float
    spread: float


def polynomial_kernel(x: Tensor, y: Tensor, settings: KidSettings = KidSettings()) -> np.ndarray:
    """(gamma x·y + coef) ^ degree of features (N, D) and (M, D): (N, M) float64."""
    a, b = (features.detach().cpu().double() for features in (x, y))
    if settings.normalise:
        a, b = (F.normalize(features, dim=1) * features.shape[1] ** 0.5 for features in (a, b))
    gamma = 1.0 / a.shape[1] if settings.gamma is None else settings.gamma
    return (gamma * (a @ b.T).numpy() + settings.coef) ** settings.degree


def unbiased_mmd(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray) -> float:
    """The unbiased squared MMD from the kernels within (N, N) and (M, M) and between (N, M); N, M >= 2."""
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    return float(within[0] + within[1] - 2.0 * xy.mean())


def kid(x: Tensor, y: Tensor, settings: KidSettings = KidSettings()) -> Kid:
    """KID of features (N, D) of generated images and (M, D) of the reference; N, M >= 2, in any order.

    The interval is a bootstrap over the images of both; pairs of one image with itself are left out of it too.
    Raises UserError, one sentence, for features that do not belong together and subsets that are too large.
    """
    _check(x, y, settings)
    x, y = x[_order(x)], y[_order(y)]
    xx, xy, yy = (polynomial_kernel(a, b, settings) for a, b in ((x, x), (x, y), (y, y)))
    whole, spread = unbiased_mmd(xx, xy, yy), 0.0
    value = whole
    if settings.subset_size:
        found = list(_subsets(xx, xy, yy, settings))
        value, spread = float(np.mean(found)), float(np.std(found))
    low, high = bootstrap_ends(whole, _bootstrap([xx], [xy], yy, settings)[0], min(xy.shape))
    return Kid(value, float(low) + value - whole, float(high) + value - whole, spread)


def kid_change(after: Tensor, before: Tensor, reference: Tensor, settings: KidSettings = KidSettings()) -> Interval:
    """KID of `after` (N, D) less that of `before` (N, D) to one reference (M, D), on all images at once.

    Row i of both belongs to one prompt and seed: the bootstrap draws such pairs, and the reference once for both.
    Raises UserError, one sentence, for features that do not belong together.
    """
    if len(after) != len(before):
        raise UserError(
            f"Paired figures need one partner each, and there are {len(after)} and {len(before)}; "
            "compare sets made with the same prompts and seeds."
        )
    for x in (before, after):
        _check(x, reference, KidSettings())
    order, y = _order(before), reference[_order(reference)]
    sets = [before[order], after[order]]
    xx = [polynomial_kernel(x, x, settings) for x in sets]
    xy = [polynomial_kernel(x, y, settings) for x in sets]
    yy = polynomial_kernel(y, y, settings)
    first, second = (unbiased_mmd(a, b, yy) for a, b in zip(xx, xy, strict=True))
    samples = _bootstrap(xx, xy, yy, settings)
    low, high = bootstrap_ends(second - first, samples[1] - samples[0], min(xy[0].shape))
    return Interval(second - first, float(low), float(high))


def measure(
    images: ImageSet,
    reference: ImageSet | Dataset | Tensor,
    network: FeatureNetwork,
    settings: KidSettings = KidSettings(),
    compared_with: ImageSet | None = None,
    name: str = "",
    observe: Observer = lambda done, total: None,
    batch: int = BATCH,
) -> Scores:
    """KID × 1000 of a set to a reference, lower is nearer; with `compared_with`, of that too, and the paired change.

    reference: the records of a dataset (such as its test split), another set, or a batch (N, H, W, 3) in [0, 1].
    name: what the table calls the reference; "" takes its own name. Raises UserError, one sentence, for sets that do
    not belong together, too few images, and a network that gives no vector for an image.
    """
    sets = checked_sets(images, compared_with)
    height, width = images.images.shape[1:3]
    other = _reference(reference, (height, width))
    work = Work(sum(len(s.images) for s in sets) + other.count, observe)
    y = embeddings(network, other, work, batch) if other.count else None
    if y is None or len(y) < 2:
        raise UserError(
            f"The reference {other.name!r} has {other.count} image(s), but KID needs at least two, and many for a "
            "narrow interval: connect a larger dataset, set or batch."
        )
    title = f"KID ×10³ to {name.strip() or other.name} · {network.name}"
    found = [embeddings(network, of_images(s.images, s.label), work, batch) for s in sets]
    rows = []
    for part, x in zip(sets, found, strict=True):
        rows.append(Score(title, part.label, *_shown(kid(x, y, settings)), len(x)))
    if len(found) == 2:
        rows.append(Score(title, CHANGE, *_shown(kid_change(found[1], found[0], y, settings)), len(found[1])))
    return Scores(tuple(rows), ((title, _said(settings, len(y))),))


def _reference(given: ImageSet | Dataset | Tensor, size: tuple[int, int]) -> Pictures:
    if isinstance(given, Dataset):
        return of_records(given, size)
    found = of_images(given.images, given.label) if isinstance(given, ImageSet) else of_images(given, "other images")
    require_one_size(size, found.size, found.name)
    return found


def _shown(found: Kid | Interval) -> Interval:
    return Interval(SHOWN * found.value, SHOWN * found.low, SHOWN * found.high)


def _said(settings: KidSettings, count: int) -> str:
    gamma = "1/D" if settings.gamma is None else f"{settings.gamma:g}"
    drawn = f"{settings.subsets} subsets of {settings.subset_size}" if settings.subset_size else "all images at once"
    vectors = "of features of length √D" if settings.normalise else "of features as they are"
    return (
        f"unbiased MMD² {vectors}, kernel ({gamma} x·y + {settings.coef:g})^{settings.degree}, {drawn}, {count} "
        f"reference images; interval by {settings.resamples} bootstrap samples of the images; lower is nearer"
    )


def _order(x: Tensor) -> Tensor:
    """An order of the rows that does not depend on the one they came in, so that what is drawn does not either."""
    return x.double().sum(1).argsort()


def _check(x: Tensor, y: Tensor, settings: KidSettings) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UserError(
            f"KID compares features of one network, (N, D) and (M, D), but got {tuple(x.shape)} and {tuple(y.shape)}: "
            "take both from the same network."
        )
    least = max(2, settings.subset_size)
    if min(len(x), len(y)) < least:
        raise UserError(
            f"There are {len(x)} images and {len(y)} of the reference, but KID needs at least {least} of each: add "
            "images, or set subset_size to 0 (all at once)."
        )


def _subsets(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray, settings: KidSettings) -> Iterator[float]:
    """KID of random subsets of both, drawn in torch-fidelity's order from NumPy's first generator, as it does."""
    rng = np.random.RandomState(settings.seed)
    for _ in range(settings.subsets):
        a = rng.choice(len(xx), settings.subset_size, replace=False)
        b = rng.choice(len(yy), settings.subset_size, replace=False)
        yield unbiased_mmd(xx[np.ix_(a, a)], xy[np.ix_(a, b)], yy[np.ix_(b, b)])


def _bootstrap(xx: list[np.ndarray], xy: list[np.ndarray], yy: np.ndarray, settings: KidSettings) -> list[np.ndarray]:
    """KID of each set in bootstrap samples of images, the sets and their reference drawn alike, (resamples,) each.

    An image that is drawn twice makes no pair with itself: its kernel with itself is what the unbiased estimate
    leaves out.
    """
    n, m = xy[0].shape
    x_weights = np.concatenate(list(resample_counts(n, settings.seed, settings.resamples)))
    y_weights = np.concatenate(list(resample_counts(m, settings.seed + 1, settings.resamples)))
    yy_means = _pair_means(yy, y_weights)
    found = []
    for own, cross in zip(xx, xy, strict=True):
        between = ((x_weights @ cross) * y_weights).sum(1) / (n * m)
        found.append(_pair_means(own, x_weights) + yy_means - 2.0 * between)
    return found


def _pair_means(kernel: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the kernel over pairs of different images, as often as each is drawn: (r,)."""
    apart = kernel - np.diag(np.diag(kernel))
    pairs = weights.sum(1) ** 2 - (weights**2).sum(1)  # 0 where one image alone was drawn
    return ((weights @ apart) * weights).sum(1) / np.maximum(pairs, 1.0)
