"""DETOX's theorems on Byzantine votes and variances, exactly and by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np

from horovod_byz.reproduction.calculations import rates
from horovod_byz.theory import detox

_TRIALS = 200_000


def calculate() -> dict[str, Any]:
    """Theorems 1 and 3, Corollary 2 and the variances of section 4 at p = 45, q = 5, r = 3."""
    n, f, r, b = 45, 5, 3, 1440
    exact = detox.expected_byzantine_votes(n, f, r)
    lost = _lost_votes(n, f, r, np.random.default_rng(0))
    error = float(lost.std() / np.sqrt(len(lost)))
    pmf = detox.byzantine_votes_pmf(n, f, r)
    values: dict[str, Any] = {
        "E[q_hat], exact": exact,
        "E[q_hat], simulated": float(lost.mean()),
        "simulated minus exact, in standard errors": abs(float(lost.mean()) - exact) / error,
        "provable bound on E[q_hat]": detox.byzantine_votes_bound(n, f, r),
        "bound minus exact": detox.byzantine_votes_bound(n, f, r) - exact,
        **{f"P(q_hat = {votes})": share for votes, share in enumerate(pmf)},
        "E[q_hat] with r = 5": detox.expected_byzantine_votes(n, f, 5),
        "E[q_hat] with r = 9": detox.expected_byzantine_votes(n, f, 9),
        "E[q_hat] with q = 1": detox.expected_byzantine_votes(n, 1, r),
        "worst case of q_hat": detox.worst_case_byzantine_votes(n, f, r),
        "most of q_hat in the simulation": int(lost.max()),
        "r that Corollary 2 asks for": detox.smallest_redundancy(f),
        "Corollary 2's bound on q_hat at delta = 0.05": detox.byzantine_votes_tail(0.05),
        "vote groups that Theorem 3 asks for at delta = 1/2": detox.required_vote_groups(0.5),
        "Theorem 3 applies to 15 votes": int(detox.oracle_bound(n, f, r, b, 0.49).applies),
    }
    tail = _lost_votes(n, f, 9, np.random.default_rng(1))
    share = float((tail > detox.byzantine_votes_tail(0.05)).mean())
    values["share of simulations with r = 9 over Corollary 2's bound"] = share
    return {**values, **_variances(n, r, b), **rates.detox()}


def _lost_votes(n: int, f: int, r: int, random: np.random.Generator) -> np.ndarray:
    """Byzantine majorities in random groups, `(trials,)`: which of the n places the f workers take."""
    places = np.argsort(random.random((_TRIALS, n), dtype=np.float32), axis=1)[:, :f] // r
    counts = np.zeros((_TRIALS, n // r), np.int8)
    for places_of_run in places.T:
        counts[np.arange(_TRIALS), places_of_run] += 1
    lost: np.ndarray = (2 * counts > r).sum(axis=1)
    return lost


def _variances(n: int, r: int, b: int) -> dict[str, Any]:
    """Variances of a vote and of the mean of a vote group, each over the theory's."""
    random, k = np.random.default_rng(2), 5
    images = random.standard_normal((2000, b), dtype=np.float32).reshape(2000, n // r, r * b // n)
    votes = images.mean(axis=2)
    groups = votes.reshape(2000, k, -1).mean(axis=2)
    return {
        "variance of a vote over theory": float(votes.var() / detox.vote_variance(n, r, b)),
        "variance of a vote group's mean over theory": float(groups.var() / detox.vote_group_variance(k, b)),
    }
