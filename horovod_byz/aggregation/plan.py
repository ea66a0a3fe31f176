"""Votes that one pass over the rows can fuse with the rules over the votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """A rule that computes each value from the values of that coordinate alone, as kernels know it."""

    kernel: Kernel | Literal["mean"]
    f: int = 0

    def decide(self, chosen: Ints, n: int) -> Decision:
        """The rule over the chosen of n finite rows."""
        if self.kernel == "mean":
            return Weighted.uniform(n, chosen)
        return Coordinatewise(self.kernel, chosen, n, self.f)


@dataclass(frozen=True)
class Stages:
    """A rule that is a vote by bits of whole rows, a rule inside parts of the votes, and a rule over those.

    Attributes:
        groups: the rows of each vote; each row is in one.
        inner: the rule inside each part.
        parts: the votes of each part.
        outer: the rule over the parts' results.
        lazy: whether to read only as many rows of a vote as make a majority, where those agree.
    """

    groups: Groups
    inner: ByValue
    parts: Sequence[Sequence[int]]
    outer: ByValue
    lazy: bool = False


class Rule(Protocol):
    """What the engine needs of a rule."""

    def check(self, n: int) -> None:
        """Raises ValueError unless the rule is defined for n rows."""

    def stages(self, n: int, step: int) -> Stages | None:
        """The rule over n rows as stages that one pass can fuse, or None."""

    def decide(self, statistics: Statistics) -> Decision:
        """How the result comes from the rows."""


def plan(rule: Rule, n: int, step: int) -> Fused | None:
    """The single pass that gives the bits of `rule.decide` and its combine, or None where there is none."""
    stages = rule.stages(n, step)
    if stages is None or stages.inner.kernel == stages.outer.kernel == "mean":
        return None  # a mean of means is a single sum over the rows: `compose` folds it
    return Fused(stages)


class Fused:
    """One pass over whole rows that votes and aggregates the votes."""

    def __init__(self, stages: Stages) -> None:
        self._stages, self._parts = stages, [list(part) for part in stages.parts]
        if stages.inner.kernel == "mean":  # sums run in the order of the rows
            for part in self._parts:
                part.sort(key=lambda vote: stages.groups[vote][0])

    def run(self, rows: Rows, out: npt.NDArray[Any], threads: int, *, lazy: bool) -> Decision | None:
        """Writes the result of whole rows to `out`.

        Args:
            rows: all coordinates of all rows.
            out: (d,) writable, of the rows' dtype.
            threads: threads for the kernel.
            lazy: whether rows that cannot change the result may stay unread; their verdict is lost.

        Returns:
            The decision that gives this result; None where these rows need the general way, since some vote
            has no majority or sums would run in another order: `out` then holds nothing of use.
        """
        inner, outer = self._stages.inner, self._stages.outer
        groups, lazy = self._stages.groups, lazy or self._stages.lazy
        names = (inner.kernel, inner.f), (outer.kernel, outer.f)
        first = vote.voted(rows, groups, names[0], self._parts, names[1], out, lazy, threads)
        if first is None:
            return None
        votes = _winners(first, groups)
        elected = [int(np.argmax(decision.weights)) for decision in votes]
        if inner.kernel == "mean" and any(
            np.diff([elected[vote] for vote in part]).min(initial=1) < 0 for part in self._parts
        ):
            return None
        below = [inner.decide(np.array(sorted(part), np.int64), len(votes)) for part in self._parts]
        top = outer.decide(np.arange(len(below), dtype=np.int64), len(below))
        return compose(votes, compose(below, top, len(votes)), rows.n)


def _winners(first: Ints, groups: Groups) -> list[Weighted]:
    """The decisions of groups that all have a majority.

    Args:
        first: for each row the first row of its group that equals it, or -1 where it was not read.
        groups: the rows of each vote.
    """
    decisions = []
    for group in map(np.asarray, groups):
        read = first[group]
        known = read[read >= 0]
        winner = int(known[(known[:, None] == known[None, :]).sum(axis=1).argmax()])
        outvoted = group[(read >= 0) & (read != winner)]
        decisions.append(Weighted.uniform(len(first), [winner], outvoted))
    return decisions
