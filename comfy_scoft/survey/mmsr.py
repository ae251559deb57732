"""How well each participant agrees with what all agree on: M-MSR, robust completion of a rank-one matrix.

Q. Ma and A. Olshevsky, Adversarial Crowdsourcing Through Robust Rank-One Matrix Completion, NeurIPS 2020
(arXiv 2010.12181), the model that the paper runs through crowd-kit for 10 000 iterations to a tolerance of 1e-10.

If participant i gives the label of the consensus with probability (1 + s_i) / 2, then how much i and j agree above
chance, C_ij, is s_i s_j on average. Where all participants share tasks, the results equal crowd-kit's
(tests/test_survey_consensus.py). Where some share none (each country had its own pages, say), crowd-kit's end in NaN or
take "no common task" for disagreement; here such participants form groups of their own, estimated one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ITERATIONS, TOLERANCE = 10_000, 1e-10
FEWEST = 3
"""Fewer participants than this with common tasks do not determine a rank-one matrix: s_1 s_2 is one number."""
_TINY = 1e-12


@dataclass(frozen=True)
class Skills:
    """skill (P,): s in [-1, 1], NaN for participants it cannot be known of; weight (P,): log-odds of giving the
    consensus label, 1 where the skill is NaN; agreement (P, P): C, NaN where two share no task; iterations: the most
    that a group took; converged: whether all came below the tolerance."""

    skill: np.ndarray
    weight: np.ndarray
    agreement: np.ndarray
    iterations: int
    converged: bool


def agreement(values: np.ndarray) -> np.ndarray:
    """C (P, P) in [-1, 1] of labels (P, T) in {-1, 0, 1}: share of common tasks with the same label, less that with
    another one. NaN where two participants share none, and on the diagonal."""
    signed = values.astype(np.float32)
    asked = np.abs(signed)
    common = (asked @ asked.T).astype(float)  # whole numbers, exact in float32 below 2^24 tasks
    same = (signed @ signed.T).astype(float)
    np.fill_diagonal(common, 0.0)
    return np.divide(same, common, out=np.full_like(same, np.nan), where=common > 0)


def skills(values: np.ndarray, iterations: int = ITERATIONS, tolerance: float = TOLERANCE) -> Skills:
    """Skills of the participants from their labels (P, T) in {-1, 0, 1}."""
    found = agreement(values)
    people = len(values)
    skill, weight = np.full(people, np.nan), np.ones(people)
    most, converged = 0, True
    for group in components(~np.isnan(found)):
        if len(group) < FEWEST:
            continue
        tasks = int(np.any(values[group] != 0, axis=0).sum())
        size, used, done = _rank_one(found[np.ix_(group, group)], tasks, iterations, tolerance)
        signed = size * _signs(found[np.ix_(group, group)], size)
        edge = 1.0 - 1.0 / np.sqrt(tasks)  # keeps the log-odds finite
        skill[group] = np.clip(signed, -edge, edge)
        weight[group] = np.log((1.0 + skill[group]) / (1.0 - skill[group]))
        most, converged = max(most, used), converged and done
    return Skills(skill, weight, found, most, converged)


def components(linked: np.ndarray) -> list[np.ndarray]:
    """Groups (indices) of a symmetric relation (P, P) that nothing links to each other."""
    from scipy.sparse.csgraph import connected_components

    count, which = connected_components(linked, directed=False)
    return [np.flatnonzero(which == k) for k in range(count)]


def _rank_one(c: np.ndarray, tasks: int, iterations: int, tolerance: float) -> tuple[np.ndarray, int, bool]:
    """|s| of |C| = s s^T by alternating trimmed means: (|s|, iterations, whether the change fell below tolerance).

    In turn each v_j is the mean of |C_ij| / u_i over those i who share tasks with j, without the F largest values
    above the last v_j and the F smallest below it, and each u_i likewise. F is half of the fewest partners, less one.
    """
    observed = ~np.isnan(c)
    size = np.where(observed, np.abs(c), 0.0)
    trim = max(0, int(observed.sum(0).min()) // 2 - 1)
    start = np.random.RandomState(0).uniform(size=len(c))  # a fixed start, the same as crowd-kit's
    u, v = start.copy(), start.copy()
    for done in range(1, iterations + 1):
        before_u, before_v = u, v
        v = _trimmed_means(size, observed, u, v, trim, tasks)
        u = _trimmed_means(size, observed, v, u, trim, tasks)
        if np.linalg.norm(np.outer(u, v) - np.outer(before_u, before_v)) < tolerance:
            return _balanced(u, v), done, True
    return _balanced(u, v), iterations, False


def _balanced(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """s of u v^T: u and v are its multiples, one by as much too large as the other is too small."""
    norm = np.linalg.norm(u)
    return u * np.sqrt(np.linalg.norm(v) / norm) if norm > 0 else u


def _trimmed_means(
    size: np.ndarray, observed: np.ndarray, other: np.ndarray, last: np.ndarray, trim: int, tasks: int
) -> np.ndarray:
    """One half step for all participants (columns) at once; a column with nothing left keeps its last value."""
    targets = np.where(observed, size / np.maximum(other, _TINY)[:, None], np.inf)
    targets.sort(axis=0)
    count = observed.sum(0)
    low = np.minimum(trim, (targets < last).sum(0))
    high = count - np.minimum(trim, ((targets > last) & np.isfinite(targets)).sum(0))
    rows = np.arange(len(size))[:, None]
    kept = (rows >= low) & (rows < high)
    n = kept.sum(0)
    mean = np.where(kept, targets, 0.0).sum(0) / np.maximum(n, 1)
    mean = np.where((n == 1) & (mean == 0.0), 1.0 / np.sqrt(tasks), mean)
    return np.where(n > 0, mean, last)


def _signs(c: np.ndarray, size: np.ndarray) -> np.ndarray:
    """+1 for those who mostly agree with the others, -1 for those who mostly contradict them.

    From all +1, one participant after the other takes the sign of their agreement with the rest, which can only raise
    sum of C_ij s_i s_j; the majority then is +1.
    """
    known = np.nan_to_num(c) * size[:, None] * size[None, :]
    sign = np.ones(len(c))
    for _ in range(100):
        before = sign.copy()
        for i in range(len(c)):
            pull = known[i] @ sign
            sign[i] = 1.0 if pull >= 0 else -1.0
        if (sign == before).all():
            break
    return sign if sign.sum() >= 0 else -sign
