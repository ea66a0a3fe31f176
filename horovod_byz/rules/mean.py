"""The mean: Horovod's own rule, which one Byzantine worker can ruin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Floats
from horovod_byz.rules.base import Facts, RowRule
from horovod_byz.rules.condition import NO_FAULTS, Condition


@dataclass(frozen=True)
class Mean(RowRule):
    """The average of the rows: (1/n) sum_i v_i.

    Rows that hold NaN or Inf are left out, so that no non-finite value reaches the model; any finite
    Byzantine row can move the result anywhere.

    Tolerates: f = 0. Cost: O(n d). Ties: none. Non-finite: row excluded.

    Examples:
        >>> import numpy as np
        >>> Mean()(np.array([[1.0, 2.0], [3.0, 6.0]]))
        array([2., 4.])

    Reference:
        Blanchard, El Mhamdi, Guerraoui, Stainer (2017), Lemma 1: no linear rule tolerates one
        Byzantine row.
    """

    condition: ClassVar[Condition] = NO_FAULTS
    facts: ClassVar[Facts] = Facts(str(condition), "O(n d)", "none", "row excluded")
    symmetric: ClassVar[bool] = True

    def weigh(self, statistics: Statistics) -> Floats:
        return Weighted.uniform(statistics.n, range(statistics.n)).weights
