"""Inner product manipulation: when it breaks the median and Krum (Xie et al. 2019, "Fall of Empires").

Legend: n workers, f Byzantine, h = n - f honest (the paper's m, q, m - q); vbar the mean of the honest rows;
the Byzantine rows are all -epsilon * vbar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from horovod_byz.theory import checks
from horovod_byz.theory.bias import median_bias


def median_threshold(n: int, f: int, sigma: float = 1.0) -> float:
    """Returns sigma / sqrt(n - f - 1): below this max |g_j|, values under the honest minimum turn the median.

    The theorem takes sigma as the population deviation; its proof needs the expected sample deviation (see
    `two_point_minimum` for a distribution where it fails).

    Raises:
        ValueError: if n - 2f is not 1, the only case the theorem treats.

    Reference:
        Theorem 1.
    """
    checks.counts(n, f, "median_threshold")
    if n - 2 * f != 1:
        raise ValueError(f"Theorem 1 treats n - 2f = 1 only, got n = {n}, f = {f}: use n = {2 * f + 1}")
    return sigma / math.sqrt(n - f - 1)


def median_break_point(n: int, f: int) -> float:
    """Returns -median_bias: for |g_j| / sigma below it, E[median] has the wrong sign (Gaussian gradients)."""
    return -median_bias(n, f)


def minimum_bound(values: NDArray[np.float64]) -> float:
    """Returns mean - s / sqrt(n - 1), s the population-style deviation of the sample; no minimum exceeds it.

    The deterministic inequality behind Theorem 1 (Hawkins 1971, Theorem 1(b)).

    Args:
        values: (n,) floats, n >= 2.
    """
    return float(np.mean(values) - np.std(values) / math.sqrt(len(values) - 1))


def two_point_minimum(g: float, rare: float, h: int) -> float:
    """Returns E[min of h values] for a two-point distribution, mean g and variance 1, that refutes Theorem 1.

    The value is g - e with probability 1 - rare and g + e (1 - rare) / rare with probability rare; variance
    1 gives e = sqrt(rare / (1 - rare)). The minimum is nearly always g - e, so it stays positive although g
    is below the theorem's threshold.

    Raises:
        ValueError: if `rare` does not lie between 0 and 1.
    """
    checks.probability(rare, "rare")
    step = math.sqrt(rare / (1 - rare))
    all_rare = rare**h
    return (1 - all_rare) * (g - step) + all_rare * (g + step * (1 - rare) / rare)


def krum_required_honest(epsilon: float) -> float:
    """Returns 2 (epsilon + 2)^2 / epsilon^2 + 2; Theorem 2 needs n - f above it.

    Raises:
        ValueError: if epsilon is not > 0.

    Reference:
        Theorem 2.
    """
    checks.positive(epsilon, "epsilon")
    return 2 * (epsilon + 2) ** 2 / epsilon**2 + 2


def krum_smallest_epsilon(honest: int) -> float:
    """Returns 2 / (sqrt((h - 2) / 2) - 1), the epsilon above which h = n - f workers satisfy Theorem 2.

    Raises:
        ValueError: if h <= 4, where no epsilon is large enough.
    """
    if honest <= 4:
        raise ValueError(f"Theorem 2 needs n - f > 4 honest workers for any epsilon, got {honest}")
    return 2 / (math.sqrt((honest - 2) / 2) - 1)


@dataclass(frozen=True)
class KrumAttack:
    """The hypotheses and bounds of Theorem 2 for given honest rows.

    Attributes:
        applies: every hypothesis holds, so Krum selects a Byzantine row.
        reasons: the hypotheses that fail, in words.
        byzantine_bound: 2 (epsilon + 2)^2 |vbar|^2, no Byzantine row's score exceeds it.
        honest_bound: (n - f - 2) epsilon^2 |vbar|^2, no honest row's score is below it.
    """

    applies: bool
    reasons: tuple[str, ...]
    byzantine_bound: float
    honest_bound: float


def krum_attack(honest: NDArray[np.float64], f: int, epsilon: float) -> KrumAttack:
    """Checks Theorem 2 on the rows of one step.

    Args:
        honest: (h, d) honest rows, h >= 2.
        f: number of Byzantine rows -epsilon * vbar.
        epsilon: strength of the attack, > 0.

    Raises:
        ValueError: if epsilon is not > 0.

    Reference:
        Theorem 2, whose two bounds hold where all four hypotheses do.
    """
    h = len(honest)
    centre = honest.mean(axis=0)
    norm = float(centre @ centre)
    spread = float(np.max(np.sum((honest - centre) ** 2, axis=1)))
    beta = min(float(np.sum((a - b) ** 2)) for i, a in enumerate(honest) for b in honest[:i])
    required = krum_required_honest(epsilon)
    failed = {
        f"n - 2f = {h - f}, not 3": h - f != 3,
        f"n - f = {h} does not exceed {required:.2f}": h <= required,
        f"max |v_i - vbar|^2 = {spread:.4g} exceeds |vbar|^2 = {norm:.4g}": spread > norm * (1 + 1e-12),
        f"epsilon^2 |vbar|^2 = {epsilon**2 * norm:.4g} exceeds beta^2 = {beta:.4g}": epsilon**2 * norm > beta,
    }
    reasons = tuple(reason for reason, holds in failed.items() if holds)
    return KrumAttack(not reasons, reasons, 2 * (epsilon + 2) ** 2 * norm, (h - 2) * epsilon**2 * norm)
