"""Average ranks and win rates with intervals that hold for other people of the same community.

One person's rankings resemble each other, so it is persons that are resampled, never single rankings. The pages are
taken as given: the intervals say what other people would have ranked on these pages, not on other prompts.
"""

from __future__ import annotations

import numpy as np

from ..metrics.intervals import bootstrap_ends, resample_counts, wilson_ends
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
    """Ratios sum / count over all participants with bootstrap intervals over participants, (3, K).

    sums (P, K), counts (P,); the values lie in [low, high]. Where all resamples agree, as when everybody gave one
    answer, the interval is Wilson's for that share of [low, high] and P trials. With one participant the ends are NaN.
    """
    people = len(counts)
    value = sums.sum(0) / counts.sum()
    if people < 2:
        return np.stack([value, np.full_like(value, np.nan), np.full_like(value, np.nan)])
    samples = [(w @ sums) / (w @ counts)[:, None] for w in resample_counts(people, generator, resamples)]
    ends = np.stack(bootstrap_ends(value, np.concatenate(samples), people, confidence)).clip(low, high)
    share = np.clip((value - low) / (high - low), 0.0, 1.0)
    alike = ends[1] - ends[0] < 1e-12
    return np.concatenate(
        [value[None], np.where(alike, low + (high - low) * wilson_ends(share, people, confidence), ends)]
    )


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
