"""Noisy Bradley-Terry: a check of the consensus that models unreliable participants and position bias.

X. Chen, P. N. Bennett, K. Collins-Thompson and E. Horvitz, Pairwise Ranking Aggregation in a Crowdsourced Setting,
WSDM 2013, in the form of crowd-kit, which the paper uses. The likelihood equals crowd-kit's
(tests/test_survey_consensus.py). It is maximized with its exact gradient; crowd-kit 1.4.2 writes the gradients of the
participants into other parameters, the last generator's among them, and so stops at another point.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from .rankings import Rankings

RIDGE = 1e-2
"""Strength of the normal prior that keeps scores finite if everybody agrees; weaker than one comparison."""


def comparisons(table: Rankings) -> np.ndarray:
    """Rows (participant, left, right, 1 if left was chosen else 0) of all rankings, int.

    The sides alternate with page, item and pair, so that a participant's bias to one side is not confused with a
    preference for a generator.
    """
    rows = []
    for k, (a, b) in enumerate(combinations(range(table.ranks.shape[1]), 2)):
        swap = (table.page + table.item + k) % 2 == 1
        left, right = np.where(swap, b, a), np.where(swap, a, b)
        ranks = np.take_along_axis(table.ranks, np.stack([left, right], 1), 1)
        rows.append(np.stack([table.who, left, right, ranks[:, 0] < ranks[:, 1]], 1))
    return np.concatenate(rows).astype(int)


def log_likelihood(
    score: np.ndarray, side: np.ndarray, reliability: np.ndarray, rows: np.ndarray, count: np.ndarray | None = None
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """The log-likelihood of comparisons and its gradients by score (G,), side (P,) and reliability (P,).

    P(participant w chooses the left) = r sigmoid(s_left - s_right) + (1 - r) sigmoid(q_w), r = sigmoid(reliability_w).
    rows (N, 4): from `comparisons`; count (N,): how often each occurs.
    """
    from scipy.special import expit

    who, left, right, chose_left = rows.T
    count = np.ones(len(rows)) if count is None else count
    y = np.where(chose_left == 1, 1.0, -1.0)
    by_merit = expit(y * (score[left] - score[right]))
    by_side = expit(y * side[who])
    r = expit(reliability[who])
    p = r * by_merit + (1.0 - r) * by_side
    merit_slope = count * r * by_merit * (1.0 - by_merit) * y / p
    d_score = np.bincount(left, merit_slope, len(score)) - np.bincount(right, merit_slope, len(score))
    d_side = np.bincount(who, count * (1.0 - r) * by_side * (1.0 - by_side) * y / p, len(side))
    d_reliability = np.bincount(who, count * r * (1.0 - r) * (by_merit - by_side) / p, len(side))
    return float((count * np.log(p)).sum()), d_score, d_side, d_reliability


def noisy_bradley_terry(rows: np.ndarray, participants: int, generators: int) -> np.ndarray:
    """Scores (G,) in (0, 1): the sigmoid of each generator's merit; the mean merit is 0, so 0.5 is the average.

    Participants' parameters are not returned, since this model determines them too weakly to be meaningful.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    unique, count = np.unique(rows, axis=0, return_counts=True)
    cuts = [generators, generators + participants]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        score, side, reliability = np.split(x, cuts)
        value, *slopes = log_likelihood(score, side, reliability, unique, count)
        return RIDGE / 2 * float(x @ x) - value, RIDGE * x - np.concatenate(slopes)

    start = np.zeros(generators + 2 * participants)
    start[cuts[1] :] = 1.0  # start from reliable participants
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-7}).x
    merit = best[:generators]
    return expit(merit - merit.mean())
