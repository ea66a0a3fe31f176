"""Rules of the geometric median: the point, or the row, with the least sum of distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.reach import near_rows
from horovod_byz.aggregation.source import Floats
from horovod_byz.aggregation.statistic import DISTANCES, GRAM, Statistic
from horovod_byz.common.checks import count
from horovod_byz.rules.base import ROW_EXCLUDED, Facts, RowRule
from horovod_byz.rules.condition import MAJORITY, NO_FAULTS, Condition
from horovod_byz.rules.weiszfeld import weiszfeld


@dataclass(frozen=True)
class Medoid(RowRule):
    """The row with the least sum of (not squared) distances to all rows.

    Distances to rows beyond 2^40 radii of the majority are left out of the sums, where they would hide the
    others; see `reach.near_rows`.

    Args:
        naive_float32: round squared distances to float32, where those of rows near 1e20 overflow to infinity,
            so that every sum is infinite and row 0 wins. It shows the paper's observation; never use it to
            train.

    Tolerates: f = 0: no theorem covers it (Blanchard et al. 2017), though rows far away do not win while
    n > 2f. Cost: O(n^2 d). Ties: lowest row. Non-finite: row excluded.

    Examples:
        >>> import numpy as np
        >>> Medoid()(np.array([[0.0], [1.0], [5.0], [1e9]]))
        array([1.])

    Reference:
        Xie, Koyejo, Gupta (2018), Generalized Byzantine-tolerant SGD, Definition 9.
    """

    naive_float32: bool = False

    condition: ClassVar[Condition] = NO_FAULTS
    facts: ClassVar[Facts] = Facts(str(condition), "O(n^2 d)", "lowest row", ROW_EXCLUDED)
    symmetric: ClassVar[bool] = True
    measures: ClassVar[Statistic | None] = DISTANCES

    def weigh(self, statistics: Statistics) -> Floats:
        squares = statistics.distances
        if self.naive_float32:
            with np.errstate(over="ignore"):
                squares = squares.astype(np.float32).astype(np.float64)
        else:
            squares = squares[:, near_rows(squares)[1]]
        # Summed in ascending order, so that rows with the same distances tie to the bit.
        sums = np.sort(np.sqrt(squares), axis=1).cumsum(axis=1)[:, -1]
        return Weighted.uniform(statistics.n, [int(np.argmin(sums))]).weights


@dataclass(frozen=True)
class GeometricMedian(RowRule):
    """The point with the least sum of distances to the rows: argmin_z sum_i |z - v_i|.

    Every iterate is a convex combination of rows, so the iteration runs on n weights and the (n, n)
    inner products of the rows minus their coordinate-wise median; the rows are read twice in all.

    Args:
        tolerance: stop when the point moves less than this, relative to its mean distance to the
            nearest half of the rows. (A test of the objective would stop far too early beside a
            huge row, which dominates the sum.)
        max_iterations: stop after so many iterations in any case.

    Tolerates: n > 2f. Cost: O(n^2 d). Ties: none (the minimiser is unique unless all rows lie on
    a line). Non-finite: row excluded.

    Examples:
        >>> import numpy as np
        >>> GeometricMedian()(np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, -1.0]])).round(9)
        array([1., 0.])

    Reference:
        Xie, Koyejo, Gupta (2018), Definition 6; Weiszfeld (1937), with the step of Vardi and Zhang
        (2000) where the point is a row.
    """

    tolerance: float = 1e-9
    max_iterations: int = 1000

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(str(condition), "O(n^2 d)", "none", ROW_EXCLUDED)
    symmetric: ClassVar[bool] = True
    measures: ClassVar[Statistic | None] = GRAM

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "max_iterations", count(self, "max_iterations", self.max_iterations, least=1)
        )
        if not (isinstance(self.tolerance, (int, float)) and 0 < self.tolerance < 1):
            raise ValueError(f"GeometricMedian: tolerance must lie between 0 and 1, got {self.tolerance!r}")

    def weigh(self, statistics: Statistics) -> Floats:
        return weiszfeld(statistics.gram, self.tolerance, self.max_iterations)
