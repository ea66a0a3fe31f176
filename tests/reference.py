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


# The rules of the peers: ByzFL, ByzPy, Blades, DnC's authors.


def average(rows, chosen):
    return guarded(rows[sorted(chosen)].astype(np.float64).mean(axis=0))


def cge(rows, f):
    """Gupta, Liu, Vaidya 2020: the n - f rows of least norm."""
    rows, f = without_nonfinite(rows, f)
    if len(rows) == 0:
        return np.zeros(rows.shape[1])
    norms = (rows.astype(np.float64) ** 2).sum(axis=1)
    return average(rows, np.argsort(norms, kind="stable")[: len(rows) - f])


def norm_bounded_mean(rows, factor, weights=None):
    """sum_i p_i min(1, factor m / |x_i|) x_i, with m the median norm and p the shares of the finite rows."""
    keep = finite_rows(rows)
    exact = rows[keep].astype(np.float64)
    given = np.ones(len(keep)) if weights is None else np.asarray(weights, np.float64)[keep]
    if len(keep) == 0 or given.sum() == 0:
        return np.zeros(rows.shape[1])
    norms = np.sqrt((exact**2).sum(axis=1))
    limit = factor * np.median(norms)
    cut = [1.0 if norm <= limit else limit / norm for norm in norms]
    return sum(share * scale * row for share, scale, row in zip(given / given.sum(), cut, exact, strict=True))


def diameter(distances, chosen):
    return distances[np.ix_(chosen, chosen)].max()


def mda(rows, f):
    """El Mhamdi et al. 2018: the first n - f rows, in lexicographic order, of least diameter."""
    rows, f = without_nonfinite(rows, f)
    if len(rows) == 0:
        return np.zeros(rows.shape[1])
    distances = squared_distances(rows)
    subsets = list(itertools.combinations(range(len(rows)), len(rows) - f))
    return average(rows, min(subsets, key=lambda chosen: diameter(distances, chosen)))


def covariance_eigenvalue(rows):
    centred = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    return np.linalg.svd(centred, compute_uv=False).max() ** 2 / len(rows)


def smea(rows, f):
    """Allouah et al. 2023: the first n - f rows whose covariance has the least largest eigenvalue."""
    rows, f = without_nonfinite(rows, f)
    if len(rows) == 0:
        return np.zeros(rows.shape[1])
    subsets = list(itertools.combinations(range(len(rows)), len(rows) - f))
    values = np.array([covariance_eigenvalue(rows[list(chosen)]) for chosen in subsets])
    return average(rows, subsets[int(np.flatnonzero(values <= values.min() * (1 + 1e-9))[0])])


def monna(rows, f, pivot):
    """Farhadkhani et al. 2023: the n - f rows nearest to the pivot, or to the next finite row after it."""
    keep = finite_rows(rows)
    if len(keep) == 0:
        return np.zeros(rows.shape[1])
    pivot = next(i for i in [*range(pivot, len(rows)), *range(pivot)] if i in keep)
    f = max(f - (len(rows) - len(keep)), 0)
    away = ((rows[keep].astype(np.float64) - rows[pivot].astype(np.float64)) ** 2).sum(axis=1)
    return average(rows[keep], np.argsort(away, kind="stable")[: len(keep) - f])


def leading(rows, shares):
    """The largest eigenvalue of the weighted covariance, and the squared projections on its direction.

    Of several directions the one towards the row farthest out in their space.
    """
    centred = rows - shares @ rows
    values, vectors = np.linalg.eigh((centred * shares[:, None]).T @ centred)
    top = centred @ vectors[:, values >= values[-1] * (1 - 1e-9)]
    out = np.where(shares > 0, (top**2).sum(axis=1), 0.0)
    if out.max() == 0:
        return 0.0, out
    farthest = top[np.flatnonzero(out >= out.max() * (1 - 1e-9))[0]]
    return values[-1], np.where(shares > 0, (top @ farthest) ** 2 / (farthest @ farthest), 0.0)


def caf(rows, f):
    """Allouah, Guerraoui, Stephan 2025, Algorithm 2, on the rows themselves."""
    rows, f = without_nonfinite(rows, f)
    if len(rows) == 0:
        return np.zeros(rows.shape[1])
    exact, c, least = rows.astype(np.float64), np.ones(len(rows)), np.inf
    best = exact.mean(axis=0)  # for f = 0
    while c.sum() > len(rows) - 2 * f + 1e-9:
        value, squares = leading(exact, c / c.sum())
        if value < least * (1 - 1e-9):
            least, best = value, c @ exact / c.sum()
        if squares.max() <= 1e-14 * np.abs(exact[c > 0]).max() ** 2:  # equal rows, but for rounding
            break
        c = c * (1 - squares / squares.max())
        c[c < 1e-9] = 0.0
    return guarded(best)


def dnc(rows, f, c=1.0, iterations=1):
    """Shejwalkar, Houmansadr 2021, Algorithm 2, with all coordinates, each iteration on what is left."""
    rows, f = without_nonfinite(rows, f)
    if len(rows) == 0:
        return np.zeros(rows.shape[1])
    kept, dropped = list(range(len(rows))), math.ceil(c * f)
    for _ in range(iterations):
        if not 0 < dropped < len(kept):
            break
        part = rows[kept].astype(np.float64)
        _, squares = leading(part, np.full(len(kept), 1 / len(kept)))
        ranks = np.round(squares / max(squares.max(), 1e-300), 9)
        kept = sorted(kept[i] for i in np.argsort(ranks, kind="stable")[: len(kept) - dropped])
    return average(rows, kept)


# Pre-aggregation: n rows in, mixtures out. Rows that are not finite are left out.


def nnm(rows, f):
    """Allouah et al. 2023: the mean of the n - f rows nearest to each row, itself included."""
    rows, f = without_nonfinite(rows, f)
    distances, mixed = squared_distances(rows), []
    for i in range(len(rows)):
        others = sorted((j for j in range(len(rows)) if j != i), key=lambda j: distances[i, j])
        mixed.append(average(rows, [i, *others[: len(rows) - f - 1]]))
    return np.array(mixed).reshape(len(rows), rows.shape[1])


def bucketing(rows, s, order):
    """Karimireddy et al. 2022: means of s rows in a random order, the last of fewer."""
    rows, _ = without_nonfinite(rows, 0)
    buckets = [order[begin : begin + s] for begin in range(0, len(rows), s)]
    return np.array([average(rows, bucket) for bucket in buckets]).reshape(len(buckets), rows.shape[1])


def clipping(rows, norm):
    """x min(1, norm / |x|)."""
    rows, _ = without_nonfinite(rows, 0)
    exact = rows.astype(np.float64)
    norms = np.sqrt((exact**2).sum(axis=1))
    scales = [1.0 if length <= norm else norm / length for length in norms]
    return exact * np.array(scales).reshape(-1, 1)


def arc(rows, f):
    """Allouah et al. 2024: the floor(2 f (n - f) / n) longest rows, cut to the norm of the next."""
    rows, f = without_nonfinite(rows, f)
    n = len(rows)
    if n == 0:
        return rows.astype(np.float64)
    norms = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1))
    return clipping(rows, sorted(norms, reverse=True)[2 * f * (n - f) // n])


def centered_clipping(rows, tau, iterations=1, start=None):
    """Karimireddy et al. 2021, Algorithm 1: v <- v + (1/n) sum_i (x_i - v) min(1, tau / |x_i - v|)."""
    exact = rows[finite_rows(rows)].astype(np.float64)
    v = np.zeros(rows.shape[1]) if start is None else start.astype(np.float64)
    for _ in range(iterations if len(exact) else 0):
        away = exact - v
        lengths = np.sqrt((away**2).sum(axis=1))
        v = v + sum(
            x * (1.0 if far <= tau else tau / far) for x, far in zip(away, lengths, strict=True)
        ) / len(exact)
    return guarded(v)


def phocas(rows, f):
    """Xie et al. 2018, Phocas: the n - f values nearest to the trimmed mean; ties to the lower."""
    columns = ordered(rows)
    with np.errstate(all="ignore"):
        centre = columns[f : len(rows) - f].astype(np.float64).mean(axis=0)
        nearest = np.argsort(np.abs(columns - centre), axis=0, kind="stable")[: len(rows) - f]
        kept = np.take_along_axis(columns, nearest, axis=0).astype(np.float64)
        return guarded(np.where(np.isfinite(centre), kept.mean(axis=0), 0.0))
