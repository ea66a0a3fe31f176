"""BrSGD: the mean of rows that lie near the median and on the majority's side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Floats
from horovod_byz.aggregation.statistic import BRSGD, Statistic
from horovod_byz.rules.base import ROW_EXCLUDED, Facts, RowRule
from horovod_byz.rules.condition import MAJORITY, Condition


@dataclass(frozen=True)
class BrSGD(RowRule):
    """The mean of the rows that meet two constraints.

    Constraint 1: the L1 distance to the coordinate-wise median is at most 2 T. Constraint 2: the row
    is among the ceil(beta n) of highest score, where in each coordinate the values are split by their
    mean and each row on the larger side (at or above the mean, on equal sides) scores one. Where no
    row meets both, the result is the zero vector.

    Args:
        beta: fraction of rows kept by constraint 2, over 0 and at most 1.
        threshold: T, in the gradient's unit; "auto" makes 2 T twice the median of the rows' L1
            distances, which every honest row passes while honest rows are a majority and their
            distances differ by at most two; math.inf switches constraint 1 off.

    Tolerates: n > 2f. Cost: O(n d). Ties: lowest rows. Non-finite: row excluded.

    Examples:
        >>> import numpy as np
        >>> BrSGD()(np.array([[1.0, 1.0], [1.1, 1.1], [0.9, 0.9], [-50.0, -50.0]]))
        array([1.05, 1.05])

    Reference:
        Li, Chen, Dong, Zhang, Wang, Zeng (2021), Algorithm 2, with the misprints corrected that
        docs/differences.md lists.
    """

    beta: float = 0.5
    threshold: float | Literal["auto"] = "auto"

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(str(condition), "O(n d)", "lowest rows", ROW_EXCLUDED)
    symmetric: ClassVar[bool] = True
    measures: ClassVar[Statistic | None] = BRSGD

    def __post_init__(self) -> None:
        if isinstance(self.beta, bool) or not isinstance(self.beta, (int, float)) or not 0 < self.beta <= 1:
            raise ValueError(f"BrSGD: beta must lie over 0 and be at most 1, got {self.beta!r}")
        if self.threshold == "auto":
            return
        number = isinstance(self.threshold, (int, float)) and not isinstance(self.threshold, bool)
        if not (number and self.threshold > 0):
            raise ValueError(f"BrSGD: threshold must be 'auto' or a number over 0, got {self.threshold!r}")

    def max_byzantine(self, n: int) -> int:
        """See `Rule.max_byzantine`; also less than the number of rows kept by constraint 2, so one is honest.

        Without constraint 1 it is 0, since a Byzantine row that is kept may then be arbitrary.
        """
        if self.threshold == math.inf:
            return min(super().max_byzantine(n), 0)
        return min(super().max_byzantine(n), self._kept(n) - 1)

    def weigh(self, statistics: Statistics) -> Floats:
        scores, l1 = statistics.brsgd
        # Stable, so that ties go to the lowest rows.
        top = np.argsort(-scores, kind="stable")[: self._kept(statistics.n)]
        if self.threshold == "auto":
            limit = 2 * float(np.median(l1))
        else:
            limit = 2 * (float(self.threshold) / statistics.unit)
        near = l1 <= limit
        return Weighted.uniform(statistics.n, np.sort(top[near[top]])).weights

    def _kept(self, n: int) -> int:
        # Less 1e-9: 0.28 * 25 is 7.000000000000001 in floats, and must keep 7 rows, not 8.
        return math.ceil(self.beta * n - 1e-9)
