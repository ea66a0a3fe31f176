"""The normal and binomial distributions, as far as the theorems need them; the core install has no SciPy."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["binomial_tail", "log_cdf", "quantile"]

_tail_of_each = np.vectorize(math.erfc, otypes=[np.float64])


def log_cdf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns log Phi(x) for |x| < 37, beyond which the tail underflows; float64, of x's shape."""
    # Phi(-|x|), which is small: no digit cancels.
    tail: NDArray[np.float64] = _tail_of_each(np.abs(x) / math.sqrt(2)) / 2
    return np.where(x < 0, np.log(tail), np.log1p(-tail))


def quantile(p: float) -> float:
    """Returns Phi^-1(p) for p in [0, 1]; infinite at both ends.

    Raises:
        ValueError: if p lies outside [0, 1].
    """
    if p in (0, 1):
        return math.inf if p else -math.inf
    return NormalDist().inv_cdf(p)


def binomial_tail(n: int, p: float, f: int) -> float:
    """Returns the probability of more than f successes in n trials, each of probability p."""
    return math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(f + 1, n + 1))
