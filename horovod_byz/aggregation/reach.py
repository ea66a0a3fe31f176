"""Rows whose squared distances overflow float64: the one place where all rules handle them.

float64 squares lengths up to about 1e154. Beyond that a statistic is infinite, and infinite sums tie: row 0
would win, even if Byzantine. So a statistic is compared with two limits before a rule reads it. If a majority
of the rows lies close together, rows far from it are removed, like rows with NaN. If not, every row is huge,
and the statistic is measured again in a larger unit.

No row is removed wrongly. The majority contains an honest row, lies within sqrt(NEAR), and removes only rows
over sqrt(FAR) away, 2^130 times as far. An honest row out there would make the honest rows' own radius so
large that every row that stays lies within a few times that radius.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.decision import Virtual, Weighted
from horovod_byz.aggregation.source import Floats, Ints, Source

# Limits of squared distances, and of sums of magnitudes. Two rows within FAR of a third are within 4 FAR of
# one another, so sums over 2^60 rows stay finite.
NEAR, FAR = 2.0**700, 2.0**960

# Divided by this, the squares of all float64 values and their sums over 2^100 coordinates stay below FAR; and
# rows of which a majority is over sqrt(NEAR) apart stay far from underflow.
UNIT = 2.0**600

# In this unit the length of every row of float64 values is finite, and division by it is exact.
LENGTH = 2.0**64

# float64 has 53 bits, so a sum with a term of 2^40 radii resolves one radius to 2^-13 only. Larger terms
# would hide the others, and are not added.
_SWALLOWS = 2.0**40


class OutOfReachError(ArithmeticError):
    """A statistic's numbers are out of the range that rules can compare; `RowRule.decide` handles it.

    Attributes:
        rows: the rows too far from the majority; empty if no majority lies close together.
    """

    def __init__(self, rows: Ints) -> None:
        super().__init__(f"statistics out of range because of rows {rows.tolist()}")
        self.rows = rows


def check(squares: Floats, rows: Ints) -> None:
    """Checks numbers that a rule is about to compare.

    Args:
        squares: squared distances between rows, (n, n); or of each row to the majority, (n,); NaN after an
            overflow.
        rows: index of each row for the error, (n,).

    Raises:
        OutOfReachError: if some row must be left out, or all have to be measured in a larger unit.
    """
    if squares.max(initial=0.0) <= FAR:  # false for NaN, as it must be
        return
    centre, radius = core(squares)
    apart = squares[centre] if squares.ndim == 2 else squares
    if radius > NEAR:
        raise OutOfReachError(np.zeros(0, np.int64))
    # Negated, so that NaN counts as far.
    lost = np.flatnonzero(~(apart <= FAR)).astype(np.int64)
    if len(lost):
        raise OutOfReachError(rows[lost])


def core(squares: Floats) -> tuple[int, float]:
    """The centre and radius of the smallest ball around a row that holds a strict majority of the rows.

    Args:
        squares: as for `check`; with shape (n,) the centre is not a row, and 0 is returned for it.

    Returns:
        The lowest such row, and the square of the radius.
    """
    # Position n // 2 of the sorted squares, the row's own 0 first, is the radius that reaches n // 2 + 1
    # rows.
    order = np.sort(np.where(np.isnan(squares), np.inf, squares), axis=-1)
    radii = np.atleast_1d(order[..., squares.shape[-1] // 2])
    centre = int(np.argmin(radii))
    return centre, float(radii[centre])


def near_rows(squares: Floats) -> tuple[int, npt.NDArray[np.bool_]]:
    """The centre of the majority, and the rows whose distances can be summed without losing the others.

    A huge term decides a sum of distances alone. Rows so far away would make all sums equal, or, at two
    different scales, let one of the far rows have the least sum.

    Args:
        squares: (n, n) finite squared distances.

    Returns:
        The centre of the majority, from `core`, and a mask of the rows within 2^40 radii of it.
    """
    centre, radius = core(squares)
    return centre, squares[centre] <= _SWALLOWS**2 * radius


def lengths(squares: Floats, scaled: Callable[[], Floats]) -> Floats:
    """Square roots in units of `LENGTH`, finite even if the squares overflowed.

    Args:
        squares: squared distances of finite rows.
        scaled: measures the same distances between rows divided by `UNIT`; called only after an overflow.
    """
    own: Floats = np.sqrt(squares) / LENGTH
    over = ~(squares <= FAR)
    if over.any():
        own = np.where(over, np.sqrt(scaled()) * (UNIT / LENGTH), own)
    return own


def scaled(source: Source) -> Source:
    """The rows divided by `UNIT`; non-finite values become 0."""
    return Virtual(source, [Weighted(weights) for weights in np.eye(source.n) / UNIT])
