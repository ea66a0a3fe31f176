"""MoNNA: the mean of the rows nearest to a row that is trusted to be honest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Floats, Ints
from horovod_byz.aggregation.statistic import DISTANCES, Statistic
from horovod_byz.common.checks import count
from horovod_byz.rules.base import ROW_EXCLUDED, BoundedRule, Facts, RowRule, Rule
from horovod_byz.rules.condition import MAJORITY, Condition


@dataclass(frozen=True)
class MoNNA(BoundedRule, RowRule):
    """Mean of nearest neighbours: the mean of the n - f rows nearest to the pivot row, itself included.

    In its paper each worker takes its own row as the pivot. Here all ranks have to agree, so one worker's row
    is the pivot, and the guarantee holds while that worker is honest: a Byzantine pivot draws the result
    towards itself. If its row holds NaN or Inf, or its worker is excluded, the next worker's takes its place.

    Args:
        f: number of rows left out, 2f < n.
        pivot: the trusted worker.

    Tolerates: n > 2f, the pivot being honest. Cost: O(n^2 d). Ties: lowest rows. Non-finite: row excluded.

    Raises:
        ValueError: if called on n <= 2f rows, or pivot >= n.

    Examples:
        >>> import numpy as np
        >>> MoNNA(f=1, pivot=1)(np.array([[1.0], [2.0], [6.0], [1e9]]))
        array([3.])

    Reference:
        Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan (2023), Robust collaborative learning with linear
        gradient overhead.
    """

    pivot: int = 0

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(
        f"{condition}, the pivot being honest", "O(n^2 d)", "lowest rows", ROW_EXCLUDED
    )
    measures: ClassVar[Statistic | None] = DISTANCES
    names_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pivot", count(self, "pivot", self.pivot))

    def check(self, n: int) -> None:
        super().check(n)
        if self.pivot >= n:
            raise ValueError(f"{self!r} has a pivot beyond the last of n = {n} rows: use pivot <= {n - 1}")

    def without(self, workers: Sequence[int], n: int) -> Rule:
        return self.renumbered(np.setdiff1d(np.arange(n), workers), n)

    def renumbered(self, kept: Ints, n: int) -> MoNNA:
        """The pivot stays, or the next row after it that is kept takes its place."""
        return replace(self, pivot=int(np.searchsorted(kept, self.pivot)) % max(len(kept), 1))

    def weigh(self, statistics: Statistics) -> Floats:
        n = statistics.n
        order = np.argsort(statistics.distances[self.pivot], kind="stable")
        return Weighted.uniform(n, np.sort(order[: n - self.remaining_f(statistics)])).weights
