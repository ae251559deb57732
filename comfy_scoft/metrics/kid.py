"""Kernel Inception Distance (KID) between generated images and a reference (Bińkowski et al. 2018).

The unbiased estimate of the squared maximum mean discrepancy of features under the kernel (x·y / D + 1)³, as in
torch-fidelity. For sets of the same distribution it is around 0, and may be negative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import UserError
from ..common.settings import MAX_SEED, check, setting
from ..data.records import Dataset
from ..features import FeatureNetwork
from .image_set import ImageSet
from .inputs import (
    BATCH,
    ImageCounter,
    ImageSource,
    OnImages,
    checked_sets,
    embeddings,
    of_images,
    of_records,
    require_one_size,
    set_embeddings,
)
from .intervals import Interval, bootstrap_ends, resample_counts
from .scores import Scores, scored

SCALE = 1000.0
"""KID is reported × 1000, as in the paper's tables."""


@dataclass(frozen=True)
class KidSettings:
    """How KID is estimated. Raises UserError for invalid values.

    Without `normalise`, features are taken as they are, which is published KID. Networks differ in the size of their
    features by orders of magnitude, and in its cube a few long vectors decide; with it, only directions count, and the
    metric is called normalized KID. resamples: of the bootstrap.
    """

    subset_size: int = setting(
        0,
        "0: all images at once. Otherwise KID is the mean over random subsets of this size, as published values are.",
        min=0,
        max=100_000,
        step=1,
    )
    subsets: int = setting(100, "Number of subsets, if subset_size is not 0.", min=1, max=10_000, step=1)
    normalise: bool = setting(
        False,
        "Scale all feature vectors to the same length, so that a few long ones do not decide. Off: published KID. On: "
        "normalized KID, whose values cannot be compared with published ones.",
    )
    seed: int = setting(2020, "Random seed of the subsets and of the interval.", min=0, max=MAX_SEED, step=1)
    resamples: int = setting(2000, min=1)

    def __post_init__(self) -> None:
        check(self)
        if self.subset_size == 1:
            raise UserError("subset_size is 1, but a KID subset needs at least 2 images; 0 takes all images at once.")


def polynomial_kernel(x: Tensor, y: Tensor, settings: KidSettings = KidSettings()) -> np.ndarray:
    """(x·y / D + 1)³ of features (N, D) and (M, D): (N, M) float64."""
    a, b = (features.detach().cpu().double() for features in (x, y))
    if settings.normalise:
        a, b = (F.normalize(features, dim=1) * features.shape[1] ** 0.5 for features in (a, b))
    return (1.0 / a.shape[1] * (a @ b.T).numpy() + 1.0) ** 3


def unbiased_mmd(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray) -> float:
    """The unbiased squared MMD from the kernels within (N, N) and (M, M) and between (N, M); N, M >= 2."""
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    return float(within[0] + within[1] - 2.0 * xy.mean())


def kid(x: Tensor, y: Tensor, settings: KidSettings = KidSettings()) -> Interval:
    """KID (not scaled) of features (N, D) of generated images and (M, D) of the reference; N, M >= 2, in any order.

    The 95 % interval is a bootstrap over the images of both, without pairs of an image with itself.
    Raises UserError for features of different networks, and for subsets that are too large.
    """
    _check(x, y, settings)
    x, y = x[_order(x)], y[_order(y)]
    xx, xy, yy = (polynomial_kernel(a, b, settings) for a, b in ((x, x), (x, y), (y, y)))
    of_all = unbiased_mmd(xx, xy, yy)
    value = float(np.mean(list(_subsets(xx, xy, yy, settings)))) if settings.subset_size else of_all
    low, high = bootstrap_ends(of_all, _bootstrap([xx], [xy], yy, settings)[0], min(xy.shape))
    return Interval(value, float(low) + value - of_all, float(high) + value - of_all)


def kid_change(after: Tensor, before: Tensor, reference: Tensor, settings: KidSettings = KidSettings()) -> Interval:
    """KID of `after` (N, D) - KID of `before` (N, D) to the same reference (M, D), on all images at once.

    Row i of both is of the same prompt and seed: the bootstrap resamples pairs, and the reference once for both.
    Raises UserError for features of different networks and sets of different sizes.
    """
    if len(after) != len(before):
        raise UserError(
            f"A paired comparison needs sets of the same size, and there are {len(after)} and {len(before)} images; "
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
    observe: OnImages = lambda done, total: None,
    batch: int = BATCH,
) -> Scores:
    """KID × 1000 of a set to a reference, lower is better; with `compared_with`, also of that, and the paired change.

    reference: a dataset (such as a test split), another set, or a batch (N, H, W, 3) in [0, 1]. name: of the reference
    in tables; "" uses its own. Raises UserError for sets that cannot be compared, too few images, and a network without
    embeddings.
    """
    sets = checked_sets(images, compared_with)
    height, width = images.images.shape[1:3]
    other = _reference(reference, (height, width))
    counter = ImageCounter(sum(len(s.images) for s in sets) + other.count, observe)
    y = embeddings(network, other, counter, batch) if other.count else None
    if y is None or len(y) < 2:
        raise UserError(
            f"The reference {other.name!r} has {other.count} image(s), but KID needs at least two, and many for a "
            "narrow interval: connect a larger dataset, set or batch."
        )
    title = f"{'normalized ' * settings.normalise}KID ×10³ to {name.strip() or other.name} · {network.name}"
    vectors = set_embeddings(network, sets, counter, batch)
    intervals = [kid(x, y, settings) for x in vectors]
    if len(vectors) == 2:
        intervals.append(kid_change(vectors[1], vectors[0], y, settings))
    scaled = [Interval(*(SCALE * end for end in interval)) for interval in intervals]
    rows = scored(title, [part.label for part in sets], scaled, len(images.images))
    return Scores(tuple(rows), ((title, _method(settings, len(y))),))


def _reference(reference: ImageSet | Dataset | Tensor, size: tuple[int, int]) -> ImageSource:
    if isinstance(reference, Dataset):
        return of_records(reference, size)
    is_set = isinstance(reference, ImageSet)
    source = of_images(reference.images, reference.label) if is_set else of_images(reference, "other images")
    require_one_size(size, source.size, source.name)
    return source


def _method(settings: KidSettings, count: int) -> str:
    subsets = f"{settings.subsets} subsets of {settings.subset_size}" if settings.subset_size else "all images at once"
    vectors = "of features of length √D, not published KID" if settings.normalise else "of features as they are"
    return (
        f"unbiased MMD² {vectors}, kernel (1/D x·y + 1)^3, {subsets}, {count} reference images; "
        f"interval by {settings.resamples} bootstrap samples of the images; lower is nearer"
    )


def _order(x: Tensor) -> Tensor:
    """An order of the rows that does not depend on the given one, so that resampling does not either."""
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
    """KID of random subsets of both, sampled in torch-fidelity's order with NumPy's legacy generator, as it does."""
    low, high = settings.seed & 0xFFFF_FFFF, settings.seed >> 32
    rng = np.random.RandomState([low, high] if high else low)  # one number is at most 32 bits here
    for _ in range(settings.subsets):
        a = rng.choice(len(xx), settings.subset_size, replace=False)
        b = rng.choice(len(yy), settings.subset_size, replace=False)
        yield unbiased_mmd(xx[np.ix_(a, a)], xy[np.ix_(a, b)], yy[np.ix_(b, b)])


def _bootstrap(xx: list[np.ndarray], xy: list[np.ndarray], yy: np.ndarray, settings: KidSettings) -> list[np.ndarray]:
    """KID of each set in bootstrap samples of images, (resamples,) each; all sets use the same samples.

    An image that is sampled twice makes no pair with itself, which the unbiased estimate leaves out.
    """
    n, m = xy[0].shape
    x_weights = np.concatenate(list(resample_counts(n, settings.seed, settings.resamples)))
    y_weights = np.concatenate(list(resample_counts(m, settings.seed + 1, settings.resamples)))
    yy_means = _pair_means(yy, y_weights)
    between = [((x_weights @ cross) * y_weights).sum(1) / (n * m) for cross in xy]
    return [_pair_means(own, x_weights) + yy_means - 2.0 * b for own, b in zip(xx, between, strict=True)]


def _pair_means(kernel: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the kernel over pairs of different images, weighted by how often each was sampled: (r,)."""
    apart = kernel - np.diag(np.diag(kernel))
    pairs = weights.sum(1) ** 2 - (weights**2).sum(1)  # 0 if only one image was sampled
    return ((weights @ apart) * weights).sum(1) / np.maximum(pairs, 1.0)
