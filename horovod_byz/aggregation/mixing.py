"""Distances between mixtures of rows, from the distances between the rows: no pass over the coordinates."""

from __future__ import annotations

import numpy as np

from horovod_byz.aggregation.reach import core
from horovod_byz.aggregation.source import Floats


def mixed_distances(distances: Floats, weights: Floats) -> Floats:
    """Squared distances between mixtures: -1/2 v'D v, with v the difference of two mixtures' weights.

    It holds because the weights in v add up to 0. A row with the same weight in both has none in v, so that a
    huge one that both hold takes no digits from the others. Equal mixtures are at distance 0, exactly.

    Args:
        distances: (n, n) squared distances D, finite.
        weights: (k, n) weights, of sum 1 in each mixture.

    Returns:
        (k, k), symmetric.
    """
    unit = float(weights[weights > 0].min(initial=1.0))
    counts = np.round(weights / unit)
    if np.abs(weights / unit - counts).max(initial=0.0) < 1e-9:
        # Means of equally many rows: whole numbers, so that mixtures that tie also tie to the bit.
        return unit**2 * _differences(distances, counts)
    return _differences(distances, weights)


def _differences(distances: Floats, weights: Floats) -> Floats:
    k, n = weights.shape
    mixed = np.zeros((k, k))
    for i in range(k - 1):
        difference = weights[i + 1 :] - weights[i]
        total = np.zeros((k - 1 - i, n))
        for row in np.flatnonzero(difference.any(axis=0)):
            # Term by term, since NumPy's dot groups terms by SIMD width and all ranks need the same bits.
            total += difference[:, row, None] * distances[row]
        squares = np.maximum(-0.5 * (total * difference).cumsum(axis=1)[:, -1], 0.0)
        mixed[i, i + 1 :] = mixed[i + 1 :, i] = squares
    return mixed


def centred(distances: Floats) -> Floats:
    """Inner products of rows about the centre of their majority, from their squared distances; (n, n)."""
    away = distances[core(distances)[0]]
    products: Floats = 0.5 * ((away[:, None] + away[None, :]) - distances)
    return products
