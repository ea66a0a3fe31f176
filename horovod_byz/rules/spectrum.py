"""The leading direction of weighted rows, from their squared distances."""

from __future__ import annotations

import numpy as np

from horovod_byz.aggregation.source import Floats

# Eigenvalues, and projections, within this part of one another are equal: the last bits of LAPACK's results
# differ between processors, and must not decide.
TIE = 1e-9


def covariance(distances: Floats, shares: Floats) -> Floats:
    """The inner products of the rows about their weighted mean: -1/2 (D - r 1' - 1 r' + s).

    Args:
        distances: (n, n) squared distances D.
        shares: (n,) weights of sum 1: r = D p, s = p'D p.

    Returns:
        (n, n), symmetric. Its entries are those of sqrt(p_i p_j) times the covariance's n-space form, without
        these factors.
    """
    # Along axis 0 NumPy adds line by line, in the same order on every processor.
    means = np.add.reduce(distances * shares[:, None], axis=0)
    total = (means * shares).cumsum()[-1]
    products: Floats = 0.5 * ((means[:, None] + means[None, :]) - distances - total)
    return products


def leading(distances: Floats, shares: Floats) -> tuple[float, Floats]:
    """The largest eigenvalue of the weighted covariance, and the squared projections on its direction.

    The covariance is sum_i p_i (x_i - mu)(x_i - mu)'. Where its largest eigenvalue has several directions,
    the one towards the row that lies farthest out in their space counts, the lowest of equal rows: the
    result depends on no basis and no sign.

    Args:
        distances: (n, n) squared distances.
        shares: (n,) weights p of sum 1. Rows of weight 0 have no part, and projection 0.

    Returns:
        The eigenvalue, and <v, x_i - mu>^2 for each row, (n,).
    """
    rows, projections = np.flatnonzero(shares > 0), np.zeros(len(shares))
    part, p = distances[np.ix_(rows, rows)], shares[rows]
    unit = float(part.max(initial=0.0))
    if unit == 0.0:  # all rows are equal
        return 0.0, projections
    root = np.sqrt(p)
    values, vectors = np.linalg.eigh(covariance(part / unit, p) * np.outer(root, root))
    top = vectors[:, values >= values[-1] * (1 - TIE)]
    onto = top @ top.T
    out = np.diag(onto) / p
    far = int(np.flatnonzero(out >= out.max() * (1 - TIE))[0])
    size = float(values[-1]) * unit
    projections[rows] = size * onto[far] ** 2 / (onto[far, far] * p)
    return size, projections
