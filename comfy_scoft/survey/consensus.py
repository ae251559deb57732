"""MMSR + Vote, the paper's consensus ranking (Sections 5 and 11.2), from labels to ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import mmsr
from .rankings import Labels

_TIE = 1e-9


@dataclass(frozen=True)
class Consensus:
    """One consensus ranking.

    rank (G,): 1 is best, ties share their mean rank; won (G, G): share of tasks on which the row's generator is above
    the column's, NaN without tasks; labels: number of binary answers; skills: of the participants; weighted: whether
    any participant's weight could be estimated.
    """

    rank: np.ndarray
    won: np.ndarray
    labels: int
    skills: mmsr.Skills
    weighted: bool


def consensus(labels: Labels, generators: int) -> Consensus:
    """Robust skills (M-MSR) -> majority of each task weighted by them -> majority of the tasks of each pair -> ranks.

    A tied task counts half for both. Generators are ranked by the number of others they beat, ties by their share of
    tasks won.
    """
    skills = mmsr.skills(labels.values)
    won = shares_won(labels, skills.weight, generators)
    asked = int((labels.values != 0).sum())
    return Consensus(majority_ranks(won), won, asked, skills, bool((~np.isnan(skills.skill)).any()))


def shares_won(labels: Labels, weight: np.ndarray, generators: int) -> np.ndarray:
    """Share (G, G) of the tasks on which the row's generator is above the column's by the vote of participants with the
    weights (P,); NaN for a pair without tasks."""
    answered = (labels.values != 0).any(0)
    vote = weight @ labels.values
    sides = np.where(np.abs(vote) < _TIE, 0.5, vote > 0).astype(float)
    won = np.full((generators, generators), np.nan)
    for better, worse in np.unique(labels.pairs, axis=0):
        chosen = (labels.pairs == (better, worse)).all(1) & answered
        if chosen.any():
            won[better, worse] = sides[chosen].mean()
            won[worse, better] = 1.0 - won[better, worse]
    return won


def majority_ranks(won: np.ndarray) -> np.ndarray:
    """Ranks (G,), 1 is best, of a matrix of shares won (row over column)."""
    beaten = (won > 0.5 + _TIE).sum(1) + 0.5 * (np.abs(won - 0.5) <= _TIE).sum(1)
    share = np.nansum(won, axis=1) / np.maximum((~np.isnan(won)).sum(1), 1)
    return ranked(np.round(beaten * 1e3 + share, 9))


def ranked(score: np.ndarray) -> np.ndarray:
    """Ranks (G,) of scores, the highest first; ties share their mean rank."""
    from scipy.stats import rankdata

    return rankdata(-np.asarray(score), method="average")
