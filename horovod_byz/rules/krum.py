"""The Krum family: rules that select whole rows by their distances to one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from horovod_byz.aggregation.decision import Coordinatewise, Decision, Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Floats, Ints
from horovod_byz.aggregation.statistic import DISTANCES, Statistic
from horovod_byz.common.checks import count
from horovod_byz.rules.base import ROW_EXCLUDED, BoundedRule, Facts, RowRule
from horovod_byz.rules.condition import Condition


def scores(distances: Floats, f: int) -> Floats:
    """Krum scores: each row's sum of squared distances to its n - f - 2 nearest other rows.

    Args:
        distances: (n, n) squared L2 distances.
        f: assumed number of Byzantine rows. Where n - f - 2 < 1, the nearest row alone counts.

    Returns:
        (n,) scores; the lower, the better supported.

    Reference:
        Xie, Koyejo, Gupta (2018), Definition 3 (printed without the square; the numbers in Fall of
        Empires, section 4, have it).
    """
    n = len(distances)
    neighbours = min(max(n - f - 2, 1), n - 1)
    # By position, not as the smallest entry: a copy of a row is at distance 0 too, and it counts.
    others = distances[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    nearest = np.sort(others, axis=1)[:, :neighbours]
    # A plain left-to-right sum: equal distances give equal scores, whatever numpy's reduction does.
    total: Floats = nearest.T.cumsum(axis=0)[-1] if neighbours else np.zeros(n)
    return total


@dataclass(frozen=True)
class Krum(BoundedRule, RowRule):
    """The one row with the smallest sum of squared distances to its n - f - 2 nearest others.

    Args:
        f: assumed number of Byzantine rows, 2f + 2 < n.

    Tolerates: n > 2f + 2. Cost: O(n^2 d). Ties: lowest row. Non-finite: row excluded.

    Raises:
        ValueError: if called on n <= 2f + 2 rows.

    Examples:
        >>> import numpy as np
        >>> Krum(f=1)(np.array([[0.0], [1.0], [2.5], [3.0], [1e9]]))
        array([2.5])

    Reference:
        Blanchard, El Mhamdi, Guerraoui, Stainer (2017); Xie, Koyejo, Gupta (2018), Definition 3.
    """

    condition: ClassVar[Condition] = Condition(2, 3)
    facts: ClassVar[Facts] = Facts(str(condition), "O(n^2 d)", "lowest row", ROW_EXCLUDED)
    symmetric: ClassVar[bool] = True
    measures: ClassVar[Statistic | None] = DISTANCES

    def weigh(self, statistics: Statistics) -> Floats:
        best = int(np.argmin(scores(statistics.distances, self.remaining_f(statistics))))
        return Weighted.uniform(statistics.n, [best]).weights


@dataclass(frozen=True)
class MultiKrum(BoundedRule, RowRule):
    """The mean of the m rows with the best Krum scores.

    Args:
        f: assumed number of Byzantine rows, 2f + 2 < n.
        m: number of rows averaged; None means n - f - 2.

    Tolerates: n > 2f + 2. Cost: O(n^2 d). Ties: lowest rows. Non-finite: row excluded.

    Raises:
        ValueError: if called on n <= 2f + 2 rows, or on fewer than m.

    Examples:
        >>> import numpy as np
        >>> MultiKrum(f=1)(np.array([[0.0], [1.0], [2.0], [3.0], [1e9]]))
        array([1.5])

    Reference:
        Blanchard et al. (2017), section 4; Xie, Koyejo, Gupta (2018) names it without giving m:
        n - f - 2 is what the experiments of Rajput et al. (2019) average.
    """

    m: int | None = None

    condition: ClassVar[Condition] = Condition(2, 3)
    facts: ClassVar[Facts] = Facts(str(condition), "O(n^2 d)", "lowest rows", ROW_EXCLUDED)
    symmetric: ClassVar[bool] = True
    measures: ClassVar[Statistic | None] = DISTANCES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m is not None:
            object.__setattr__(self, "m", count(self, "m", self.m, least=1))

    def max_byzantine(self, n: int) -> int:
        """As for Krum, but at most n - m: with more Byzantine rows, one of the m averaged is Byzantine."""
        most = super().max_byzantine(n)
        return most if self.m is None else max(min(most, n - self.m), -1)

    def check(self, n: int) -> None:
        super().check(n)
        if self.m is not None and self.m > n:
            raise ValueError(
                f"{self!r} averages m = {self.m} rows, got n = {n}: use m <= {n}, or None for n - f - 2"
            )

    def weigh(self, statistics: Statistics) -> Floats:
        n, f = statistics.n, self.remaining_f(statistics)
        m = max(n - f - 2, 1) if self.m is None else min(self.m, n)
        if n == 1:  # a score needs a neighbour
            return np.ones(1)
        order = np.argsort(scores(statistics.distances, f), kind="stable")
        return Weighted.uniform(n, np.sort(order[:m])).weights


@dataclass(frozen=True)
class Bulyan(BoundedRule, RowRule):
    """Mean around the median of rows that repeated Krum selects.

    Krum picks theta = n - 2f rows, one after another, each from those that are left. Then each
    coordinate is the mean of the theta - 2f selected values nearest to their median.

    Args:
        f: assumed number of Byzantine rows, 4f + 3 <= n.

    Tolerates: n > 4f + 2. Cost: O(n^2 d). Ties: lowest row, lower window. Non-finite: row excluded.

    Raises:
        ValueError: if called on n <= 4f + 2 rows.

    Examples:
        >>> import numpy as np
        >>> Bulyan(f=1)(np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [1e9]]))
        array([2.])

    Reference:
        El Mhamdi, Guerraoui, Rouault (2018). Rajput et al. (2019) use it without a definition.
    """

    condition: ClassVar[Condition] = Condition(4, 3)
    facts: ClassVar[Facts] = Facts(str(condition), "O(n^2 d)", "lowest row, lower window", ROW_EXCLUDED)
    symmetric: ClassVar[bool] = True
    measures: ClassVar[Statistic | None] = DISTANCES

    def decide_finite(self, statistics: Statistics) -> Decision:
        f = self.remaining_f(statistics)
        # More non-finite rows than f leave fewer rows than any promise covers; keep at least one.
        f = min(f, (statistics.n - 1) // 4)
        chosen = _repeated_krum(statistics.distances, f, statistics.n - 2 * f)
        return Coordinatewise("mean_around_median", chosen, statistics.n, 2 * f)

    def weigh(self, statistics: Statistics) -> Floats:
        return self.decide_finite(statistics).weights


def _repeated_krum(distances: Floats, f: int, theta: int) -> Ints:
    """The rows that Krum picks one after another, each from those that are left; ascending.

    Each pick removes a row and lowers the number of counted neighbours by one. So every row loses one counted
    neighbour: the picked row if it was counted, else the farthest. A lost neighbour adds 0 to the sum, which
    changes none of its bits, and nothing is sorted twice.
    """
    n = len(distances)
    left = np.ones(n, bool)
    chosen: list[int] = []
    if n - f - 2 >= 1:
        neighbours = _Neighbours(distances, n - f - 2)
        while len(chosen) < theta and neighbours.count >= 1:
            best = neighbours.best()
            neighbours.lose(best)
            chosen.append(best)
        left[chosen] = False
    while len(chosen) < theta:  # the last few, where the nearest row alone counts
        rows = np.flatnonzero(left)
        best = (
            int(rows[np.argmin(scores(distances[np.ix_(rows, rows)], f))]) if len(rows) > 1 else int(rows[0])
        )
        left[best] = False
        chosen.append(best)
    return np.array(sorted(chosen), dtype=np.int64)


class _Neighbours:
    """The `count` nearest other rows of each row, and the sums of squared distances to them.

    Attributes:
        count: number of neighbours in a sum.
    """

    def __init__(self, distances: Floats, count: int) -> None:
        self.count, n = count, len(distances)
        apart = distances.copy()
        np.fill_diagonal(apart, np.inf)  # a row is never its own neighbour: it sorts last
        order = np.argsort(apart, axis=1, kind="stable")
        # One column per row, nearest neighbour first. NumPy reduces axis 0 line by line, so equal columns
        # give equal sums, and ties go to the lowest row.
        self._squares = np.ascontiguousarray(np.take_along_axis(apart, order, axis=1)[:, :count].T)
        self._place = np.empty((n, n), np.int64)  # [row, other]: line of the other row in the row's column
        np.put_along_axis(self._place, order, np.arange(n)[None, :], axis=1)
        self._counts = np.ones(self._squares.shape, bool)
        self._last = np.full(n, count - 1)
        self._left = np.ones(n, bool)

    def best(self) -> int:
        """The lowest remaining row with the smallest sum."""
        lines = int(self._last[self._left].max()) + 1
        sums = np.add.reduce(self._squares[:lines], axis=0)
        return int(np.argmin(np.where(self._left, sums, np.inf)))

    def lose(self, row: int) -> None:
        """Removes a row, and one counted neighbour of every row."""
        self._left[row] = False
        self.count -= 1
        columns = np.arange(len(self._last))
        place = self._place[:, row]
        # Counted if it stands among the stored lines and was not lost before.
        counted = place < len(self._squares)
        counted[counted] = self._counts[place[counted], columns[counted]]
        lines = np.where(counted, place, self._last)
        self._squares[lines, columns] = 0.0
        self._counts[lines, columns] = False
        self._step_back()

    def _step_back(self) -> None:
        """Moves each column's last line back to a counted one."""
        columns = np.arange(len(self._last))
        while self.count:
            gone = ~self._counts[self._last, columns]
            if not gone.any():
                return
            self._last[gone] -= 1
