"""Rules on the norms of the rows alone: O(n d), the cheapest of those that weigh whole rows."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Floats, Ints
from horovod_byz.aggregation.statistic import SQUARED_NORMS, Statistic
from horovod_byz.common.checks import positive
from horovod_byz.rules.base import ROW_EXCLUDED, BoundedRule, Facts, RowRule, Rule
from horovod_byz.rules.condition import MAJORITY, NO_FAULTS, Condition


@dataclass(frozen=True)
class CGE(BoundedRule, RowRule):
    """Comparative gradient elimination: the mean of the n - f rows of least norm.

    No Byzantine row makes the result longer than the longest honest row. Its direction is another matter: the
    proof needs honest rows that nearly agree, since short rows are kept wherever they point. With n <= 3f, f
    honest rows sent with the opposite sign cancel or reverse the result.

    Args:
        f: number of rows left out, 2f < n.

    Tolerates: n > 2f, as to the result's length. Cost: O(n d). Ties: lowest rows. Non-finite: row excluded.

    Raises:
        ValueError: if called on n <= 2f rows.

    Examples:
        >>> import numpy as np
        >>> CGE(f=1)(np.array([[1.0], [-2.0], [4.0], [1e9]]))
        array([1.])

    Reference:
        Gupta, Liu, Vaidya (2020), Byzantine fault-tolerant distributed machine learning using stochastic
        gradient descent and norm-based comparative gradient elimination.
    """

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(
        f"{condition}, as to the result's length", "O(n d)", "lowest rows", ROW_EXCLUDED
    )
    symmetric: ClassVar[bool] = True
    measures: ClassVar[Statistic | None] = SQUARED_NORMS

    def weigh(self, statistics: Statistics) -> Floats:
        n = statistics.n
        shortest = np.argsort(statistics.squared_norms, kind="stable")[: n - self.remaining_f(statistics)]
        return Weighted.uniform(n, np.sort(shortest)).weights


@dataclass(frozen=True)
class NormBoundedMean(RowRule):
    """A weighted mean of rows whose norms are cut to a multiple of the median norm.

    With shares p_i (the weights, capped and divided by their sum) and the median m of the norms it is
    sum_i p_i min(1, factor m / |x_i|) x_i. One row moves the result by (1 + factor) m times its share at
    most; it tolerates no Byzantine row in the sense of the other rules, since the share remains.

    Args:
        weights: one number of at least 0 for each worker, such as sizes of its data, decided by whoever
            aggregates and not sent by the workers; None means equal ones. The zero vector is the result where
            all weights are 0.
        factor: largest norm of a row, in median norms, over 0.
        cap: largest share of a worker, over 0 and at most 1. What a capped worker loses is dealt out
            to the others by their weights; if too few are left to take it, all have equal shares.

    Tolerates: f = 0; the influence of each row is bounded while n > 2f. Cost: O(n d). Ties: none.
    Non-finite: row excluded, the other weights divided by their sum.

    Raises:
        ValueError: if a parameter is out of range, or called on another number of rows than weights.

    Examples:
        >>> import numpy as np
        >>> NormBoundedMean(factor=1.0)(np.array([[1.0], [4.0], [1e9]]))
        array([3.])
        >>> NormBoundedMean(weights=(6, 2, 2), cap=0.5)(np.array([[4.0], [2.0], [2.0]]))
        array([3.])

    Reference:
        Sun, Kairouz, Suresh, McMahan (2019), Can you really backdoor federated learning?, with
        the threshold as a multiple of the median norm.
    """

    weights: tuple[float, ...] | None = None
    factor: float = 2.0
    cap: float = 1.0

    condition: ClassVar[Condition] = NO_FAULTS
    facts: ClassVar[Facts] = Facts(str(condition), "O(n d)", "none", "row excluded")
    measures: ClassVar[Statistic | None] = SQUARED_NORMS

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        """Whether no row has a special place."""
        return self.weights is None

    @property
    def names_rows(self) -> bool:  # type: ignore[override]
        """Whether there is a weight for each worker."""
        return self.weights is not None

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", positive(self, "factor", self.factor))
        object.__setattr__(self, "cap", positive(self, "cap", self.cap, most=1.0))
        if self.weights is None:
            return
        weights = tuple(_weight(worker, weight) for worker, weight in enumerate(_listed(self.weights)))
        object.__setattr__(self, "weights", weights)

    def check(self, n: int) -> None:
        if self.weights is not None and len(self.weights) != n:
            raise ValueError(
                f"NormBoundedMean has {len(self.weights)} weights, got n = {n} rows: give one weight for each"
            )

    def without(self, workers: Sequence[int], n: int) -> Rule:
        return self.renumbered(np.setdiff1d(np.arange(n), workers), n)

    def renumbered(self, kept: Ints, n: int) -> NormBoundedMean:
        """The weights are those of the rows that are kept."""
        if self.weights is None or len(kept) == n:
            return self
        return replace(self, weights=tuple(self.weights[i] for i in kept))

    def weigh(self, statistics: Statistics) -> Floats:
        norms = np.sqrt(statistics.squared_norms)
        limit = self.factor * float(np.median(norms))
        cut = np.where(norms > limit, limit / np.where(norms > limit, norms, 1.0), 1.0)
        given = np.ones(statistics.n) if self.weights is None else np.array(self.weights)
        shares: Floats = _capped(given, self.cap) * cut if given.any() else given
        return shares


def _capped(weights: Floats, cap: float) -> Floats:
    """Shares in proportion to the weights, none over `cap`, of sum 1; equal ones where cap is too small."""
    weights, counted = weights / weights.max(), int(np.count_nonzero(weights))
    if cap * counted <= 1:
        return Weighted.uniform(len(weights), np.flatnonzero(weights)).weights
    shares: Floats = weights / weights.cumsum()[-1]
    full = np.zeros(len(weights), np.bool_)
    while (over := (shares > cap) & ~full).any():
        full |= over
        free = np.where(full, 0.0, weights)
        shares = np.where(full, cap, free * ((1 - cap * full.sum()) / free.cumsum()[-1]))
    return shares


def _listed(weights: Any) -> list[Any]:
    if isinstance(weights, (str, bytes)) or not isinstance(weights, (Sequence, np.ndarray)):
        raise TypeError(f"NormBoundedMean: weights must be numbers, one per worker, got {weights!r}")
    return list(weights)


def _weight(worker: int, value: object) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"NormBoundedMean: weights must be numbers, got {value!r} for worker {worker}")
    if not 0 <= float(value) < math.inf:
        raise ValueError(
            f"NormBoundedMean: weights must be finite and >= 0, got {value!r} for worker {worker}"
        )
    return float(value)
