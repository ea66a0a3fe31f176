"""Weiszfeld's iteration on inner products: the geometric median as n weights."""

from __future__ import annotations

import math

import numpy as np

from horovod_byz.source import Floats


def weiszfeld(gram: Floats, tolerance: float, max_iterations: int) -> Floats:
    """The weights of the rows whose combination has the least sum of distances to the rows.

    Args:
        gram: (n, n) inner products of the rows about any centre near the bulk of the rows.
        tolerance: movement, relative to the scale of the nearest half of the rows, at which to stop.
        max_iterations: bound on the number of iterations.

    Returns:
        (n,) weights, non-negative, of sum 1.
    """
    n = len(gram)
    square = np.maximum(np.diag(gram)[:, None] + np.diag(gram)[None, :] - 2 * gram, 0.0)
    best = int(np.argmin(np.sqrt(square).cumsum(axis=1)[:, -1]))
    start = _leave_row(gram, square, best)
    if start is None:
        alone: Floats = np.eye(n)[best]
        return alone
    weights = start
    scale = float(np.sort(np.sqrt(square[best]))[: n // 2 + 1].max())
    previous = np.inf
    for _ in range(max_iterations):
        step = _weights_at(_distances(gram, weights)) - weights
        weights = weights + step
        moved = math.sqrt(max(float(step @ gram @ step), 0.0))
        # The movements shrink by a factor near `rate`: what is left to go is their geometric sum.
        rate = min(moved / previous, 0.999) if previous > 0 else 0.0
        if moved * rate / (1 - rate) <= tolerance * scale and moved <= math.sqrt(tolerance) * scale:
            break
        previous = moved
    total: Floats = weights / weights.sum()
    return total


def _distances(gram: Floats, weights: Floats) -> Floats:
    """Distances of the rows to the combination: |z - x_i|^2 = w'Gw - 2 (Gw)_i + G_ii."""
    inner = gram @ weights
    distances: Floats = np.sqrt(np.maximum(weights @ inner - 2 * inner + np.diag(gram), 0.0))
    return distances


def _weights_at(distances: Floats) -> Floats:
    # The smallest positive float stands for zero: such a row takes all the weight, as it should.
    pull = 1.0 / np.maximum(distances, max(float(distances.max()) * 1e-300, 1e-300))
    weights: Floats = pull / pull.sum()
    return weights


def _leave_row(gram: Floats, square: Floats, k: int) -> Floats | None:
    """One step of Vardi and Zhang away from row k, or None where row k is the geometric median.

    With T the Weiszfeld point of the other rows, r = |sum_i (x_i - x_k) / |x_i - x_k|| and eta the
    number of rows equal to row k: stay if r <= eta, else go to (1 - eta / r) T + (eta / r) x_k.
    """
    n = len(gram)
    same = square[k] == 0
    if same.all():
        return None
    pull = np.zeros(n)
    pull[~same] = 1.0 / np.sqrt(square[k][~same])
    centred = gram - gram[k][None, :] - gram[:, k][:, None] + gram[k, k]
    r = math.sqrt(max(float(pull @ centred @ pull), 0.0))
    eta = float(same.sum())
    if r <= eta:
        return None
    weights: Floats = (1 - eta / r) * pull / pull.sum()
    weights[k] += eta / r
    return weights
