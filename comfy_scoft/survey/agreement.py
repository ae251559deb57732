"""Do participants agree with each other, and with themselves when a page comes again?"""

from __future__ import annotations

import numpy as np

from .rankings import Rankings
from .spec import Survey


def krippendorff_alpha(values: np.ndarray) -> float:
    """Krippendorff's alpha with interval distances of ratings (raters, units), NaN for none.

    1 - observed / expected squared difference within units: 1 full agreement, 0 chance, below 0 less than chance. For
    rankings the units are the images, and as every rank occurs equally often this is the ordinal alpha too. NaN
    unless a unit has two ratings and the ratings differ. Source: K. Krippendorff, Computing Krippendorff's
    Alpha-Reliability (2011).
    """
    n = (~np.isnan(values)).sum(0)
    kept = values[:, n >= 2]
    n = n[n >= 2]
    total = n.sum()
    if not len(n):
        return float("nan")
    within = (n * np.nanvar(kept, axis=0) * n / (n - 1)).sum() * 2 / total
    pooled = kept[~np.isnan(kept)]
    across = 2 * pooled.var() * total / (total - 1)
    return float(1.0 - within / across) if across > 0 else float("nan")


def kendall_w(ranks: np.ndarray) -> float:
    """Kendall's coefficient of concordance of complete rankings (raters >= 2, G), in [0, 1]; no ties.

    12 S / (m^2 (G^3 - G)), S the sum of squared deviations of the rank sums. Chance gives 1 / m on average.
    """
    m, g = ranks.shape
    sums = ranks.sum(0)
    return float(12.0 * ((sums - sums.mean()) ** 2).sum() / (m**2 * (g**3 - g)))


def rating_matrix(found: Rankings) -> np.ndarray:
    """Ranks as ratings (participants, pages x items x generators) for `krippendorff_alpha`; NaN where there is none."""
    asked, unit = np.unique(np.stack([found.page, found.item], 1), axis=0, return_inverse=True)
    values = np.full((len(found.participants), len(asked), found.ranks.shape[1]), np.nan)
    values[found.who, unit.reshape(-1)] = found.ranks
    return values.reshape(len(values), -1)


def mean_kendall_w(found: Rankings) -> float:
    """Mean of Kendall's W over the pages and items that two or more participants ranked, each weighted by their number.
    NaN if there is none."""
    asked, unit, people = np.unique(
        np.stack([found.page, found.item], 1), axis=0, return_inverse=True, return_counts=True
    )
    shared = [(kendall_w(found.ranks[unit.reshape(-1) == k]), people[k]) for k in np.flatnonzero(people >= 2)]
    if not shared:
        return float("nan")
    w, m = np.array(shared).T
    return float(np.average(w, weights=m))


def attention(survey: Survey, first: Rankings, again: Rankings) -> dict[int, tuple[float, int]]:
    """Participant -> (share of pairs ordered the same way when a page came again, how many pairs). Chance is 0.5.

    first and again as from `rankings`. Participants who did not do both pages are left out.
    """
    where = {(w, p, i): k for k, (w, p, i) in enumerate(zip(first.who, first.page, first.item, strict=True))}
    number = {page.id: k for k, page in enumerate(survey.pages)}
    same: dict[int, list[bool]] = {}
    for who, page, item, ranks in zip(again.who, again.page, again.item, again.ranks, strict=True):
        k = where.get((who, number[survey.pages[page].repeats], item))
        if k is not None:
            before, upper = first.ranks[k], np.triu_indices(len(ranks), 1)
            agree = (np.subtract.outer(before, before) > 0) == (np.subtract.outer(ranks, ranks) > 0)
            same.setdefault(int(who), []).extend(agree[upper])
    return {who: (float(np.mean(pairs)), len(pairs)) for who, pairs in sorted(same.items())}
