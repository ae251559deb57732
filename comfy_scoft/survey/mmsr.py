"""M-MSR: participants' skills by robust completion of a rank-one matrix.

Q. Ma and A. Olshevsky, Adversarial Crowdsourcing Through Robust Rank-One Matrix Completion, NeurIPS 2020
(arXiv 2010.12181), which the paper runs through crowd-kit for 10 000 iterations to a tolerance of 1e-10.

If participant i gives the consensus label with probability (1 + s_i) / 2, the agreement C_ij of i and j above chance is
s_i s_j on average. If all participants share tasks, the sizes |s| equal crowd-kit's (tests/test_survey_consensus.py).
The signs do not: they are chosen by another rule, which finds the true order more often (`_signs`). If some share no
tasks (each country has its own pages, for example), crowd-kit's are NaN or count "no common task" as disagreement; here
participants are split into groups that share tasks, each estimated on its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ITERATIONS, TOLERANCE = 10_000, 1e-10
FEWEST = 3
"""Minimum number of participants with common tasks that determines a rank-one matrix."""
CONTRADICTS = 2.0
"""How far beyond chance a participant must contradict the others to count against the consensus. Of crowd-kit's and
twelve other rules this one found the true order most often in the mean over three kinds of simulated crowds
(tests/recorded/survey_signs.py)."""
_TINY = 1e-12


@dataclass(frozen=True)
class Skills:
    """skill (P,): s in [-1, 1], NaN if it is not determined; weight (P,): log-odds of giving the consensus label, 1 if
    the skill is NaN; agreement (P, P): C, NaN for two without a common task; iterations: maximum over groups;
    converged: whether all groups came below the tolerance."""

    skill: np.ndarray
    weight: np.ndarray
    agreement: np.ndarray
    iterations: int
    converged: bool


def agreement(values: np.ndarray) -> np.ndarray:
    """C (P, P) in [-1, 1] of labels (P, T) in {-1, 0, 1}: share of common tasks with the same label minus that with
    different ones. NaN for two participants without a common task, and on the diagonal."""
    signed = values.astype(np.float32)
    asked = np.abs(signed)
    common = (asked @ asked.T).astype(float)  # whole numbers, exact in float32 below 2^24 tasks
    same = (signed @ signed.T).astype(float)
    np.fill_diagonal(common, 0.0)
    return np.divide(same, common, out=np.full_like(same, np.nan), where=common > 0)


def skills(values: np.ndarray, iterations: int = ITERATIONS, tolerance: float = TOLERANCE) -> Skills:
    """Skills of the participants from their labels (P, T) in {-1, 0, 1}."""
    c = agreement(values)
    people = len(values)
    skill, weight = np.full(people, np.nan), np.ones(people)
    most, converged = 0, True
    for group in components(~np.isnan(c)):
        if len(group) < FEWEST:
            continue
        tasks = int(np.any(values[group] != 0, axis=0).sum())
        of_group = c[np.ix_(group, group)]
        size, used, done = _rank_one(of_group, tasks, iterations, tolerance)
        signed = size * _signs(of_group, size, tasks)
        edge = 1.0 - 1.0 / np.sqrt(tasks)  # keeps the log-odds finite
        skill[group] = np.clip(signed, -edge, edge)
        weight[group] = np.log((1.0 + skill[group]) / (1.0 - skill[group]))
        most, converged = max(most, used), converged and done
    return Skills(skill, weight, c, most, converged)


def components(linked: np.ndarray) -> list[np.ndarray]:
    """Connected components (indices) of a symmetric relation (P, P)."""
    from scipy.sparse.csgraph import connected_components

    count, which = connected_components(linked, directed=False)
    return [np.flatnonzero(which == k) for k in range(count)]


def _rank_one(c: np.ndarray, tasks: int, iterations: int, tolerance: float) -> tuple[np.ndarray, int, bool]:
    """|s| of |C| = s s^T by alternating trimmed means: (|s|, iterations, whether the change fell below tolerance).

    Alternately, each v_j is the mean of |C_ij| / u_i over those i who share tasks with j, without the F largest values
    above the last v_j and the F smallest below it, and each u_i likewise. F is half the minimum number of partners,
    minus one.
    """
    observed = ~np.isnan(c)
    size = np.where(observed, np.abs(c), 0.0)
    trim = max(0, int(observed.sum(0).min()) // 2 - 1)
    start = np.random.RandomState(0).uniform(size=len(c))  # crowd-kit's start
    u, v = start.copy(), start.copy()
    for done in range(1, iterations + 1):
        before_u, before_v = u, v
        v = _trimmed_means(size, observed, u, v, trim, tasks)
        u = _trimmed_means(size, observed, v, u, trim, tasks)
        if np.linalg.norm(np.outer(u, v) - np.outer(before_u, before_v)) < tolerance:
            return _balanced(u, v), done, True
    return _balanced(u, v), iterations, False


def _balanced(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """s of u v^T, where u and v are multiples of s with reciprocal factors."""
    norm = np.linalg.norm(u)
    return u * np.sqrt(np.linalg.norm(v) / norm) if norm > 0 else u


def _trimmed_means(
    size: np.ndarray, observed: np.ndarray, other: np.ndarray, last: np.ndarray, trim: int, tasks: int
) -> np.ndarray:
    """One half step for all participants (columns); a column without values keeps its last one."""
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


def _signs(c: np.ndarray, size: np.ndarray, tasks: int) -> np.ndarray:
    """-1 for those who contradict the others by more than chance, +1 for all others.

    Starting from all +1, each participant in turn is -1 where the agreement with the rest, weighted by their skills and
    signs, is below -CONTRADICTS / √tasks (1 / √tasks is what chance gives); until none changes. Then the majority is
    made +1.
    """
    known = ~np.isnan(c)
    mean = np.nan_to_num(c) * size / np.maximum(known @ size, _TINY)[:, None]
    sign = np.ones(len(c))
    for _ in range(100):
        before = sign.copy()
        for i in range(len(c)):
            sign[i] = -1.0 if mean[i] @ sign < -CONTRADICTS / np.sqrt(tasks) else 1.0
        if (sign == before).all():
            break
    return sign if sign.sum() >= 0 else -sign
