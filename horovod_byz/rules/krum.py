"""The Krum family: rules that select whole rows by their distances to one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from horovod_byz.checks import count
from horovod_byz.decision import Coordinatewise, Decision, Weighted
from horovod_byz.measure import Statistics
from horovod_byz.rules.base import ROW_EXCLUDED, BoundedRule, Facts, RowRule
from horovod_byz.rules.condition import Condition
from horovod_byz.source import Floats, Ints


def scores(distances: Floats, f: int) -> Floats:
    """Krum scores: each row's sum of squared distances to its n - f - 2 nearest other rows.

    Args:
        distances: (n, n) squared L2 distances.
        f: assumed number of Byzantine rows. Where n - f - 2 < 1, the nearest row alone counts.

    Returns:
        (n,) scores; the lower, the better supported.

    Reference:
        Xie, Koyejo, Gupta (2018), Definition 3 (which loses the square in print; Fall of Empires,
        section 4, has the numbers that show it).
    """
    n = len(distances)
    neighbours = min(max(n - f - 2, 1), n - 1)
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
        ValueError: when called on n <= 2f + 2 rows.

    Examples:
        >>> import numpy as np
        >>> Krum(f=1)(np.array([[0.0], [1.0], [2.5], [3.0], [1e9]]))
        array([2.5])

    Reference:
        Blanchard, El Mhamdi, Guerraoui, Stainer (2017); Xie, Koyejo, Gupta (2018), Definition 3.
    """

    condition: ClassVar[Condition] = Condition(2, 3)
    facts: ClassVar[Facts] = Facts(str(condition), "O(n^2 d)", "lowest row", ROW_EXCLUDED)
    measures: ClassVar[str] = "distances"

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
        ValueError: when called on n <= 2f + 2 rows, or on fewer than m.

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
    measures: ClassVar[str] = "distances"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m is not None:
            object.__setattr__(self, "m", count(self, "m", self.m, least=1))

    def max_byzantine(self, n: int) -> int:
        """As for Krum, but at most n - m: of the m rows averaged only so many others may be honest."""
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
        if n == 1:
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
        ValueError: when called on n <= 4f + 2 rows.

    Examples:
        >>> import numpy as np
        >>> Bulyan(f=1)(np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [1e9]]))
        array([2.])

    Reference:
        El Mhamdi, Guerraoui, Rouault (2018). Rajput et al. (2019) use it without a definition.
    """

    condition: ClassVar[Condition] = Condition(4, 3)
    facts: ClassVar[Facts] = Facts(str(condition), "O(n^2 d)", "lowest row, lower window", ROW_EXCLUDED)
    measures: ClassVar[str] = "distances"

    def decide_finite(self, statistics: Statistics) -> Decision:
        f = self.remaining_f(statistics)
        # More non-finite rows than f leave fewer rows than any promise covers; keep at least one.
        f = min(f, (statistics.n - 1) // 4)
        chosen = _repeated_krum(statistics.distances, f, statistics.n - 2 * f)
        return Coordinatewise("mean_around_median", chosen, statistics.n, 2 * f)

    def weigh(self, statistics: Statistics) -> Floats:
        return self.decide_finite(statistics).weights


def _repeated_krum(distances: Floats, f: int, theta: int) -> Ints:
    left = list(range(len(distances)))
    chosen = []
    for _ in range(theta):
        best = int(np.argmin(scores(distances[np.ix_(left, left)], f))) if len(left) > 1 else 0
        chosen.append(left.pop(best))
    return np.array(sorted(chosen), dtype=np.int64)
