"""DETOX: majority vote in redundancy groups, then hierarchical aggregation of the votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from horovod_byz.aggregation.decision import Decision, Kernel, compose
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.plan import ByValue, Stages
from horovod_byz.aggregation.source import Ints
from horovod_byz.common.checks import count
from horovod_byz.common.remembered import remembered
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules.base import Facts, Rule
from horovod_byz.rules.coordinatewise import MeanAroundMedian, Median, Phocas, SignMajority, TrimmedMean
from horovod_byz.rules.geometric import GeometricMedian
from horovod_byz.rules.hierarchical import Hierarchical, cheapest
from horovod_byz.rules.krum import Bulyan, MultiKrum
from horovod_byz.rules.mean import Mean
from horovod_byz.rules.naming import as_rule
from horovod_byz.rules.vote import MajorityVote


@dataclass(frozen=True)
class Detox(Rule):
    """Takes a vote in each redundancy group, then aggregates the votes by `inner` and `outer`.

    Args:
        redundancy: the redundancy groups.
        inner: rule inside each vote group (the paper's A0), or its name, such as "multi-krum:f=2".
        outer: rule across vote groups (A1), or its name.
        groups: number of vote groups; 1 means that `inner` sees all votes.
        partition: "fixed" or "step", as for `Hierarchical`.
        seed: seed of the partition into vote groups.
        vote: the rule of the vote.

    Tolerates: floor(f / ceil(r / 2)) Byzantine votes at worst, then as inner and outer. Cost: O(n d)
    for the vote, then as the rules on n / r votes. Ties: as the rules. Non-finite: compared as bits
    by the vote, then as the rules.

    Raises:
        ValueError: if called on rows that the redundancy cannot divide, or with too few votes for
            inner or outer.

    Examples:
        >>> import numpy as np
        >>> import horovod_byz as hb
        >>> rule = hb.Detox(hb.Redundancy(r=3), inner=hb.Mean(), outer=hb.Median(), groups=5)
        >>> rule(np.ones((45, 4)))
        array([1., 1., 1., 1.])

    Reference:
        Rajput, Wang, Charles, Papailiopoulos (2019), DETOX, Algorithms 1 and 2.
    """

    redundancy: Redundancy
    inner: Rule
    outer: Rule
    groups: int = 1
    partition: Literal["fixed", "step"] = "fixed"
    seed: int = 0
    vote: MajorityVote = field(default_factory=MajorityVote)

    facts: ClassVar[Facts] = Facts(
        "floor(f / ceil(r / 2)) votes, then as inner and outer",
        "O(n d), then as the rules on n / r votes",
        "as the rules",
        "compared as bits, then as the rules",
    )

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        """Whether no row has a special place: in a partition that stays, rows of small groups have."""
        return self.partition == "step"

    def __post_init__(self) -> None:
        if not isinstance(self.redundancy, Redundancy):
            raise TypeError(f"Detox: redundancy must be hb.Redundancy(r=...), got {self.redundancy!r}")
        if not isinstance(self.vote, MajorityVote):
            raise TypeError(f"Detox: vote must be hb.MajorityVote(...), got {self.vote!r}")
        for name, rule in (("inner", self.inner), ("outer", self.outer)):
            object.__setattr__(self, name, as_rule(rule, f"Detox: {name}"))
        object.__setattr__(self, "groups", count(self, "groups", self.groups, least=1))
        self.hierarchy  # noqa: B018  (checks partition and seed)

    @property
    def hierarchy(self) -> Hierarchical:
        """The rule over the votes."""
        return Hierarchical(self.inner, self.outer, self.groups, self.partition, self.seed)

    def max_byzantine(self, n: int) -> int:
        """The largest f that cannot win or void more votes than the rules over the votes tolerate.

        A group without a majority elects zero, which counts as a Byzantine vote.
        """
        if not self.defined_for(n):
            return -1
        tolerated = [self.vote.max_byzantine(len(group)) for group in self.redundancy.groups_of(n)]
        return cheapest(tolerated, self.hierarchy.max_byzantine(len(tolerated)))

    def check(self, n: int) -> None:
        _check(self, n)

    def decide(self, statistics: Statistics) -> Decision:
        votes = self.vote.elect(statistics, self.redundancy.groups_of(statistics.n))
        return compose(votes, self.hierarchy.decide(statistics.virtual(votes)), statistics.n)

    def without(self, workers: Sequence[int], n: int) -> Detox:
        return replace(self, redundancy=self.redundancy.without(workers, n))

    def dissenting(self, statistics: Statistics, decision: Decision, workers: Sequence[int]) -> Ints:
        groups = self.redundancy.groups_of(statistics.n)
        return self.vote.dissent(statistics, groups, decision, workers)

    def stages(self, n: int, step: int) -> Stages | None:
        return _stages(self, n, step if self.partition == "step" else 0)

    @classmethod
    def preset(cls, name: str, redundancy: Redundancy, n: int, f: int) -> Detox:
        """A pairing of the paper; f of its inner rule is the worst case after the vote.

        Args:
            name: "median", "multi-krum", "bulyan" or "sign" (the experiments' pairings: Mean > Median
                in 5 vote groups, MultiKrum > Mean in 2, Bulyan > Mean in 1, sign majority twice), or
                "theory-geometric-median", "theory-median", "theory-trimmed-mean" (Theorem 3's).
            redundancy: the redundancy groups.
            n: number of workers.
            f: number of Byzantine workers to survive.
        """
        f = count("Detox.preset", "f", f)
        votes = len(redundancy.groups_of(n))
        lost = worst_case_votes(f, redundancy.r)
        fives = max(votes // 3, 1)  # the paper's 15 votes in 5 vote groups
        if name == "median":
            return cls(redundancy, Mean(), Median(), groups=fives)
        if name == "multi-krum":
            # Two as in the public code, if each group keeps Krum's condition.
            groups = 2 if MultiKrum.condition.holds(votes // 2, lost) else 1
            return cls(redundancy, MultiKrum(f=lost), Mean(), groups=groups)
        if name == "bulyan":
            return cls(redundancy, Bulyan(f=lost), Mean(), groups=1)
        if name == "sign":
            return cls(redundancy, SignMajority(), SignMajority(), groups=fives)
        if name == "theory-geometric-median":
            return cls(redundancy, Mean(), GeometricMedian(), groups=fives)
        if name == "theory-median":
            return cls(redundancy, Mean(), Median(), groups=fives)
        if name == "theory-trimmed-mean":
            return cls(redundancy, Mean(), TrimmedMean(f=fives // 4), groups=fives)
        raise ValueError(f"unknown DETOX preset {name!r}: use one of {', '.join(PRESETS)}")


# At every step the same; a class that is derived from Detox has methods of its own.
@remembered(64)
def _check(rule: Detox, n: int) -> None:
    votes = len(rule.redundancy.groups_of(n))
    try:
        rule.hierarchy.check(votes)
    except ValueError as error:
        raise ValueError(
            f"{n} workers in redundancy groups of {rule.redundancy.r} give {votes} votes: {error}"
        ) from None


@remembered(16)
def _stages(rule: Detox, n: int, step: int) -> Stages | None:
    inner, outer = _by_value(rule.inner), _by_value(rule.outer)
    if not rule.vote.exact_and_whole or inner is None or outer is None:
        return None
    groups = rule.redundancy.groups_of(n)
    parts = tuple(tuple(part.tolist()) for part in rule.hierarchy.split(len(groups), step))
    return Stages(groups, inner, parts, outer, rule.vote.lazy)


# By exact type: a class derived from one of these may decide differently.
_KERNELS: dict[type[Rule], Kernel | Literal["mean"]] = {
    Mean: "mean",
    Median: "median",
    SignMajority: "sign_majority",
    TrimmedMean: "trimmed_mean",
    MeanAroundMedian: "mean_around_median",
    Phocas: "phocas",
}


def _by_value(rule: Rule) -> ByValue | None:
    kernel = _KERNELS.get(type(rule))
    return None if kernel is None else ByValue(kernel, getattr(rule, "f", 0))


PRESETS = (
    "median",
    "multi-krum",
    "bulyan",
    "sign",
    "theory-geometric-median",
    "theory-median",
    "theory-trimmed-mean",
)


def worst_case_votes(f: int, r: int) -> int:
    """The largest number of votes that f Byzantine workers can win or void: floor(f / ceil(r / 2))."""
    return f // MajorityVote.condition.least_uncovered_f(r)
