"""Rows too far apart for float64 to hold the squares of their distances, in one place for every rule.

float64 squares lengths up to about 1e154. Beyond that a statistic is infinite, and infinite sums tie: the
first row wins, whoever sent it. So a statistic's numbers are compared with two limits before a rule sees
them. Where a majority of the rows lies close together, the rows far beyond it are left out, as one with NaN
is. Where it does not, every row is huge, and the statistic is measured anew in a larger unit.

No row is left out wrongly. The majority holds an honest row, lies within sqrt(NEAR), and leaves out only what
is over sqrt(FAR) away, 2^130 times as far. An honest row out there would make the honest rows' own radius so
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

# Beside a distance of 2^40 radii float64 knows the radius to 2^-13: what lies beyond would swallow a sum of
# distances, and is not added to it.
_SWALLOWS = 2.0**40


class OutOfReachError(ArithmeticError):
    """A statistic's numbers are out of the range that rules can compare; `RowRule.decide` handles it.

    Attributes:
        rows: the rows that lie too far from the majority; none where a majority lies that far apart itself.
    """

    def __init__(self, rows: Ints) -> None:
        super().__init__(f"statistics out of range because of rows {rows.tolist()}")
        self.rows = rows


def check(squares: Floats, rows: Ints) -> None:
    """Checks numbers that a rule is about to compare.

    Args:
        squares: squared distances between rows, (n, n); or each row's from the majority, (n,), NaN where they
            overflowed.
        rows: what to call the rows in the error, (n,).

    Raises:
        OutOfReachError: if some row must be left out, or all have to be measured in a larger unit.
    """
    if squares.max(initial=0.0) <= FAR:  # not so for NaN
        return
    centre, radius = core(squares)
    apart = squares[centre] if squares.ndim == 2 else squares
    if radius > NEAR:
        raise OutOfReachError(np.zeros(0, np.int64))
    lost = np.flatnonzero(~(apart <= FAR)).astype(np.int64)
    if len(lost):
        raise OutOfReachError(rows[lost])


def core(squares: Floats) -> tuple[int, float]:
    """The row around which a strict majority of the rows, itself included, lies closest; and how close.

    Args:
        squares: as for `check`; with (n,) numbers the centre is no row, and 0 is returned for it.

    Returns:
        The lowest such row and the square of the radius.
    """
    order = np.sort(np.where(np.isnan(squares), np.inf, squares), axis=-1)
    radii = np.atleast_1d(order[..., squares.shape[-1] // 2])
    centre = int(np.argmin(radii))
    return centre, float(radii[centre])


def near_rows(squares: Floats) -> tuple[int, npt.NDArray[np.bool_]]:
    """The rows whose distances can be added up, and the row in the middle of the majority.

    A sum of distances beside a huge one is that one, whatever the others are. Rows so far away would make all
    sums equal, or, lying at two scales, make one of themselves the row with the least sum.

    Args:
        squares: (n, n) finite squared distances.

    Returns:
        The centre of the majority, as `core` says, and which rows lie within 2^40 of its radii.
    """
    centre, radius = core(squares)
    return centre, squares[centre] <= _SWALLOWS**2 * radius


def lengths(squares: Floats, scaled: Callable[[], Floats]) -> Floats:
    """Square roots in units of `LENGTH`, finite also where the squares overflowed.

    Args:
        squares: squared distances of finite rows.
        scaled: measures the same ones between rows divided by `UNIT`; called only where it is needed.
    """
    own: Floats = np.sqrt(squares) / LENGTH
    over = ~(squares <= FAR)
    if over.any():
        own = np.where(over, np.sqrt(scaled()) * (UNIT / LENGTH), own)
    return own


def scaled(source: Source) -> Source:
    """The rows divided by `UNIT`; values that are not finite become 0."""
    return Virtual(source, [Weighted(weights) for weights in np.eye(source.n) / UNIT])
