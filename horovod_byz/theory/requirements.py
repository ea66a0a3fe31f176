"""The condition and the cost of each rule, for n workers of which f may be Byzantine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from horovod_byz.rules import (
    CAF,
    CGE,
    MDA,
    SMEA,
    BoundedRule,
    BrSGD,
    Bulyan,
    CenteredClipping,
    DnC,
    Draco,
    GeometricMedian,
    Krum,
    MajorityVote,
    Mean,
    MeanAroundMedian,
    Median,
    Medoid,
    MoNNA,
    MultiKrum,
    NormBoundedMean,
    Phocas,
    SignMajority,
    StatedRule,
    TrimmedMean,
    name_of,
)
from horovod_byz.theory import checks


@dataclass(frozen=True)
class Requirement:
    """The condition and the cost of a rule, both read from its class.

    Attributes:
        kind: the class.
        threat: "none", "classic" (whole rows) or "dimensional" (values anywhere).
        operations: leading-order number of operations as a function of n and d, as the papers count them.
    """

    kind: type[StatedRule]
    threat: str
    operations: Callable[[int, int], float]

    @property
    def rule(self) -> str:
        """The rule's name on the command line."""
        return name_of(self.kind)

    @property
    def condition(self) -> str:
        """The condition on n and f, as text."""
        return self.kind.facts.tolerates

    @property
    def cost(self) -> str:
        """Arithmetic for n rows of d coordinates, as text."""
        return self.kind.facts.cost

    @property
    def needs_f(self) -> bool:
        """Whether f is a parameter of the rule."""
        return issubclass(self.kind, BoundedRule)

    def minimum(self, f: int) -> float:
        """Returns the smallest n for a given f; math.inf where no n is enough."""
        return self.kind.condition.least_n(f)

    def tolerates(self, n: int, f: int) -> bool:
        """Whether n workers satisfy the condition for f."""
        return self.kind.condition.holds(n, f)

    def largest_f(self, n: int) -> int:
        """Returns the largest f that n workers allow; -1 where they are too few for the rule."""
        return self.kind.condition.largest_f(n)


def _linear(n: int, d: int) -> float:
    return float(n) * d


def _sorting(n: int, d: int) -> float:
    return n * math.log2(max(n, 2)) * d


def _pairs(n: int, d: int) -> float:
    return float(n) ** 2 * d


REQUIREMENTS: tuple[Requirement, ...] = (
    Requirement(Mean, "none", _linear),
    Requirement(Median, "dimensional", _sorting),
    Requirement(TrimmedMean, "dimensional", _sorting),
    Requirement(MeanAroundMedian, "dimensional", _sorting),
    Requirement(Phocas, "dimensional", _sorting),
    Requirement(GeometricMedian, "classic", _pairs),
    Requirement(Medoid, "none", _pairs),
    Requirement(Krum, "classic", _pairs),
    Requirement(MultiKrum, "classic", _pairs),
    Requirement(Bulyan, "classic", _pairs),
    Requirement(BrSGD, "classic", _linear),
    Requirement(SignMajority, "dimensional", _linear),
    Requirement(CGE, "classic", _linear),
    Requirement(NormBoundedMean, "none", _linear),
    Requirement(MDA, "classic", _pairs),
    Requirement(SMEA, "classic", _pairs),
    Requirement(MoNNA, "classic", _pairs),
    Requirement(CAF, "classic", _pairs),
    Requirement(DnC, "classic", _pairs),
    Requirement(CenteredClipping, "classic", _linear),
    Requirement(MajorityVote, "classic", _linear),
    Requirement(Draco, "classic", _linear),
)
"""One entry per rule with a condition of its own. By Blanchard et al. 2017 the medoid tolerates none."""


def requirement(rule: str) -> Requirement:
    """Returns the requirement of a rule.

    Raises:
        ValueError: if the rule is unknown.
    """
    for entry in REQUIREMENTS:
        if entry.rule == rule:
            return entry
    raise ValueError(
        f"unknown rule {rule!r}: choose one of {', '.join(entry.rule for entry in REQUIREMENTS)}"
    )


def operations(rule: str, n: int, d: int) -> float:
    """Returns the leading-order number of operations of a rule on (n, d) rows, without its constant factor.

    Reference:
        Xie et al. 2018, section 4.4; Li et al. 2021, section 1; Blanchard et al. 2017.
    """
    return requirement(rule).operations(n, d)


def detox_operations(n: int, d: int, k: int) -> float:
    """Returns n d + k^2 d: votes, group means, and a quadratic outer rule. Reference: DETOX, section 4."""
    return float(n) * d + float(k) ** 2 * d


def bulyan_counts(n: int, f: int) -> tuple[int, int]:
    """Returns (theta, beta) = (n - 2f, n - 4f): rows that Bulyan selects, and values it averages per column.

    Raises:
        ValueError: if Bulyan's condition fails.
    """
    checks.counts(n, f, "Bulyan")
    Bulyan(f=f).check(n)
    return n - 2 * f, n - 4 * f


def krum_neighbours(n: int, f: int) -> int:
    """Returns n - f - 2, the neighbours that a Krum score sums over.

    Raises:
        ValueError: if Krum's condition fails.
    """
    checks.counts(n, f, "Krum")
    Krum(f=f).check(n)
    return n - f - 2
