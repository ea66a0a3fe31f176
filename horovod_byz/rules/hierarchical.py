"""Hierarchical aggregation: a rule inside vote groups, and a rule across them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from horovod_byz.aggregation.decided import decided
from horovod_byz.aggregation.decision import Decision, compose
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Ints
from horovod_byz.common.checks import count
from horovod_byz.rules.base import Facts, Rule
from horovod_byz.rules.naming import as_rule


@dataclass(frozen=True)
class Hierarchical(Rule):
    """`outer` over the results of `inner` in each of k groups of rows.

    The rows are split at random into k groups; if k does not divide n, the first n mod k groups
    hold one row more.

    Args:
        inner: rule inside each group (the paper's A0), or its name, such as "krum:f=1".
        outer: rule across the groups' results (A1), or its name.
        groups: k, the number of groups, at least 1 and at most n.
        partition: "fixed" draws one partition for the whole run, "step" a new one at each step.
        seed: seed of the partition.

    Tolerates: what inner and outer tolerate on their share. Cost: O(n d) for a linear inner rule, a
    k-th of the cost of a quadratic one. Ties: as the rules. Non-finite: as the rules.

    Raises:
        ValueError: if called on fewer than k rows, or where a group is too small for `inner`, or k
            for `outer`.

    Examples:
        >>> import numpy as np
        >>> import horovod_byz as hb
        >>> hb.Hierarchical(hb.Mean(), hb.Median(), groups=3)(np.ones((6, 2)))
        array([1., 1.])

    Reference:
        Rajput, Wang, Charles, Papailiopoulos (2019), DETOX, Algorithm 2.
    """

    inner: Rule
    outer: Rule
    groups: int
    partition: Literal["fixed", "step"] = "fixed"
    seed: int = 0

    facts: ClassVar[Facts] = Facts(
        "as inner and outer on their share", "as inner on n / k rows", "as the rules", "as the rules"
    )

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        """Whether no row has a special place: in a partition that stays, rows of small groups have."""
        return self.partition == "step"

    def __post_init__(self) -> None:
        for name, rule in (("inner", self.inner), ("outer", self.outer)):
            object.__setattr__(self, name, as_rule(rule, f"{type(self).__name__}: {name}"))
        object.__setattr__(self, "groups", count(self, "groups", self.groups, least=1))
        object.__setattr__(self, "seed", count(self, "seed", self.seed))
        if self.partition not in ("fixed", "step"):
            raise ValueError(
                f"{type(self).__name__}: partition must be 'fixed' or 'step', got {self.partition!r}"
            )

    def max_byzantine(self, n: int) -> int:
        """The largest f that cannot break more groups than `outer` tolerates, in the worst case.

        To break a group takes one more Byzantine row than `inner` tolerates there, and an adversary breaks
        the cheapest groups first.
        """
        if not self.defined_for(n):
            return -1
        tolerated = [self.inner.max_byzantine(len(group)) for group in self.split(n, step=0)]
        return cheapest(tolerated, self.outer.max_byzantine(self.groups))

    def check(self, n: int) -> None:
        if self.groups > n:
            raise ValueError(f"{self!r} needs at least {self.groups} rows, got n = {n}: use groups <= {n}")
        self.inner.check(n // self.groups)  # the smallest group
        self.outer.check(self.groups)

    def split(self, n: int, step: int) -> list[Ints]:
        """The groups of rows at a step, each ascending."""
        # 0xA0 separates these draws from those of other rules with the same seed.
        key = [self.seed, 0xA0] + ([step] if self.partition == "step" else [])
        order = np.random.default_rng(key).permutation(n)
        return [np.sort(part).astype(np.int64) for part in np.array_split(order, self.groups)]

    def decide(self, statistics: Statistics) -> Decision:
        n = statistics.n
        below = [
            decided(self.inner, statistics.take(group)).expand(n, group)
            for group in self.split(n, statistics.step)
        ]
        return compose(below, decided(self.outer, statistics.virtual(below)), n)


def cheapest(tolerated: Sequence[int], lost: int) -> int:
    """The largest f that cannot break more than `lost` groups, wherever the f rows are.

    Args:
        tolerated: number of Byzantine rows that each group tolerates; one more breaks it.
        lost: number of groups that may be broken.
    """
    costs = sorted(rows + 1 for rows in tolerated)
    # The cheapest lost + 1 groups break only with all of these rows; one fewer is safe.
    return sum(costs[: lost + 1]) - 1
