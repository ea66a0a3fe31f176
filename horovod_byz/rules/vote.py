"""The majority vote among replicas of one gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from horovod_byz.decision import Decision, Weighted
from horovod_byz.kernels import vote as kernel
from horovod_byz.kernels.rows import Rows
from horovod_byz.measure import Floats, Groups, Ints, Statistics
from horovod_byz.rules.base import Facts, Rule


@dataclass(frozen=True)
class MajorityVote(Rule):
    """The row that a strict majority of the rows agree on, or zero when there is none.

    All rows are replicas of one gradient: honest ones are equal to the bit. Two rows agree when all
    their bits are equal (equal NaN patterns agree), or, with a tolerance t, when
    |v_i - v_j| <= t max(|v_i|, |v_j|) in the L2 norm.

    Args:
        tolerance: 0 for the exact vote; otherwise the relative distance up to which replicas agree.
            The elected row is then the one, of those that agree with a majority, that is nearest in
            sum to the rows it agrees with: always one of the rows, never an average.

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

    facts: ClassVar[Facts] = Facts("n > 2f replicas", "O(n d)", "lowest row", "compared as bits")

    def __post_init__(self) -> None:
        if isinstance(self.tolerance, bool) or not 0 <= self.tolerance < 1:
            raise ValueError(
                f"MajorityVote: tolerance must be at least 0 and below 1, got {self.tolerance!r}"
            )

    @classmethod
    def min_rows(cls, f: int) -> int:
        return 2 * f + 1

    def decide(self, statistics: Statistics) -> Decision:
        every = np.arange(statistics.n, dtype=np.int64)
        return self.elect(statistics, (tuple(every.tolist()),))[0]

    def in_one_pass(
        self, rows: Rows, out: npt.NDArray[Any], *, step: int, threads: int, lazy: bool
    ) -> Decision | None:
        if self.tolerance:
            return None
        groups = (tuple(range(rows.n)),)
        alone = ("median", 0)  # of one row: the row, zeros for what is not finite
        first = kernel.voted(rows, groups, alone, ((0,),), alone, out, lazy, threads)
        return None if first is None else winners(first, groups)[0]

    def elect(self, statistics: Statistics, groups: tuple[tuple[int, ...], ...]) -> list[Weighted]:
        """One decision per group of replicas: its elected row, or zero where there is no majority.

        A row outside the majority is marked as outvoted. Where no majority exists all rows of the
        group are: no more is known.
        """
        agreements = self._agreements(statistics, groups)
        return [
            _elect(agree, cost, np.asarray(group, np.int64), statistics.n)
            for group, (agree, cost) in zip(groups, agreements, strict=True)
        ]

    def _agreements(
        self, statistics: Statistics, groups: tuple[tuple[int, ...], ...]
    ) -> list[tuple[np.ndarray[tuple[int, int], np.dtype[np.bool_]], Floats]]:
        """Per group: which replicas agree, (r, r), and how far apart they are."""
        if self.tolerance == 0:
            exact = [~differ for differ in statistics.replicas(groups)]
            return [(agree, np.zeros(agree.shape)) for agree in exact]
        finite = statistics.nonfinite == 0
        norms = np.sqrt(statistics.squared_norms)
        found = []
        for group in groups:
            rows = np.asarray(group)
            apart = np.sqrt(statistics.take(rows).distances)
            limit = self.tolerance * np.maximum.outer(norms[rows], norms[rows])
            both = np.logical_and.outer(finite[rows], finite[rows])
            agree = (both & (apart <= limit)) | np.eye(len(rows), dtype=bool)
            found.append((agree, np.where(agree, apart, 0.0)))
        return found


def winners(first: Ints, groups: Groups) -> list[Weighted]:
    """The decisions of groups that all have a majority.

    Args:
        first: for each row the first row of its group that equals it, or -1 where it was not read.
        groups: the redundancy groups.
    """
    n, decisions = len(first), []
    for group in map(np.asarray, groups):
        read = first[group]
        known = read[read >= 0]
        winner = int(known[(known[:, None] == known[None, :]).sum(axis=1).argmax()])
        decisions.append(Weighted.uniform(n, [winner], outvoted=group[(read >= 0) & (read != winner)]))
    return decisions


def _elect(
    agree: np.ndarray[tuple[int, int], np.dtype[np.bool_]], apart: Floats, group: Ints, n: int
) -> Weighted:
    support = agree.sum(axis=1)
    if 2 * int(support.max()) <= len(group):
        return Weighted.uniform(n, [], outvoted=group)
    cost = np.where(2 * support > len(group), apart.sum(axis=1), np.inf)
    winner = int(np.argmin(cost))
    return Weighted.uniform(n, [int(group[winner])], outvoted=group[~agree[winner]])
