"""Bias and variance of the median, for Gaussian gradients with mean 0 and standard deviation 1.

A one-sided attack (all Byzantine values below all honest ones) shifts the median to a lower order statistic
of the honest values; this is why the median converges to bad solutions under the omniscient attack.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from horovod_byz.rules.condition import MAJORITY
from horovod_byz.theory import checks
from horovod_byz.theory.normal import log_cdf

_REACH = 9.0  # standard deviations; the density beyond is below 1e-18


@cache
def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of Gauss and Legendre on (-1, 1); an import that computed them would take 0.4 s."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return nodes, weights


def order_statistic(n: int, k: int) -> float:
    """Returns the expectation of the k-th smallest (k = 1 .. n) of n standard normal values.

    Raises:
        ValueError: if k does not lie in 1..n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"an order statistic of {n} values needs 1 <= k <= {n}, got k = {k}")
    nodes, weights = _quadrature()
    x = _REACH * nodes
    log_density = _log_ways(n, k - 1, n - k) + (k - 1) * log_cdf(x) + (n - k) * log_cdf(-x) + _log_phi(x)
    return float(_REACH * np.sum(weights * x * np.exp(log_density)))


def median_bias(n: int, f: int) -> float:
    """Returns the expectation of the median of n values, f of them below all the n - f honest ones.

    Args:
        n: number of values; an even median is the mean of the middle two.
        f: number of Byzantine values, f <= ceil(n / 2) - 1.

    Returns:
        The bias in honest standard deviations, <= 0.

    Raises:
        ValueError: if f is too large for n.
    """
    checks.counts(n, f, "median_bias")
    MAJORITY.check(n, f, f"median_bias with f = {f}")
    # The f Byzantine values fill the lowest places, so the middle is f places lower among the honest values.
    low, high = (n + 1) // 2 - f, n // 2 + 1 - f
    return (order_statistic(n - f, low) + order_statistic(n - f, high)) / 2


def median_variance(n: int) -> float:
    """Returns the variance of the median of n standard normal values (that of their mean is 1 / n).

    Raises:
        ValueError: if n < 1.
    """
    checks.counts(n, 0, "median_variance")
    return _odd_variance(n) if n % 2 else _even_variance(n)


def geometric_median_bias(n: int, f: int) -> float:
    """Returns the bias a / sqrt(1 - a^2), a = f / (n - f), of the geometric median in units of sigma sqrt(d).

    The Byzantine rows lie far away in one direction; the honest ones at distance sigma sqrt(d) from their
    centre, all but orthogonal to it, as in high dimension.

    Raises:
        ValueError: if 2f >= n.
    """
    checks.counts(n, f, "geometric_median_bias")
    MAJORITY.check(n, f, f"geometric_median_bias with f = {f}")
    pull = f / (n - f)
    return pull / math.sqrt(1 - pull**2)


def _odd_variance(n: int) -> float:
    nodes, weights = _quadrature()
    half, x = n // 2, _REACH * nodes
    log_density = _log_ways(n, half, half) + half * (log_cdf(x) + log_cdf(-x)) + _log_phi(x)
    return float(_REACH * np.sum(weights * x**2 * np.exp(log_density)))


def _even_variance(n: int) -> float:
    # E[((X + Y) / 2)^2] over the joint density of the middle two order statistics X <= Y
    nodes, weights = _quadrature()
    below = n // 2 - 1
    x = _REACH * nodes[:, None]
    length = (_REACH - x) / 2
    y = x + length * (1 + nodes[None, :])
    log_density = _log_ways(n, below, below) + below * (log_cdf(x) + log_cdf(-y)) + _log_phi(x) + _log_phi(y)
    areas = _REACH * weights[:, None] * length * weights[None, :]
    return float(np.sum(areas * ((x + y) / 2) ** 2 * np.exp(log_density)))


def _log_ways(n: int, below: int, above: int) -> float:
    # the values in between are distinguishable by their order, so they add no factor
    return math.lgamma(n + 1) - math.lgamma(below + 1) - math.lgamma(above + 1)


def _log_phi(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return -(x**2) / 2 - math.log(math.sqrt(2 * math.pi))
