"""Rows on which the papers' claims can be read off: toy examples, simplex witness, counter-examples."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from horovod_byz.theory import checks

Rows = NDArray[np.float64]

TOY_KRUM_SCORES = (0.0244, 0.0244, 0.0244, 0.0304, 0.0436, 0.1060, 0.1440, 0.2160, 0.4320)
"""Scores of the rows of `toy_krum`, as printed in section 5.3.1 of Fall of Empires (four decimals)."""


def toy_median() -> Rows:
    """Returns (5, 1) rows: three honest ones with mean 0.1, then two Byzantine ones; their median is -0.1.

    Reference:
        Xie, Koyejo, Gupta 2019, section 5.2.1.
    """
    return np.array([[-0.1], [0.1], [0.3], [-4.0], [-2.0]])


def toy_krum() -> Rows:
    """Returns (9, 1) rows: three Byzantine at -0.1, then six honest with mean 0.2167; Krum(f=3) picks -0.1.

    Reference:
        Xie, Koyejo, Gupta 2019, section 5.3.1; the order is that of the printed scores.
    """
    return np.array([[-0.1], [-0.1], [-0.1], [0.0], [0.02], [0.14], [0.26], [0.38], [0.5]])


def simplex(points: int, radius: float = 1.0) -> Rows:
    """Returns (points, points - 1) vertices of a regular simplex centred at the origin.

    Args:
        points: number of vertices, >= 2.
        radius: their distance from the origin; each two are radius * sqrt(2 points / (points - 1)) apart.

    Raises:
        ValueError: if there are fewer than two points.
    """
    if points < 2:
        raise ValueError(f"a simplex needs at least 2 points, got {points}")
    vertices = np.zeros((points, points - 1))
    for k in range(points - 1):
        # Helmert's basis: unit vectors orthogonal to (1, ..., 1)
        vertices[: k + 1, k] = 1 / math.sqrt((k + 1) * (k + 2))
        vertices[k + 1, k] = -(k + 1) / math.sqrt((k + 1) * (k + 2))
    return vertices * radius / math.sqrt(1 - 1 / points)


def simplex_witness(epsilon: float, honest: int = 14, f: int = 11) -> Rows:
    """Returns rows that satisfy all hypotheses of Theorem 2 of Fall of Empires for 1.38 < epsilon <= 1.4676.

    The honest rows are e_0 plus a regular simplex of radius 1 in the orthogonal complement, so that their
    mean is e_0; the Byzantine rows are -epsilon e_0.

    Args:
        epsilon: strength of the attack.
        honest: number of honest rows; 14 of 25 in the paper's experiments.
        f: number of Byzantine rows.

    Returns:
        (honest + f, honest) rows, the Byzantine ones first.
    """
    rows = np.zeros((f + honest, honest))
    rows[:f, 0] = -epsilon
    rows[f:, 0] = 1.0
    rows[f:, 1:] = simplex(honest)
    return rows


def mean_counter_example(honest: Rows, g: NDArray[np.float64]) -> Rows:
    """Returns the n - 1 honest rows and -g - sum of them; the mean of all n is -g / n.

    Reference:
        Xie, Koyejo, Gupta 2018, Theorem 1, equation (3).
    """
    return np.vstack([honest, -g - honest.sum(axis=0)])


def selection_counter_example(rows: Rows, scale: float) -> Rows:
    """Returns `rows` with row_i[i] multiplied by -scale: at most one Byzantine value in each column.

    Reference:
        Xie, Koyejo, Gupta 2018, Theorem 2.
    """
    checks.positive(scale, "scale")
    result = rows.copy()
    index = np.arange(min(rows.shape))
    result[index, index] *= -scale
    return result
