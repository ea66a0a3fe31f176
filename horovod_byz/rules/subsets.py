"""Rules that average the n - f rows that lie together best: by diameter, or by leading eigenvalue."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Floats, Ints
from horovod_byz.aggregation.statistic import DISTANCES, Statistic
from horovod_byz.rules.base import ROW_EXCLUDED, BoundedRule, Facts, RowRule
from horovod_byz.rules.condition import MAJORITY, Condition
from horovod_byz.rules.diameter import closest
from horovod_byz.rules.spectrum import TIE


@dataclass(frozen=True)
class MDA(BoundedRule, RowRule):
    """Minimum-diameter averaging: the mean of the n - f rows whose largest distance to one another is least.

    The subset is found exactly, by a search that grows with f and not with the number of subsets; see
    `diameter.closest`.

    Args:
        f: number of rows left out, 2f < n and at most `MDA.most_f`.

    Tolerates: n > 2f. Cost: O(n^2 d) and a search. Ties: first subset in lexicographic order.
    Non-finite: row excluded.

    Raises:
        ValueError: if called on n <= 2f rows, or f is beyond the limit.

    Examples:
        >>> import numpy as np
        >>> MDA(f=1)(np.array([[1.0], [2.0], [3.0], [1e9]]))
        array([2.])

    Reference:
        El Mhamdi, Guerraoui, Rouault (2018), The hidden vulnerability of distributed learning in Byzantium;
        Rousseeuw (1985) for the estimator.
    """

    # Branching takes 1.47^f steps at most, for each of some dozens of diameters: 30 is minutes at the worst.
    most_f: ClassVar[int] = 30

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(str(condition), "O(n^2 d)", "first subset", ROW_EXCLUDED)
    symmetric: ClassVar[bool] = True
    measures: ClassVar[Statistic | None] = DISTANCES

    def check(self, n: int) -> None:
        super().check(n)
        if self.f > self.most_f:
            raise ValueError(
                f"{self!r} would search for too long: use f <= {self.most_f}, or a rule without a search "
                f"such as CAF(f={self.f})"
            )

    def weigh(self, statistics: Statistics) -> Floats:
        n = statistics.n
        return Weighted.uniform(n, closest(statistics.distances, n - self.remaining_f(statistics))).weights


@dataclass(frozen=True)
class SMEA(BoundedRule, RowRule):
    """Smallest maximum eigenvalue averaging: the mean of the n - f rows of least leading eigenvalue.

    Of all subsets of n - f rows it takes the one whose covariance has the least largest eigenvalue. All
    subsets are looked at, so their number is limited.

    Args:
        f: number of rows left out, 2f < n.

    Tolerates: n > 2f. Cost: O(n^2 d) and an eigenvalue for each of n choose f subsets, `SMEA.most_subsets`
    at most. Ties: of eigenvalues equal to one part in 10^9, the first subset in lexicographic order.
    Non-finite: row excluded.

    Raises:
        ValueError: if called on n <= 2f rows, or on rows with too many subsets.

    Examples:
        >>> import numpy as np
        >>> SMEA(f=1)(np.array([[1.0], [2.0], [3.0], [1e9]]))
        array([2.])

    Reference:
        Allouah, Guerraoui, Gupta, Pinot, Stephan (2023), On the privacy-robustness-utility trilemma in
        distributed learning.
    """

    most_subsets: ClassVar[int] = 50_000

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(str(condition), "O(n^2 d)", "first subset", ROW_EXCLUDED)
    symmetric: ClassVar[bool] = True
    measures: ClassVar[Statistic | None] = DISTANCES

    def check(self, n: int) -> None:
        super().check(n)
        if math.comb(n, self.f) > self.most_subsets:
            most = max(f for f in range(self.f) if math.comb(n, f) <= self.most_subsets)
            raise ValueError(
                f"{self!r} would look at {math.comb(n, self.f)} subsets of n = {n} rows, more than "
                f"{self.most_subsets}: use f <= {most}, or a rule without a search such as CAF(f={self.f})"
            )

    def weigh(self, statistics: Statistics) -> Floats:
        n = statistics.n
        return Weighted.uniform(n, _tightest(statistics.distances, n - self.remaining_f(statistics))).weights


def _tightest(distances: Floats, size: int) -> Ints:
    """The subset of this size whose covariance has the least leading eigenvalue."""
    count = math.comb(len(distances), size)
    flat = itertools.chain.from_iterable(itertools.combinations(range(len(distances)), size))
    subsets = np.fromiter(flat, np.int64, count * size).reshape(count, size)
    bounds = np.concatenate([_least(_of(distances, part)) for part in _parts(subsets)])
    order, eigenvalues = np.argsort(bounds, kind="stable"), np.full(count, np.inf)
    for part in _parts(order):  # most promising first: the others need no eigenvalue
        if bounds[part[0]] > eigenvalues.min() * (1 + 2 * TIE):
            break
        eigenvalues[part] = _largest(_of(distances, subsets[part]))
    chosen: Ints = subsets[np.flatnonzero(eigenvalues <= eigenvalues.min() * (1 + TIE))[0]]
    return chosen


def _parts(rows: Ints, length: int = 512) -> list[Ints]:
    return [rows[begin : begin + length] for begin in range(0, len(rows), length)]


def _of(distances: Floats, subsets: Ints) -> Floats:
    """The squared distances inside each subset, (subsets, size, size)."""
    inside: Floats = distances[subsets[:, :, None], subsets[:, None, :]]
    return inside


def _least(distances: Floats) -> Floats:
    """Lower bounds of the leading eigenvalues of scatter matrices: of their pairs, and of their average.

    The scatter of a pair of rows has the eigenvalue D / 2, and more rows only add to it. The trace, which is
    sum D / 2m over the ordered pairs, is shared by m - 1 eigenvalues.
    """
    size = distances.shape[1]
    if size == 1:
        return np.zeros(len(distances))
    average = distances.sum(axis=(1, 2)) / (2 * size * (size - 1))
    bounds: Floats = np.maximum(distances.max(axis=(1, 2)) / 2, average) * (1 - TIE)
    return bounds


def _largest(distances: Floats) -> Floats:
    """The leading eigenvalue of each subset's scatter matrix, from its form in n-space."""
    size = distances.shape[1]
    means = distances.mean(axis=1)
    products = 0.5 * ((means[:, :, None] + means[:, None, :]) - distances - means.mean(axis=1)[:, None, None])
    values: Floats = np.linalg.eigvalsh(products)[:, -1] if size > 1 else np.zeros(len(distances))
    return values
