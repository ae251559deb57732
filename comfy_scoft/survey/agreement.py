"""Agreement between participants, and of participants with themselves on repeated pages."""

from __future__ import annotations

import numpy as np

from .rankings import Rankings
from .spec import Survey


def krippendorff_alpha(values: np.ndarray) -> float:
    """Krippendorff's alpha with interval distances of ratings (raters, units), NaN for a missing rating.

    1 - observed / expected squared difference within units: 1 is full agreement, 0 chance, below 0 less than chance.
    The units of rankings are images; as every rank is equally frequent, this is also the ordinal alpha. NaN unless a
    unit has two ratings and the ratings differ. Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability
    (2011).
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
    """Kendall's coefficient of concordance of complete rankings (raters >= 2, G) without ties, in [0, 1].

    12 S / (m^2 (G^3 - G)), S the sum of squared deviations of the rank sums; 1 / m on average by chance.
    """
    m, g = ranks.shape
    sums = ranks.sum(0)
    return float(12.0 * ((sums - sums.mean()) ** 2).sum() / (m**2 * (g**3 - g)))


def rating_matrix(table: Rankings) -> np.ndarray:
    """Ranks as ratings (participants, pages x items x generators) for `krippendorff_alpha`; NaN if missing."""
    pairs, unit = np.unique(np.stack([table.page, table.item], 1), axis=0, return_inverse=True)
    values = np.full((len(table.participants), len(pairs), table.ranks.shape[1]), np.nan)
    values[table.who, unit.reshape(-1)] = table.ranks
    return values.reshape(len(values), -1)


def mean_kendall_w(table: Rankings) -> float:
    """Mean of Kendall's W over pages and items with two or more participants, weighted by their number; NaN if none."""
    _, unit, people = np.unique(np.stack([table.page, table.item], 1), axis=0, return_inverse=True, return_counts=True)
    shared = [(kendall_w(table.ranks[unit.reshape(-1) == k]), people[k]) for k in np.flatnonzero(people >= 2)]
    if not shared:
        return float("nan")
    w, m = np.array(shared).T
    return float(np.average(w, weights=m))


def attention(survey: Survey, first: Rankings, again: Rankings) -> dict[int, tuple[float, int]]:
    """Participant -> (share of pairs ordered alike on a repeated page, number of pairs); the share is 0.5 by chance.

    first, again: from `ranking_tables`. Participants who did not rank both pages are left out.
    """
    row = {(w, p, i): k for k, (w, p, i) in enumerate(zip(first.who, first.page, first.item, strict=True))}
    number = {page.id: k for k, page in enumerate(survey.pages)}
    same: dict[int, list[bool]] = {}
    for who, page, item, ranks in zip(again.who, again.page, again.item, again.ranks, strict=True):
        k = row.get((who, number[survey.pages[page].repeats], item))
        if k is not None:
            before, upper = first.ranks[k], np.triu_indices(len(ranks), 1)
            agree = (np.subtract.outer(before, before) > 0) == (np.subtract.outer(ranks, ranks) > 0)
            same.setdefault(int(who), []).extend(agree[upper])
    return {who: (float(np.mean(pairs)), len(pairs)) for who, pairs in sorted(same.items())}
