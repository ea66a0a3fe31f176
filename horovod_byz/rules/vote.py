"""The majority vote among replicas of one gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.decision import Decision, Segmented, Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.plan import ByValue, Stages
from horovod_byz.aggregation.reach import lengths
from horovod_byz.aggregation.source import Floats, Groups, Ints
from horovod_byz.aggregation.statistic import Ends
from horovod_byz.common.checks import flag, fraction
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules.base import Facts, StatedRule
from horovod_byz.rules.condition import MAJORITY, Condition

# Which replicas agree, (r, r) bool, and their distances, (r, r).
Agreement = tuple[npt.NDArray[np.bool_], Floats]


@dataclass(frozen=True)
class MajorityVote(StatedRule):
    """The row that a strict majority of the rows agree on, or zero when there is none.

    All rows are replicas of one gradient: honest ones are equal to the bit. Two rows agree when all
    their bits are equal (equal NaN patterns agree), or, with a tolerance t, when
    |v_i - v_j| <= t max(|v_i|, |v_j|) in the L2 norm.

    Args:
        tolerance: 0 for the exact vote; otherwise the relative distance up to which replicas agree.
            The elected row is then, among the rows that agree with a majority, the one with the least sum
            of distances to the rows it agrees with: always a row, never an average.
        scope: "whole" votes once on all coordinates, as in the paper; "tensor" votes on each parameter by
            itself, as in its public code: replicas with a flipped bit in different tensors then still elect
            every tensor, but two liars need to agree in one tensor only. A collector bound by
            `DistributedOptimizer` knows the tensors; `hb.aggregate` takes `segments`.
        lazy: whether to compare a bare majority of the replicas, the lowest ones, and the others only if
            those differ. The elected bits are the same; a replica that was not read gets no verdict.

    Tolerates: n > 2f. Cost: O(n d) where replicas are equal. Ties: lowest row of the majority.
    Non-finite: compared as bits; an elected NaN or Inf counts as a non-finite row from there on, and
    is 0 in a final result.

    Examples:
        >>> import numpy as np
        >>> MajorityVote()(np.array([[1.0, 2.0], [1.0, 2.0], [9.0, 9.0]]))
        array([1., 2.])

    Reference:
        Rajput, Wang, Charles, Papailiopoulos (2019), DETOX, Algorithm 1.
    """

    tolerance: float = 0.0
    scope: Literal["whole", "tensor"] = "whole"
    lazy: bool = False

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(f"{condition} replicas", "O(n d)", "lowest row", "compared as bits")

    def __post_init__(self) -> None:
        object.__setattr__(self, "tolerance", fraction(self, "tolerance", self.tolerance))
        object.__setattr__(self, "lazy", flag(self, "lazy", self.lazy))
        if self.scope not in ("whole", "tensor"):
            raise ValueError(f"MajorityVote: scope must be 'whole' or 'tensor', got {self.scope!r}")
        if self.lazy and self.tolerance:
            raise ValueError(
                "MajorityVote(lazy=True) compares bits, and a vote with tolerance needs all distances: leave "
                "out one of the two"
            )

    def decide(self, statistics: Statistics) -> Decision:
        every = np.arange(statistics.n, dtype=np.int64)
        return self.elect(statistics, (tuple(every.tolist()),))[0]

    def without(self, workers: Sequence[int], n: int) -> MajorityVote:
        _everybody(n).without(workers, n)  # raises if too few replicas remain
        return self

    def dissenting(self, statistics: Statistics, decision: Decision, workers: Sequence[int]) -> Ints:
        return self.dissent(statistics, _everybody(statistics.n).groups_of(statistics.n), decision, workers)

    def dissent(
        self, statistics: Statistics, groups: Groups, decision: Decision, workers: Sequence[int]
    ) -> Ints:
        """Those of `workers`, who had no vote, that disagree with the row that their group elected.

        Args:
            statistics: of all rows.
            groups: all redundancy groups, these workers included.
            decision: the decision without them; it marks the voters that lost.
            workers: the rows without a vote.
        """
        losers = {*workers, *decision.outvoted.tolist()}
        concerned = tuple(group for group in groups if not set(workers).isdisjoint(group))
        lost = []
        for group, (agreement,) in zip(concerned, self._agreements(statistics, concerned, None), strict=True):
            agree, _ = agreement
            winners = [at for at, row in enumerate(group) if row not in losers]  # they agree with one another
            lost += [
                row
                for at, row in enumerate(group)
                if winners and row in workers and not agree[at, winners[0]]
            ]
        return np.array(sorted(lost), np.int64)

    def stages(self, n: int, step: int) -> Stages | None:
        if not self.exact_and_whole:
            return None
        # The stages need rules over the vote: the median of one row is the row, with 0 for non-finite values.
        alone = ByValue("median")
        return Stages((tuple(range(n)),), alone, ((0,),), alone, self.lazy)

    @property
    def exact_and_whole(self) -> bool:
        """Whether the vote compares all bits of whole rows, which the kernels do in one pass."""
        return self.tolerance == 0 and self.scope == "whole"

    def elect(self, statistics: Statistics, groups: Groups) -> Sequence[Decision]:
        """One decision per group of replicas: its elected row, or zero where there is no majority.

        A row outside the majority is marked as outvoted. Without a majority all rows of the group are,
        since nothing shows which of them are honest.

        Raises:
            ValueError: if the vote is per tensor and the statistics have no segments.
        """
        if self.scope == "tensor":
            _ends_of(statistics)  # raises now, not at the first step at which replicas differ
        if self.lazy:
            return self._elect_lazily(statistics, groups)
        return self._elect_fully(statistics, groups)

    def _elect_lazily(self, statistics: Statistics, groups: Groups) -> Sequence[Decision]:
        """Reads a group's other replicas only where the first ones differ."""
        first = tuple(group[: len(group) // 2 + 1] for group in groups)
        return self._elect_odd(statistics, groups, statistics.replicas(first), self._elect_fully)

    def _elect_fully(self, statistics: Statistics, groups: Groups) -> Sequence[Decision]:
        if self.scope == "tensor":
            return self._elect_odd(statistics, groups, statistics.replicas(groups), self._elect_by_tensor)
        return [
            _elect(*agreement, np.asarray(group, np.int64), statistics.n)
            for group, (agreement,) in zip(groups, self._agreements(statistics, groups, None), strict=True)
        ]

    def _elect_odd(
        self,
        statistics: Statistics,
        groups: Groups,
        differ: Sequence[npt.NDArray[np.bool_]],
        elect: Callable[[Statistics, Groups], Sequence[Decision]],
    ) -> Sequence[Decision]:
        """Elects the first replica of each group; groups whose replicas differ are decided by `elect`."""
        odd = [k for k, pairs in enumerate(differ) if pairs.any()]
        decisions: list[Decision] = [Weighted.uniform(statistics.n, [group[0]]) for group in groups]
        if odd:
            rest = elect(statistics, tuple(groups[k] for k in odd))
            for k, decision in zip(odd, rest, strict=True):
                decisions[k] = decision
        return decisions

    def _elect_by_tensor(self, statistics: Statistics, groups: Groups) -> Sequence[Decision]:
        ends, n = _ends_of(statistics), statistics.n
        decisions = []
        for group, by_tensor in zip(groups, self._agreements(statistics, groups, ends), strict=True):
            parts = tuple(_elect(*agreement, np.asarray(group, np.int64), n) for agreement in by_tensor)
            outvoted = np.unique(np.concatenate([part.outvoted for part in parts]))
            decisions.append(Segmented(ends, parts, outvoted))
        return decisions

    def _agreements(self, statistics: Statistics, groups: Groups, ends: Ends) -> list[list[Agreement]]:
        """Per group and segment; without `ends` all coordinates are one segment."""
        if self.tolerance == 0:
            return [
                [(~differ, np.zeros(differ.shape)) for differ in by_segment]
                for by_segment in statistics.replicas_in(groups, ends)
            ]
        # Cached, since every group and segment that overflowed reads the same measurement.
        scaled = cache(lambda: statistics.scaled.closeness_in(groups, ends))

        def near(group: int, segment: int, squares: Floats, norms: Floats, bad: Ints) -> Agreement:
            return self._near(squares, norms, bad == 0, lambda: scaled()[group][segment])

        return [
            [near(k, at, *measured) for at, measured in enumerate(by_segment)]
            for k, by_segment in enumerate(statistics.closeness_in(groups, ends))
        ]

    def _near(
        self,
        squares: Floats,
        squared_norms: Floats,
        finite: npt.NDArray[np.bool_],
        scaled: Callable[[], Sequence[Any]],
    ) -> Agreement:
        """Which rows agree, from squared distances and norms; `scaled` measures both in the larger unit."""
        both = np.logical_and.outer(finite, finite)
        apart = lengths(np.where(both, squares, 0.0), lambda: scaled()[0])
        norms = lengths(np.where(finite, squared_norms, 0.0), lambda: scaled()[1])
        # A row agrees with itself even if it holds NaN, so that it can be elected and then counts as
        # non-finite.
        agree = (both & (apart <= self.tolerance * np.maximum.outer(norms, norms))) | np.eye(
            len(norms), dtype=bool
        )
        return agree, np.where(agree, apart, 0.0)


def _everybody(n: int) -> Redundancy:
    return Redundancy(n, groups=(tuple(range(n)),))


def _ends_of(statistics: Statistics) -> tuple[int, ...]:
    if statistics.shard.segments is None:
        raise ValueError(
            "MajorityVote(scope='tensor') must know where tensors end: use it with DistributedOptimizer, "
            "or give segments=(...) to hb.aggregate or to bind"
        )
    return statistics.shard.segments


def _elect(agree: npt.NDArray[np.bool_], apart: Floats, group: Ints, n: int) -> Weighted:
    support = agree.sum(axis=1)
    if 2 * int(support.max()) <= len(group):
        return Weighted.uniform(n, [], outvoted=group)
    # Rows without a majority behind them cannot win, however near they are to the few that agree.
    cost = np.where(2 * support > len(group), apart.sum(axis=1), np.inf)
    winner = int(np.argmin(cost))
    return Weighted.uniform(n, [int(group[winner])], outvoted=group[~agree[winner]])
