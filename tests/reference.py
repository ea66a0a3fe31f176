"""Every rule in plain NumPy, line by line from the papers: the yardstick of the kernels.

Slow and simple on purpose. Sums are in float64; what selects values (a median, a distance to it) is
in the rows' own dtype, as a paper's reader with that dtype would compute it.
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def finite_rows(rows):
    return np.flatnonzero(np.isfinite(rows).all(axis=1))


def guarded(value):
    """Promise 1: a coordinate whose result would not be finite is 0."""
    return np.where(np.isfinite(value), value, 0.0)


def ordered(rows):
    """Each column sorted, NaN standing for the infinity of its sign."""
    values = np.where(np.isnan(rows), np.copysign(np.inf, rows).astype(rows.dtype), rows)
    return np.sort(values, axis=0)


def mean(rows):
    keep = finite_rows(rows)
    if len(keep) == 0:
        return np.zeros(rows.shape[1])
    return guarded(rows[keep].astype(np.float64).mean(axis=0))


def middle(columns):
    """The median of sorted columns, in their own dtype; an even number: mean of the middle two."""
    n = len(columns)
    low, high = columns[(n - 1) // 2], columns[n // 2]
    with np.errstate(all="ignore"):
        total = low + high
        half = columns.dtype.type(0.5)
        both = np.where(np.isinf(total), low * half + high * half, total * half)
    return np.where(low == high, low, both) if n % 2 == 0 else low


def median(rows):
    """Xie et al. 2018, Definition 7."""
    return guarded(middle(ordered(rows)).astype(np.float64))


def trimmed_mean(rows, f):
    """Yin et al. 2018, Definition 2."""
    kept = ordered(rows)[f : len(rows) - f].astype(np.float64)
    with np.errstate(all="ignore"):
        return guarded(kept.mean(axis=0))


def mean_around_median(rows, f):
    """Xie et al. 2018, Definition 8: the n - f values nearest to the median; ties to the lower."""
    columns = ordered(rows)
    centre = middle(columns)
    with np.errstate(all="ignore"):
        nearest = np.argsort(np.abs(columns - centre), axis=0, kind="stable")[: len(rows) - f]
        kept = np.take_along_axis(columns, nearest, axis=0).astype(np.float64)
        return guarded(kept.mean(axis=0))


def sign_majority(rows):
    signs = np.where(np.isnan(rows), 0.0, np.sign(rows))
    return np.sign(signs.sum(axis=0)).astype(np.float64)


def squared_distances(rows):
    exact = rows.astype(np.float64)
    with np.errstate(all="ignore"):
        return np.stack([((exact - row) ** 2).sum(axis=1) for row in exact])


def krum_scores(distances, f):
    """Xie et al. 2018, Definition 3: the n - f - 2 nearest others (at least one)."""
    n = len(distances)
    others = np.sort(distances[~np.eye(n, dtype=bool)].reshape(n, n - 1), axis=1)
    nearest = others[:, : max(n - f - 2, 1)]
    return nearest.cumsum(axis=1)[:, -1] if n > 1 else np.zeros(1)


def without_nonfinite(rows, f):
    keep = finite_rows(rows)
    return rows[keep], max(f - (len(rows) - len(keep)), 0)


def krum(rows, f):
    rows, f = without_nonfinite(rows, f)
    if len(rows) == 0:
        return np.zeros(rows.shape[1])
    return rows[np.argmin(krum_scores(squared_distances(rows), f))].astype(np.float64)


def multi_krum(rows, f, m=None):
    rows, f = without_nonfinite(rows, f)
    n = len(rows)
    if n == 0:
        return np.zeros(rows.shape[1])
    m = max(n - f - 2, 1) if m is None else min(m, n)
    best = np.argsort(krum_scores(squared_distances(rows), f), kind="stable")[:m]
    return guarded(rows[best].astype(np.float64).mean(axis=0))


def bulyan(rows, f):
    """El Mhamdi et al. 2018: theta = n - 2f by repeated Krum, then the theta - 2f nearest values."""
    rows, f = without_nonfinite(rows, f)
    n = len(rows)
    if n == 0:
        return np.zeros(rows.shape[1])
    f = min(f, (n - 1) // 4)
    distances = squared_distances(rows)
    left, chosen = list(range(n)), []
    for _ in range(n - 2 * f):
        best = int(np.argmin(krum_scores(distances[np.ix_(left, left)], f)))
        chosen.append(left.pop(best))
    return mean_around_median(rows[sorted(chosen)], 2 * f)


def medoid(rows):
    """Xie et al. 2018, Definition 9."""
    rows, _ = without_nonfinite(rows, 0)
    if len(rows) == 0:
        return np.zeros(rows.shape[1])
    return rows[np.argmin(medoid_costs(rows))].astype(np.float64)


def medoid_costs(rows):
    """Summed in ascending order, so that rows with the same distances tie to the bit."""
    return np.cumsum(np.sort(np.sqrt(squared_distances(rows)), axis=1), axis=1)[:, -1]


def distance_sum(rows, point):
    return np.sqrt(((rows.astype(np.float64) - point) ** 2).sum(axis=1)).sum()


def geometric_median(rows, iterations=3000):
    """Xie et al. 2018, Definition 6, by Weiszfeld's iteration on the points themselves."""
    rows, _ = without_nonfinite(rows, 0)
    if len(rows) == 0:
        return np.zeros(rows.shape[1])
    exact = rows.astype(np.float64)
    best = medoid(rows)
    point = median(rows)
    for _ in range(iterations):
        distance = np.sqrt(((exact - point) ** 2).sum(axis=1))
        if (distance == 0).any():
            break
        pull = 1.0 / distance
        moved = (pull[:, None] * exact).sum(axis=0) / pull.sum()
        if np.abs(moved - point).max() <= 1e-15 * np.abs(moved).max():
            break
        point = moved
    return best if distance_sum(rows, best) <= distance_sum(rows, point) else point


def brsgd(rows, beta=0.5, threshold="auto"):
    """Li et al. 2021, Algorithm 2, in the 0/1 reading of its text."""
    rows, _ = without_nonfinite(rows, 0)
    n, d = rows.shape
    if n == 0:
        return np.zeros(d)
    exact = rows.astype(np.float64)
    average = sum(exact) / n
    above = exact >= average
    scores = np.where(above.sum(axis=0) >= n / 2, above, ~above).sum(axis=1)
    l1 = np.abs(exact - median(rows)).sum(axis=1)
    limit = 2 * np.median(l1) if threshold == "auto" else 2 * threshold
    top = np.argsort(-scores, kind="stable")[: math.ceil(beta * n - 1e-9)]
    chosen = [i for i in sorted(top) if l1[i] <= limit]
    return guarded(exact[chosen].mean(axis=0)) if chosen else np.zeros(d)


def draco_cyclic(rows, coefficients, f, rounding=1e-5):
    """Chen et al. 2018: the mean of the batches from the largest set of rows that fit some gradients.

    Tries every set of at most f rows, fewest first: B without them must explain the rest. None where no set
    does.
    """
    n = len(rows)
    exact = np.where(np.isfinite(rows), rows, 0.0).astype(np.float64)
    broken = set(np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist())
    for size in range(len(broken), f + 1):
        for erased in itertools.combinations(range(n), size):
            if not broken <= set(erased):
                continue
            left = [i for i in range(n) if i not in erased]
            gradients = np.linalg.pinv(coefficients[left]) @ exact[left]
            wrong = coefficients[left] @ gradients - exact[left]
            if np.abs(wrong).max() <= rounding * np.median(np.abs(exact[left])):
                return gradients.mean(axis=0), erased
    return None
