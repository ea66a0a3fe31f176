"""A rule over the rows that remain when some workers are excluded; it still judges the excluded rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from horovod_byz.aggregation.decided import decided
from horovod_byz.aggregation.decision import Decision
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Ints
from horovod_byz.common.checks import count
from horovod_byz.rules.base import Facts, Rule

__all__ = ["Without", "excluding", "whole"]


@dataclass(frozen=True)
class Without(Rule):
    """`rule` on the other workers' rows, bit for bit; the excluded ones have weight 0.

    Row i is worker i's in any case: nothing is copied or renumbered outside. The rule's f stays as given, and
    its condition must hold for the rows that remain. An excluded row is collected and judged as before: it
    has a distance to the result, non-finite values are counted, and a replica that differs from its
    redundancy group's elected row is outvoted.

    Args:
        rule: the rule, for all n rows.
        workers: the workers whose rows do not count.

    Raises:
        TypeError, ValueError: if a worker is no whole number of at least 0.

    Examples:
        >>> import numpy as np
        >>> from horovod_byz.rules import Mean
        >>> Without(Mean(), workers=(1,))(np.array([[1.0], [9.0], [3.0]]))
        array([2.])
    """

    rule: Rule
    workers: tuple[int, ...]

    facts: ClassVar[Facts] = Facts(
        "as the rule on the rows that remain", "as the rule", "as the rule", "as the rule"
    )

    def __post_init__(self) -> None:
        workers = {count(self, "workers", worker) for worker in self.workers}
        object.__setattr__(self, "workers", tuple(sorted(workers)))

    def remaining(self, n: int) -> Rule:
        """The rule over the remaining of n rows, which are numbered anew from 0.

        Raises:
            ValueError: if it does not hold for them; the message names the excluded workers and the remedy.
        """
        beyond = [worker for worker in self.workers if worker >= n]
        if beyond:
            raise ValueError(f"worker {beyond[0]} cannot be excluded: there are {n} workers, 0..{n - 1}")
        if len(self.workers) == n:
            raise ValueError(f"all {n} workers are excluded, so no row remains: keep some")
        try:
            rule = self.rule.without(self.workers, n)
            rule.check(n - len(self.workers))
        except ValueError as error:
            raise ValueError(f"without {_names(self.workers)} of {n}: {error}") from None
        return rule

    def kept(self, n: int) -> Ints:
        """The workers whose rows remain, ascending."""
        return np.setdiff1d(np.arange(n, dtype=np.int64), self.workers)

    def check(self, n: int) -> None:
        self.remaining(n)

    def max_byzantine(self, n: int) -> int:
        """Of the remaining rows."""
        n = count(self, "n", n)
        return self.remaining(n).max_byzantine(n - len(self.workers)) if self.defined_for(n) else -1

    def decide(self, statistics: Statistics) -> Decision:
        n, kept = statistics.n, self.kept(statistics.n)
        decision = decided(self.remaining(n), statistics.take(kept)).expand(n, kept)
        lost = self.rule.dissenting(statistics, decision, self.workers)
        return replace(decision, outvoted=np.union1d(decision.outvoted, lost)) if len(lost) else decision


def excluding(rule: Rule, workers: Iterable[int]) -> Rule:
    """The rule without these workers' rows; the rule itself if there are none."""
    excluded = tuple(workers)
    return Without(rule, excluded) if excluded else rule


def whole(rule: Rule) -> Rule:
    """The rule over all rows: what `excluding` was given."""
    return rule.rule if isinstance(rule, Without) else rule


def _names(workers: tuple[int, ...]) -> str:
    return f"worker{'s' * (len(workers) != 1)} {', '.join(map(str, workers))}"
