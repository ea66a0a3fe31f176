"""Newton's step towards the geometric median, on inner products, where Weiszfeld's iteration is slow."""

from __future__ import annotations

import math

import numpy as np

from horovod_byz.aggregation.source import Floats

# Relative, on the diagonal: if all rows lie on a line, the Hessian is singular along it.
_RIDGE = 1e-12
_FLAT = 0.1  # stop the line search at this fraction of the first slope
_TRIALS = 30


def newton(gram: Floats, weights: Floats) -> Floats | None:
    """A point nearer to the geometric median, as weights of sum 1, some of which may be negative.

    With the point z, t_i = |z - x_i|, u_i = (z - x_i) / t_i and P = sum_i 1 / t_i, the sum of distances has
    the gradient sum_i u_i = U 1 and the Hessian P I - U diag(1 / t) U'. By Woodbury's formula Newton's step
    is

        -(U 1 + U c) / P    where (P diag(t) - U'U) c = U'U 1,

    and U y is (sum_i y_i / t_i) z - sum_i (y_i / t_i) x_i: all of it lies in the span of the rows.

    Args:
        gram: (n, n) inner products of the rows about any centre.
        weights: (n,) of sum 1, the point z.

    Returns:
        The weights after the step, whose length minimises the sum of distances along it; None if the sum does
        not decrease along it, or z is a row.
    """
    inner, away = gram @ weights, apart(gram, weights)
    if not away.min() > 0.0:
        return None
    pull = 1.0 / away
    total = float(pull.sum())
    units = (gram - inner[:, None] - inner[None, :] + weights @ inner) * pull[:, None] * pull[None, :]
    # n equations instead of d: the step lies in the span of the rows.
    system = np.diag((1 + _RIDGE) * total * away) - units
    try:
        c = np.linalg.solve(system, units.sum(axis=1))
    except np.linalg.LinAlgError:  # singular: no step, and Weiszfeld's iteration goes on
        return None
    y = (1 + c) * pull
    step = (y - y.sum() * weights) / total
    size = _least(_Along(gram, weights, inner, step))
    ahead: Floats = weights + size * step
    return ahead if size else None


def apart(gram: Floats, weights: Floats) -> Floats:
    """Distances of the rows to the combination: |z - x_i|^2 = w'Gw - 2 (Gw)_i + G_ii."""
    inner = gram @ weights
    distances: Floats = np.sqrt(np.maximum(weights @ inner - 2 * inner + np.diag(gram), 0.0))
    return distances


class _Along:
    """The slope of the sum of distances along a line, O(n) for each point."""

    def __init__(self, gram: Floats, weights: Floats, inner: Floats, step: Floats) -> None:
        self._weights, self._step, self._inner, self._rise = weights, step, inner, gram @ step
        self._own = np.diag(gram)

    def slope(self, size: float) -> float:
        """The derivative at weights + size step; infinite at a row, where there is none."""
        weights = self._weights + size * self._step
        inner = self._inner + size * self._rise
        away = np.sqrt(np.maximum(weights @ inner - 2 * inner + self._own, 0.0))
        if not away.min() > 0.0:
            return math.inf
        pull = 1.0 / away
        return float(self._rise @ (pull.sum() * weights - pull))


def _least(line: _Along) -> float:
    """The size > 0 that about minimises a convex function, by doubling and halving; 0 if it never falls."""
    start = line.slope(0.0)
    if not start < 0.0:
        return 0.0
    low, high, size = 0.0, math.inf, 1.0
    for _ in range(_TRIALS):
        slope = line.slope(size)
        if abs(slope) <= -_FLAT * start:
            break
        low, high = (size, high) if slope < 0.0 else (low, size)
        size = 2 * low if high == math.inf else 0.5 * (low + high)
    return size
