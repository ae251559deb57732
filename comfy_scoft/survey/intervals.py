"""Average ranks and win rates with intervals that hold for other people of the same community.

One person's rankings resemble each other, so it is persons that are resampled, never single rankings. The pages are
taken as given: the intervals say what other people would have ranked on these pages, not on other prompts.
"""

from __future__ import annotations

import numpy as np

from .rankings import Rankings

RESAMPLES = 2000
CONFIDENCE = 0.95


def person_sums(found: Rankings) -> tuple[np.ndarray, np.ndarray]:
    """(sums (P, G + G G), counts (P,)): of each participant present, the sum of ranks of each generator, then how often
    the row's generator stood above the column's; and the number of rankings."""
    people = found.present()
    g = found.ranks.shape[1]
    above = found.ranks[:, :, None] < found.ranks[:, None, :]
    rows = np.concatenate([found.ranks, above.reshape(-1, g * g)], 1).astype(float)
    sums = np.stack([rows[found.who == who].sum(0) for who in people])
    return sums, np.array([(found.who == who).sum() for who in people], dtype=float)


def resampled(
    sums: np.ndarray,
    counts: np.ndarray,
    low: float,
    high: float,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> np.ndarray:
    """Ratios sum / count over all participants with percentile bootstrap intervals over participants, (3, K).

    sums (P, K), counts (P,); the figures lie in [low, high]. The percentiles are moved outwards as t is wider than the
    normal, for with few people plain ones are too narrow (T. Hesterberg, The American Statistician 69 (2015) 371-386,
    "expanded percentile interval"). Where all resamples agree, as when everybody gave one answer, the interval is
    Wilson's for that share of [low, high] and P trials. With one participant the ends are NaN: nothing is known.
    """
    from scipy.stats import norm, t

    people = len(counts)
    value = sums.sum(0) / counts.sum()
    if people < 2:
        return np.stack([value, np.full_like(value, np.nan), np.full_like(value, np.nan)])
    times = generator.multinomial(people, np.full(people, 1.0 / people), size=resamples).astype(float)
    drawn = (times @ sums) / (times @ counts)[:, None]
    tail = norm.cdf(np.sqrt(people / (people - 1)) * t.ppf((1 - confidence) / 2, people - 1))
    ends = np.quantile(drawn, [tail, 1 - tail], axis=0)
    share = np.clip((value - low) / (high - low), 0.0, 1.0)
    same = ends[1] - ends[0] < 1e-12
    wilson = low + (high - low) * _wilson(share, people, float(norm.ppf((1 + confidence) / 2)))
    return np.concatenate([value[None], np.where(same, wilson, ends)])


def _wilson(share: np.ndarray, n: int, z: float) -> np.ndarray:
    """Wilson's interval (2, K) of shares that need not be whole counts over n."""
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return np.stack([np.maximum(center - half, 0.0), np.minimum(center + half, 1.0)])


def average_ranks_and_win_rates(
    found: Rankings, generator: np.random.Generator, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray]:
    """(average rank (3, G), win rate (3, G, G)): value and the ends of the interval. A win rate is the share of
    rankings in which the row's generator stands above the column's; NaN on the diagonal."""
    g = found.ranks.shape[1]
    sums, counts = person_sums(found)
    ranks = resampled(sums[:, :g], counts, 1.0, float(g), generator, resamples, confidence)
    wins = resampled(sums[:, g:], counts, 0.0, 1.0, generator, resamples, confidence).reshape(3, g, g)
    wins[:, np.arange(g), np.arange(g)] = np.nan
    return ranks, wins
