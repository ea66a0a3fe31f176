"""Spectral filters: rules that look for Byzantine rows along the direction in which the rows differ most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Floats, Ints
from horovod_byz.aggregation.statistic import DISTANCES, Statistic
from horovod_byz.common.checks import count, positive
from horovod_byz.rules.base import ROW_EXCLUDED, BoundedRule, Facts, RowRule
from horovod_byz.rules.condition import MAJORITY, Condition
from horovod_byz.rules.spectrum import TIE, leading

# The coefficients of CAF are rounded to multiples of this, so that the last bits of the eigenvectors, which
# differ between processors, reach no weight.
_GRAIN = 2.0**-30


@dataclass(frozen=True)
class CAF(BoundedRule, RowRule):
    """Covariance-bound agnostic filter: lowers the weights of rows far out along the leading direction.

    From c_i = 1: while sum c > n - 2f, take the weighted mean mu and the leading eigenvector v of the
    weighted covariance, then c_i <- c_i (1 - t_i / max t) with t_i = <v, x_i - mu>^2. The result is the mu
    whose covariance had the least leading eigenvalue.

    max t is that of rows with c_i > 0, so that each pass removes a row and n passes are the most. Where v is
    not unique, see `spectrum.leading`. All of it runs on the squared distances.

    Args:
        f: assumed number of Byzantine rows, 2f < n.

    Tolerates: n > 2f. Cost: O(n^2 d). Ties: first mean, lowest row. Non-finite: row excluded.

    Raises:
        ValueError: if called on n <= 2f rows.

    Examples:
        >>> import numpy as np
        >>> CAF(f=1)(np.array([[1.0], [2.0], [3.0], [1e9]])).round(6)
        array([2.])

    Reference:
        Allouah, Guerraoui, Stephan (2025), Towards trustworthy federated learning with untrusted
        participants, Algorithm 2.
    """

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(str(condition), "O(n^2 d)", "first mean, lowest row", ROW_EXCLUDED)
    symmetric: ClassVar[bool] = True
    measures: ClassVar[Statistic | None] = DISTANCES

    def weigh(self, statistics: Statistics) -> Floats:
        n, f = statistics.n, self.remaining_f(statistics)
        c, least = np.ones(n), math.inf
        best: Floats = c / n
        while c.cumsum()[-1] > n - 2 * f + n * _GRAIN:  # over it by more than rounding
            shares = c / c.cumsum()[-1]
            value, squares = leading(statistics.distances, shares)
            if value < least * (1 - TIE):
                best, least = shares, value
            if value == 0.0:  # the rows left are equal
                break
            c = np.round(c * (1 - squares / squares.max()) / _GRAIN) * _GRAIN
        return best


@dataclass(frozen=True)
class DnC(BoundedRule, RowRule):
    """Divide and conquer: leaves out the rows with the largest projections on the leading direction.

    Each iteration centres the rows that are left, takes their leading singular direction v, and leaves out
    the c f rows of largest <v, x_i - mu>^2. The result is the mean of the rows left at the end. The paper
    draws coordinates at random for each of its iterations, to save time, and intersects what they keep;
    through the distances all coordinates count at no cost, iterations on the same rows would agree, and so
    each starts from the rows that the one before kept.

    Rows far away in f different directions need f iterations, since one direction shows one of them.

    Args:
        f: assumed number of Byzantine rows, 2f < n.
        c: rows left out by each iteration, as a multiple of f, rounded up; over 0.
        iterations: number of iterations, at least 1.

    Tolerates: n > 2f, with f iterations of one row each. Cost: O(n^2 d). Ties: lowest rows stay.
    Non-finite: row excluded.

    Raises:
        ValueError: if called on n <= 2f rows, or if no row would be left.

    Examples:
        >>> import numpy as np
        >>> DnC(f=1)(np.array([[1.0], [2.0], [3.0], [1e9]]))
        array([2.])

    Reference:
        Shejwalkar, Houmansadr (2021), Manipulating the Byzantine.
    """

    c: float = 1.0
    iterations: int = 1

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(
        f"{condition}, with f iterations of one row each", "O(n^2 d)", "lowest rows stay", ROW_EXCLUDED
    )
    symmetric: ClassVar[bool] = True
    measures: ClassVar[Statistic | None] = DISTANCES

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "iterations", count(self, "iterations", self.iterations, least=1))
        object.__setattr__(self, "c", positive(self, "c", self.c))

    def check(self, n: int) -> None:
        super().check(n)
        lost = self.iterations * self._dropped(self.f)
        if lost >= n:
            raise ValueError(
                f"{self!r} leaves out {self.iterations} times {self._dropped(self.f)} rows, got n = {n}: use "
                f"fewer iterations, a smaller c, or at least {lost + 1} workers"
            )

    def max_byzantine(self, n: int) -> int:
        """See `Rule.max_byzantine`; at most `iterations`, as one iteration may see one far row only.

        While Byzantine rows lie far away and are fewer than the honest rows left, the row of largest
        projection is one of them. The other rows that an iteration leaves out may all be honest.
        """
        most, spared = super().max_byzantine(n), self._dropped(self.f) - 1
        if most < 0:
            return most
        safe = range(min(most, self.iterations) + 1)
        return max(b for b in safe if b == 0 or n - b - (b - 1) * spared > 1)

    def weigh(self, statistics: Statistics) -> Floats:
        n, dropped = statistics.n, self._dropped(self.remaining_f(statistics))
        kept: Ints = np.arange(n)
        for _ in range(self.iterations):
            if not 0 < dropped < len(kept):  # more rows excluded than assumed: nothing is left to leave out
                break
            shares = Weighted.uniform(n, kept).weights
            squares = leading(statistics.distances, shares)[1][kept]
            grain = float(squares.max()) * TIE
            ranks = np.round(squares / grain) if grain else squares
            kept = np.sort(kept[np.argsort(ranks, kind="stable")[: len(kept) - dropped]])
        return Weighted.uniform(n, kept).weights

    def _dropped(self, f: int) -> int:
        # Less 1e-9: 1/3 of 3 must be one row, however it rounds.
        return math.ceil(self.c * f - 1e-9)
