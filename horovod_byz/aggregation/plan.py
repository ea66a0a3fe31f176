"""Plans one pass over the rows for a vote followed by coordinate-wise rules over the votes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.decision import Coordinatewise, Decision, Kernel, Weighted, compose
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Groups, Ints
from horovod_byz.kernels import vote
from horovod_byz.kernels.rows import Rows


@dataclass(frozen=True)
class ByValue:
    """A rule that computes each coordinate from that coordinate alone, by the name of its kernel."""

    kernel: Kernel | Literal["mean"]
    f: int = 0

    def decide(self, chosen: Ints, n: int) -> Decision:
        """The rule over the chosen of n finite rows."""
        if self.kernel == "mean":
            return Weighted.uniform(n, chosen)
        return Coordinatewise(self.kernel, chosen, n, self.f)


@dataclass(frozen=True)
class Stages:
    """A rule in three stages: an exact vote, a rule in each part of the votes, and a rule over the parts.

    Attributes:
        groups: the rows of each vote; each row is in one group.
        inner: the rule inside each part.
        parts: the votes of each part.
        outer: the rule over the parts' results.
        lazy: whether to stop reading a group once the rows read are an agreeing majority.
    """

    groups: Groups
    inner: ByValue
    parts: tuple[tuple[int, ...], ...]
    outer: ByValue
    lazy: bool = False


class Rule(Protocol):
    """The methods of a rule that the engine calls."""

    def check(self, n: int) -> None:
        """Raises ValueError unless the rule is defined for n rows."""

    def stages(self, n: int, step: int) -> Stages | None:
        """The rule over n rows as stages that one pass can fuse, or None."""

    def decide(self, statistics: Statistics) -> Decision:
        """The decision for rows with these statistics."""


def plan(rule: Rule, n: int, step: int) -> Fused | None:
    """The single pass with the same bits as `rule.decide` and combine; None if there is no such pass."""
    stages = rule.stages(n, step)
    if stages is None or stages.inner.kernel == stages.outer.kernel == "mean":
        return None  # a mean of means is a single sum over the rows: `compose` folds it
    return _fused(stages)


class Fused:
    """One pass over whole rows: it votes, and aggregates the votes.

    What does not depend on the rows is prepared here, since a short call costs less than preparing it.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages, self._parts = stages, [list(part) for part in stages.parts]
        votes = len(stages.groups)
        if stages.inner.kernel == "mean":  # `linear` adds rows in ascending order, and order decides the bits
            for part in self._parts:
                part.sort(key=lambda vote: stages.groups[vote][0])
        self._group = np.empty(sum(map(len, stages.groups)), np.int64)  # of each row
        for index, group in enumerate(stages.groups):
            self._group[list(group)] = index
        self._order = np.concatenate([np.array(part, np.int64) for part in self._parts])
        ends = np.cumsum([len(part) for part in self._parts])
        # Which neighbours in `order` are of one part.
        self._within = np.ones(len(self._order) - 1, bool)
        self._within[ends[:-1] - 1] = False
        below = [stages.inner.decide(np.array(sorted(part), np.int64), votes) for part in self._parts]
        top = stages.outer.decide(np.arange(len(below), dtype=np.int64), len(below))
        self._of_votes = compose(below, top, votes)

    def run(self, rows: Rows, out: npt.NDArray[Any], threads: int, *, lazy: bool) -> Decision | None:
        """Writes the result of whole rows to `out`.

        Args:
            rows: all coordinates of all rows.
            out: (d,) writable, of the rows' dtype.
            threads: threads for the kernel.
            lazy: whether to skip rows that cannot change the result; a skipped row gets no verdict.

        Returns:
            The decision with this result. None if a vote has no majority or the sums would run in another
            order: the caller then measures and decides as usual, and overwrites `out`.
        """
        inner, outer = self._stages.inner, self._stages.outer
        groups, lazy = self._stages.groups, lazy or self._stages.lazy
        names = (inner.kernel, inner.f), (outer.kernel, outer.f)
        first = vote.voted(rows, groups, names[0], self._parts, names[1], out, lazy, threads)
        if first is None:
            return None
        elected = _elected(first, self._group, len(groups))
        # The general way sums elected rows in row order. Parts are sorted by each group's first row, so the
        # orders differ if a group elected a later one.
        if inner.kernel == "mean" and (np.diff(elected[self._order])[self._within] < 0).any():
            return None
        outvoted = np.flatnonzero((first >= 0) & (first != elected[self._group]))
        return replace(self._of_votes.expand(rows.n, elected), outvoted=outvoted)


_fused = lru_cache(maxsize=16)(Fused)  # stages are made of names and numbers


def _elected(first: Ints, group: Ints, votes: int) -> Ints:
    """The elected row of each group, given that every group has a majority.

    Args:
        first: for each row the first equal row of its group, or -1 if the row was not read.
        group: the group of each row.
        votes: number of groups.
    """
    count = np.bincount(first[first >= 0])
    ascending = np.argsort(count, kind="stable")
    ascending = ascending[count[ascending] > 0]
    elected = np.empty(votes, np.int64)
    elected[group[ascending]] = ascending  # of a group's rows the last stays, which has most votes
    return elected
