"""Rows on a line beside the honest ones, and how far they move a rule: the search of optimised attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from horovod_byz.aggregation import engine
from horovod_byz.aggregation import rows as reading
from horovod_byz.aggregation.decided import decided
from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.known import Known, RowsNeededError
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.kernels import distances
from horovod_byz.kernels.rows import Rows
from horovod_byz.rules import Rule

__all__ = ["Line", "length", "strongest"]

FloatRows = NDArray[np.floating]
Floats = NDArray[np.float64]

_GOLDEN = (5**0.5 - 1) / 2


class Line:
    """n rows, some of which are the point centre + strength * push, and a rule on them.

    A rule that reads distances, inner products and norms alone, and weighs whole rows, is evaluated in a
    space of n + 3 points: the other rows, the centre, the centre + push, and 0. Their distances are measured
    once; by Stewart's theorem those of a point of the line follow from them, so a strength costs O(n^2)
    whatever d is. Any other rule is evaluated on the rows themselves.

    Args:
        rule: the rule.
        rows: (n, d) rows; not written to.
        targets: the rows that are replaced.
        centre: (d,), of the rows' dtype.
        push: (d,), of the rows' dtype.
        step: optimizer step, which seeds randomised rules.
        threads: threads for the kernels; None for torch's number.

    Raises:
        ValueError: if the rule does not hold for n rows.

    Attributes:
        on_distances: whether the rule is evaluated without its rows.
    """

    def __init__(
        self,
        rule: Rule,
        rows: FloatRows,
        targets: Sequence[int],
        centre: FloatRows,
        push: FloatRows,
        *,
        step: int = 0,
        threads: int | None = None,
    ) -> None:
        rule.check(len(rows))
        self._rule, self._step, self._threads = rule, step, threads
        self._rows, self._targets = rows, list(targets)
        self._centre, self._push = centre, push
        self._kept = [row for row in range(len(rows)) if row not in set(targets)]
        self._copy: FloatRows | None = None
        self._between = self._measured() if _needs_no_rows(rule, len(rows), step) else None

    @property
    def on_distances(self) -> bool:
        return self._between is not None

    def moved(self, strength: float) -> float:
        """How far the rule's result lies from the centre, L2."""
        if self._between is not None:
            try:
                return self._moved_in_space(strength, self._between)
            except RowsNeededError:  # only now: such as for rows beyond the range of float64's squares
                self._between = None
        return self._moved_in_full(strength)

    def point(self, strength: float) -> FloatRows:
        """The point of the line, in the rows' dtype."""
        with np.errstate(all="ignore"):
            value: FloatRows = (self._centre + strength * self._push.astype(np.float64)).astype(
                self._centre.dtype
            )
        return value

    def _measured(self) -> Floats | None:
        """Squared distances of the n + 3 points; None unless all are finite."""
        points = [*(self._rows[row] for row in self._kept), self._centre, self.point(1.0)]
        source, _ = reading.read([*points, np.zeros_like(self._centre)])
        threads = engine.default_threads() if self._threads is None else self._threads
        between = Statistics(source, engine.whole(source, 0, threads)).distances
        return between if np.isfinite(between).all() else None

    def _moved_in_space(self, strength: float, between: Floats) -> float:
        kept, n = len(self._kept), len(self._rows)
        centre, far, origin = kept, kept + 1, kept + 2
        # |c + s (e - c) - x|^2 = (1 - s) |c - x|^2 + s |e - x|^2 - s (1 - s) |e - c|^2
        away = (1 - strength) * between[centre] + strength * between[far]
        away = np.maximum(away - strength * (1 - strength) * between[centre, far], 0.0)
        squares, norms = np.zeros((n, n)), np.empty(n)
        squares[np.ix_(self._kept, self._kept)] = between[:kept, :kept]
        squares[np.ix_(self._kept, self._targets)] = away[:kept, None]
        squares[np.ix_(self._targets, self._kept)] = away[None, :kept]
        norms[self._kept], norms[self._targets] = between[origin, :kept], away[origin]
        if not np.isfinite(squares).all():
            raise RowsNeededError
        decision = decided(self._rule, Known(squares, norms, step=self._step))
        if not isinstance(decision, Weighted):
            raise RowsNeededError
        share = float(decision.weights[self._targets].sum())
        weights = np.zeros(kept + 3)
        weights[:kept] = decision.weights[self._kept]
        weights[centre], weights[far] = share * (1 - strength), share * strength
        weights[origin] = 1 - float(decision.weights.sum())
        weights[centre] -= 1  # the difference to the centre: weights of sum 0
        # Term by term: NumPy's dot groups terms by SIMD width, and all ranks need the same bits.
        total = np.zeros(kept + 3)
        for weight, row in zip(weights, between, strict=True):
            total += weight * row
        return float(np.sqrt(max(-0.5 * float((total * weights).cumsum()[-1]), 0.0)))

    def _moved_in_full(self, strength: float) -> float:
        if self._copy is None:
            self._copy = np.array(self._rows, order="C")
        self._copy[self._targets] = self.point(strength)
        result = engine.value(self._copy, self._rule, step=self._step, threads=self._threads)
        with np.errstate(all="ignore"):
            return length(result - self._centre)


def length(vector: FloatRows) -> float:
    """L2 norm by the kernel, whose sum is the same on every rank; infinite where squares overflow."""
    value = np.ascontiguousarray(vector)
    square = distances.to_point(Rows(value[None]), np.zeros_like(value))[0]
    return float(np.sqrt(square))


def strongest(
    moved: Callable[[float], float], strengths: Sequence[float], refinements: int = 12
) -> tuple[float, float]:
    """The strength that moves a rule farthest: the best of a grid, refined by golden sections beside it.

    Deterministic; of equal results the first that was tried wins, so that no strength is larger than needed.

    Args:
        moved: how far a strength moves the rule; NaN counts as nothing.
        strengths: the grid, ascending, positive.
        refinements: further evaluations between the neighbours of the grid's best.

    Returns:
        The strength, and how far it moves the rule.
    """
    tried: dict[float, float] = {}

    def value(strength: float) -> float:
        if strength not in tried:
            result = float(moved(strength))
            tried[strength] = -1.0 if np.isnan(result) else result
        return tried[strength]

    grid = [value(strength) for strength in strengths]
    best = max(range(len(grid)), key=grid.__getitem__)
    low, high = np.log(strengths[max(best - 1, 0)]), np.log(strengths[min(best + 1, len(grid) - 1)])
    for _ in range(refinements // 2):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if value(float(np.exp(left))) >= value(float(np.exp(right))):
            high = right
        else:
            low = left
    strength = max(tried, key=tried.__getitem__)
    return strength, tried[strength]


def _needs_no_rows(rule: Rule, n: int, step: int) -> bool:
    """Whether a rule weighs rows by their distances and norms alone: it is tried on n points of a simplex."""
    apart = 1.0 + np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / (4.0 * n)
    np.fill_diagonal(apart, 0.0)
    try:
        return isinstance(decided(rule, Known(apart, np.ones(n), step=step)), Weighted)
    except RowsNeededError:
        return False
