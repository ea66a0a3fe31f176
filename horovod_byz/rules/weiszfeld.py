"""Weiszfeld's iteration on inner products: the geometric median as n weights."""

from __future__ import annotations

import math

import numpy as np

from horovod_byz.aggregation.reach import near_rows
from horovod_byz.aggregation.source import Floats
from horovod_byz.rules.newton import apart, newton

# Weiszfeld's iteration converges within some dozens of steps, or so slowly that Newton's steps must take
# over.
_PLAIN = 100


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
    # If a row is the geometric median, it is the row of least sum; starting there, only one row needs the
    # test.
    best = int(np.argmin(_sums(gram, square)))
    start = _leave_row(gram, square, best)
    if start is None:
        alone: Floats = np.eye(n)[best]
        return alone
    weights, left = start, max_iterations
    # The scale of the nearest majority, which Byzantine rows cannot stretch.
    scale = float(np.sort(np.sqrt(square[best]))[: n // 2 + 1].max())
    previous = 0.0
    while left > 0:
        left -= 1
        step = _weights_at(apart(gram, weights)) - weights
        weights = weights + step
        moved = math.sqrt(max(float(step @ gram @ step), 0.0))
        # The movements shrink by a factor near `rate`: what is left to go is their geometric sum.
        rate = min(moved / previous, 0.999) if previous > 0 else 0.999 * (moved > 0)
        if moved * rate / (1 - rate) <= tolerance * scale and moved <= math.sqrt(tolerance) * scale:
            break
        previous = moved
        if left < max_iterations - _PLAIN:
            left -= 1 + n // 25  # charges the cost of solving n equations
            ahead = newton(gram, weights)
            if ahead is not None:
                step, weights, previous = ahead - weights, ahead, 0.0
                if math.sqrt(max(float(step @ gram @ step), 0.0)) <= tolerance * scale:
                    weights = _weights_at(apart(gram, weights))  # Newton's may be negative, these are not
                    break
    total: Floats = weights / weights.sum()
    return total


def _sums(gram: Floats, square: Floats) -> Floats:
    """Each row's sum of distances, less the distances from the central row to the far rows.

    For a far row x_j the difference |x_i - x_j| - |x_k - x_j| distinguishes rows i and k. It is computed from
    the difference of the squares, where the common part cancels exactly; it is at most |x_i - x_k|.
    """
    centre, near = near_rows(square)
    sums: Floats = np.sqrt(square[:, near]).cumsum(axis=1)[:, -1]
    far = np.flatnonzero(~near)
    if len(far):
        own = np.diag(gram)
        squares = (own - own[centre])[:, None] - 2 * (gram[:, far] - gram[centre, far])
        longer = squares / (np.sqrt(square[:, far]) + np.sqrt(square[centre, far]))
        limit = np.sqrt(square[:, centre])[:, None]
        sums = sums + np.clip(longer, -limit, limit).cumsum(axis=1)[:, -1]
    return sums


def _weights_at(distances: Floats) -> Floats:
    # A tiny distance in place of zero: a row at the point takes all the weight, without a division by zero.
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
