"""Pre-aggregation: maps of n rows to mixtures of them, in front of a rule or alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from horovod_byz.aggregation import engine
from horovod_byz.aggregation import rows as reading
from horovod_byz.aggregation.decision import Composite, Decision, Virtual, Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Floats
from horovod_byz.aggregation.statistic import DISTANCES, SQUARED_NORMS, Statistic
from horovod_byz.common.checks import count, positive
from horovod_byz.rules.base import Facts, FiniteRule
from horovod_byz.rules.condition import MAJORITY, Condition


@dataclass(frozen=True)
class PreAggregation(ABC):
    """A map of n rows to mixtures of them: weights on rows, decided from statistics as a rule is.

    A value, as rules are. `Pipeline` puts it in front of a rule, where no mixture is stored; called alone it
    returns the mixtures, (k, d). Rows that hold NaN or Inf are removed first.
    """

    # The statistic that `mix` reads, if any; see `FiniteRule`.
    measures: ClassVar[Statistic | None] = None
    # Whether each mixture's weights add up to 1, so that its distances follow from those of the rows.
    averages: ClassVar[bool] = True
    # Whether mixture i stands for row i.
    row_by_row: ClassVar[bool] = True

    def __call__(self, rows: Any, *, step: int = 0, threads: int | None = None) -> Any:
        """Maps (n, d) rows to their mixtures, (k, d), of the same type, dtype and device.

        Args:
            rows: as for a rule; never written to. A row that holds NaN or Inf has no mixture.
            step: optimizer step, which seeds random draws.
            threads: threads for the kernels; the result does not depend on it.

        Raises:
            TypeError: if `rows` are not floating point, or mix types, dtypes or devices.
            ValueError: if the shape is not (n, d), or n rows are too few.
        """
        source, restore = reading.read(rows)
        self.check(source.n)
        shard = engine.whole(source, count(self, "step", step), threads)
        decision = _Mixtures(self).decide(Statistics(source, shard))
        below = decision.below if isinstance(decision, Composite) else ()
        if not below:
            return restore(np.empty((0, source.d), source.dtype))
        mixtures = Virtual(source, below, shard.threads, mixes=True)
        begins = range(0, max(source.d, 1), min(source.at_once, max(source.d, 1)))
        parts = [mixtures.values(begin, min(begin + begins.step, source.d)) for begin in begins]
        return restore(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))

    def check(self, n: int) -> None:
        """Checks that the map is defined for n rows.

        Raises:
            ValueError: if it is not; the message names the remedy.
        """
        return

    def rows_of(self, n: int) -> int:
        """The number of mixtures of n rows."""
        return n

    def max_byzantine(self, n: int) -> int:
        """The largest number of Byzantine rows for which as many mixtures at most are Byzantine."""
        return n

    @abstractmethod
    def mix(self, statistics: Statistics) -> Floats:
        """The weights of the rows in each mixture, (k, n); `statistics` are of finite rows."""


@dataclass(frozen=True)
class _Bounded(PreAggregation):
    """A map with a parameter f."""

    f: int

    condition: ClassVar[Condition] = MAJORITY

    def __post_init__(self) -> None:
        object.__setattr__(self, "f", count(self, "f", self.f))

    def check(self, n: int) -> None:
        self.condition.check(n, self.f, repr(self))

    def max_byzantine(self, n: int) -> int:
        return self.f

    def _remaining_f(self, statistics: Statistics) -> int:
        return max(self.f - statistics.excluded, 0)


@dataclass(frozen=True)
class NNM(_Bounded):
    """Nearest-neighbour mixing: each row becomes the mean of the n - f rows nearest to it, itself included.

    Args:
        f: assumed number of Byzantine rows, 2f < n.

    Tolerates: n > 2f. Cost: O(n^2 d). Ties: the row itself, then the lowest rows. Non-finite: row excluded,
    and f lowered by one for each.

    Raises:
        ValueError: if called on n <= 2f rows.

    Examples:
        >>> import numpy as np
        >>> NNM(f=1)(np.array([[1.0], [2.0], [4.0]]))
        array([[1.5],
               [1.5],
               [3. ]])

    Reference:
        Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan (2023), Fixing by mixing, Algorithm 2.
    """

    measures: ClassVar[Statistic | None] = DISTANCES

    def mix(self, statistics: Statistics) -> Floats:
        n = statistics.n
        near = n - self._remaining_f(statistics)
        apart = statistics.distances.copy()
        np.fill_diagonal(apart, -1.0)  # a row is nearest to itself, also before its copies
        nearest = np.argsort(apart, axis=1, kind="stable")[:, :near]
        weights = np.zeros((n, n))
        np.put_along_axis(weights, nearest, 1.0 / near, axis=1)
        return weights


@dataclass(frozen=True)
class Bucketing(PreAggregation):
    """The means of buckets of s rows, dealt at random anew in each step; the last bucket may be smaller.

    A Byzantine row spoils its bucket: the rule behind must tolerate f of ceil(n / s) rows.

    Args:
        s: rows in a bucket, at least 1.
        seed: seed of the deal.

    Tolerates: as the rule behind. Cost: O(n d). Ties: none. Non-finite: row excluded.

    Examples:
        >>> import numpy as np
        >>> Bucketing(s=2)(np.ones((5, 2))).shape
        (3, 2)

    Reference:
        Karimireddy, He, Jaggi (2022), Byzantine-robust learning on heterogeneous datasets via bucketing,
        Algorithm 1.
    """

    s: int
    seed: int = 0

    row_by_row: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "s", count(self, "s", self.s, least=1))
        object.__setattr__(self, "seed", count(self, "seed", self.seed))

    def rows_of(self, n: int) -> int:
        return -(-n // self.s)

    def mix(self, statistics: Statistics) -> Floats:
        n = statistics.n
        # 0xB5 separates these draws from those of rules with the same seed.
        order = np.random.default_rng([self.seed, 0xB5, statistics.step]).permutation(n)
        buckets = [np.sort(order[begin : begin + self.s]) for begin in range(0, n, self.s)]
        return np.stack([Weighted.uniform(n, bucket).weights for bucket in buckets])


@dataclass(frozen=True)
class Clipping(PreAggregation):
    """Rows longer than a given norm are scaled down to it: x min(1, norm / |x|).

    Args:
        norm: the largest norm, in the gradient's unit, over 0.

    Tolerates: as the rule behind. Cost: O(n d). Ties: none. Non-finite: row excluded.

    Examples:
        >>> import numpy as np
        >>> Clipping(norm=5.0)(np.array([[1.0, 0.0], [30.0, 40.0]]))
        array([[1., 0.],
               [3., 4.]])
    """

    norm: float

    measures: ClassVar[Statistic | None] = SQUARED_NORMS
    averages: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", positive(self, "norm", self.norm))

    def mix(self, statistics: Statistics) -> Floats:
        return _cut(np.sqrt(statistics.squared_norms), self.norm / statistics.unit)


@dataclass(frozen=True)
class ARC(_Bounded):
    """Adaptive robust clipping: the k longest rows are scaled down to the norm of the next longest.

    k = 2 f (n - f) / n, rounded down.

    Args:
        f: assumed number of Byzantine rows, 2f < n.

    Tolerates: n > 2f. Cost: O(n d). Ties: none. Non-finite: row excluded, and f lowered by one for each.

    Raises:
        ValueError: if called on n <= 2f rows.

    Examples:
        >>> import numpy as np
        >>> ARC(f=1)(np.array([[1.0, 0.0], [0.0, 10.0], [30.0, 40.0]]))
        array([[ 1.,  0.],
               [ 0., 10.],
               [ 6.,  8.]])

    Reference:
        Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan (2024), Adaptive gradient clipping for robust
        federated learning.
    """

    measures: ClassVar[Statistic | None] = SQUARED_NORMS
    averages: ClassVar[bool] = False

    def mix(self, statistics: Statistics) -> Floats:
        n, f = statistics.n, min(self._remaining_f(statistics), (statistics.n - 1) // 2)
        norms = np.sqrt(statistics.squared_norms)
        return _cut(norms, float(np.sort(norms)[n - 1 - 2 * f * (n - f) // n]))


def _cut(norms: Floats, limit: float) -> Floats:
    """The mixing matrix that scales rows longer than the limit down to it."""
    long = norms > limit
    return np.diag(np.where(long, limit / np.where(long, norms, 1.0), 1.0))


@dataclass(frozen=True)
class _Mixtures(FiniteRule):
    """All mixtures of a map at once, as the decisions below a composite."""

    of: PreAggregation

    facts: ClassVar[Facts] = Facts("as the map", "as the map", "as the map", "row excluded")

    def max_byzantine(self, n: int) -> int:
        return self.of.max_byzantine(n)

    def decide(self, statistics: Statistics) -> Decision:
        if self.of.measures is not None:
            statistics.get(self.of.measures)
        return super().decide(statistics)

    def decide_finite(self, statistics: Statistics) -> Decision:
        weights = self.of.mix(statistics)
        return Composite(tuple(map(Weighted, weights)), Weighted(np.zeros(len(weights))))
