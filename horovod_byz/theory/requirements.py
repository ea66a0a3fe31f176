"""What each rule tolerates and costs, and which one to take for n workers of which f may be Byzantine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from horovod_byz.theory import checks


@dataclass(frozen=True)
class Requirement:
    """The precondition and the cost of a rule.

    Attributes:
        rule: the rule's name on the command line.
        condition: what n and f must satisfy, as text.
        minimum: smallest n for a given f.
        needs_f: whether the rule must be told f.
        threat: "none", "classic" (whole rows) or "dimensional" (values anywhere).
        cost: leading-order cost, as text.
        operations: the same as a function of n and d.
    """

    rule: str
    condition: str
    minimum: Callable[[int], int]
    needs_f: bool
    threat: str
    cost: str
    operations: Callable[[int, int], float]

    def tolerates(self, n: int, f: int) -> bool:
        """Whether n workers satisfy the condition for f."""
        return n >= self.minimum(f) and (f == 0 or self.threat != "none")

    def max_byzantine(self, n: int) -> int:
        """Return the largest f that n workers allow; 0 where it allows none."""
        return max((f for f in range(n + 1) if self.tolerates(n, f)), default=0)


def _majority(f: int) -> int:
    return 2 * f + 1


def _krum(f: int) -> int:
    return 2 * f + 3


def _bulyan(f: int) -> int:
    return 4 * f + 3


def _linear(n: int, d: int) -> float:
    return float(n) * d


def _sorting(n: int, d: int) -> float:
    return n * math.log2(max(n, 2)) * d


def _pairs(n: int, d: int) -> float:
    return float(n) ** 2 * d


REQUIREMENTS: tuple[Requirement, ...] = (
    Requirement("mean", "f = 0", lambda f: 1, False, "none", "O(n d)", _linear),
    Requirement("median", "n > 2f", _majority, False, "dimensional", "O(n log n d)", _sorting),
    Requirement("trimmed-mean", "n > 2f", _majority, True, "dimensional", "O(n log n d)", _sorting),
    Requirement("mean-around-median", "n > 2f", _majority, True, "dimensional", "O(n log n d)", _sorting),
    Requirement("geometric-median", "n > 2f", _majority, False, "classic", "O(n^2 d)", _pairs),
    Requirement("medoid", "f = 0", lambda f: 1, False, "none", "O(n^2 d)", _pairs),
    Requirement("krum", "n > 2f + 2", _krum, True, "classic", "O(n^2 d)", _pairs),
    Requirement("multi-krum", "n > 2f + 2", _krum, True, "classic", "O(n^2 d)", _pairs),
    Requirement("bulyan", "n >= 4f + 3", _bulyan, True, "classic", "O(n^2 d)", _pairs),
    Requirement("brsgd", "n > 2f", _majority, False, "classic", "O(n d)", _linear),
    Requirement("sign-majority", "n > 2f", _majority, False, "dimensional", "O(n d)", _linear),
)
"""One entry per rule. The medoid tolerates none: Blanchard et al. 2017 prove that it is not resilient."""


def requirement(rule: str) -> Requirement:
    """Return the requirement of a rule.

    Raises:
        ValueError: unknown rule.
    """
    for entry in REQUIREMENTS:
        if entry.rule == rule:
            return entry
    raise ValueError(
        f"unknown rule {rule!r}: choose one of {', '.join(entry.rule for entry in REQUIREMENTS)}"
    )


def operations(rule: str, n: int, d: int) -> float:
    """Return the leading-order number of operations of a rule on (n, d) rows, without its constant factor.

    Reference: Xie et al. 2018, section 4.4; Li et al. 2021, section 1; Blanchard et al. 2017.
    """
    return requirement(rule).operations(n, d)


def detox_operations(n: int, d: int, k: int) -> float:
    """Return n d + k^2 d: votes and group means, then a quadratic outer rule. Reference: DETOX, section 4."""
    return float(n) * d + float(k) ** 2 * d


def bulyan_counts(n: int, f: int) -> tuple[int, int]:
    """Return (theta, beta) = (n - 2f, n - 4f): rows that Bulyan selects, and values it averages per column.

    Raises:
        ValueError: n < 4f + 3.
    """
    checks.counts(n, f, "Bulyan")
    if n < _bulyan(f):
        raise ValueError(
            f"Bulyan(f={f}) needs n >= 4f + 3 = {_bulyan(f)} rows, got n = {n}: "
            f"use f <= {max((n - 3) // 4, 0)} or at least {_bulyan(f)} workers"
        )
    return n - 2 * f, n - 4 * f


def krum_neighbours(n: int, f: int) -> int:
    """Return n - f - 2, the neighbours that a Krum score sums over.

    Raises:
        ValueError: n <= 2f + 2.
    """
    checks.counts(n, f, "Krum")
    if n < _krum(f):
        raise ValueError(
            f"Krum(f={f}) needs n > 2f + 2 = {2 * f + 2} rows, got n = {n}: "
            f"use f <= {max((n - 3) // 2, 0)} or at least {_krum(f)} workers"
        )
    return n - f - 2
