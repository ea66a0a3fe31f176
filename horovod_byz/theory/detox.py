"""The effect of redundancy: the theorems of DETOX (Rajput, Wang, Charles, Papailiopoulos 2019).

Legend: n workers (the paper's p) in n / r redundancy groups of r, f of them Byzantine (q); a vote is
Byzantine if most of its group is (their number is q_hat); delta the allowed probability of failure, b the
batch of a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Whole
from horovod_byz.kernels.rows import Rows
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules import MajorityVote
from horovod_byz.theory import checks


def _check_groups(n: int, f: int, r: int) -> None:
    checks.counts(n, f, "DETOX")
    if r < 1 or r % 2 == 0:
        raise ValueError(f"DETOX needs an odd number of replicas r >= 1, got {r}: use {max(r, 0) + 1}")
    if n % r:
        raise ValueError(
            f"DETOX needs r to divide n, got n = {n}, r = {r}: use n = {n - n % r} or {n - n % r + r}"
        )


def _majority(r: int) -> int:
    """Number of replicas, of r, that decide a vote."""
    return MajorityVote.condition.least_uncovered_f(r)


def vote_failure(n: int, f: int, r: int) -> Fraction:
    """Returns the exact probability that most of one random redundancy group is Byzantine.

        P(X >= (r + 1) / 2),    X hypergeometric: r drawn from n, f of them Byzantine

    Raises:
        ValueError: if r is even or does not divide n, or f does not lie in 0..n.
    """
    _check_groups(n, f, r)
    hits = sum(math.comb(f, k) * math.comb(n - f, r - k) for k in range(_majority(r), r + 1))
    return Fraction(hits, math.comb(n, r))


def expected_byzantine_votes(n: int, f: int, r: int) -> float:
    """Returns E[q_hat] = (n / r) P(one group fails), exact up to the final rounding.

    Raises:
        ValueError: as `vote_failure`.

    Reference:
        Theorem 1 bounds it by O(eps^((r - 1) / 2) f / r).
    """
    return float(vote_failure(n, f, r) * n / r)


def byzantine_votes_pmf(n: int, f: int, r: int) -> tuple[float, ...]:
    """Returns P(q_hat = k) for k = 0 .. the worst case, exact up to the final rounding.

    Counts the ways to place f Byzantine workers in the groups, by the coefficient of x^f in
    C(g, k) A(x)^(g - k) B(x)^k, where A and B generate the groups with an honest and with a Byzantine
    majority.

    Raises:
        ValueError: as `vote_failure`.
    """
    _check_groups(n, f, r)
    groups, majority = n // r, _majority(r)
    honest = [math.comb(r, j) for j in range(majority)]
    byzantine = [0] * majority + [math.comb(r, j) for j in range(majority, r + 1)]
    total = math.comb(n, f)
    pmf = []
    for k in range(worst_case_byzantine_votes(n, f, r) + 1):
        placed = _multiply(_power(honest, groups - k, f), _power(byzantine, k, f), f)
        # A fraction of integers: the numerators exceed float64 long before n is large.
        count = math.comb(groups, k) * (placed[f] if f < len(placed) else 0)
        pmf.append(float(Fraction(count, total)))
    return tuple(pmf)


def simulated_votes(n: int, f: int, r: int, runs: int, seed: int = 0) -> tuple[float, ...]:
    """Returns how often f Byzantine workers won k votes, by Algorithm 1 itself: partition, rows and vote.

    The Byzantine workers are the first f and send one wrong row; the partition is drawn anew in each run.

    Args:
        n: as in the module's legend.
        f: as in the module's legend.
        r: as in the module's legend.
        runs: number of partitions.
        seed: seed of the first partition.

    Raises:
        ValueError: as `vote_failure`.
    """
    _check_groups(n, f, r)
    won = [0] * (worst_case_byzantine_votes(n, f, r) + 1)
    vote = MajorityVote()
    for run in range(runs):
        groups = Redundancy(r, seed=seed + run).groups_of(n)
        rows = np.empty((n, 1))
        for k, group in enumerate(groups):
            rows[list(group)] = k
        rows[:f] = -1.0  # one value for all liars: colluding replicas win a group, differing ones void it
        elected = vote.elect(Statistics(Whole(Rows(rows))), groups)
        won[sum(bool(decision.weights[:f].any()) for decision in elected)] += 1
    return tuple(count / max(runs, 1) for count in won)


def byzantine_votes_bound(n: int, f: int, r: int) -> float:
    """Returns C(r, (r + 1) / 2) eps^((r - 1) / 2) f / r with eps = f / n, a provable bound on E[q_hat].

    A union bound over the (r + 1) / 2 members that must be Byzantine; it is Theorem 1 with its constant.

    Raises:
        ValueError: as `vote_failure`.
    """
    _check_groups(n, f, r)
    return math.comb(r, _majority(r)) * (f / n) ** ((r - 1) // 2) * f / r


def worst_case_byzantine_votes(n: int, f: int, r: int) -> int:
    """Returns min(floor(f / ((r + 1) / 2)), n / r): the votes that f workers win if they choose groups."""
    _check_groups(n, f, r)
    return min(f // _majority(r), n // r)


def required_redundancy(f: int) -> float:
    """Returns 3 + 2 log2(f), the r of Corollary 2.

    Raises:
        ValueError: if f < 1.
    """
    return 3 + 2 * math.log2(checks.positive(f, "f"))


def smallest_redundancy(f: int) -> int:
    """Returns the smallest odd r that Corollary 2 allows."""
    r = math.ceil(required_redundancy(f) - 1e-12)
    return r if r % 2 else r + 1


def byzantine_votes_tail(delta: float) -> float:
    """Returns 1 + 2 ln(1 / delta): q_hat exceeds it with probability <= delta where Corollary 2 applies.

    The paper writes "log"; the natural logarithm is assumed.

    Raises:
        ValueError: if delta does not lie between 0 and 1.
    """
    return 1 + 2 * math.log(1 / checks.probability(delta, "delta"))


def required_vote_groups(delta: float, d: int | None = None) -> float:
    """Returns k = 128 ln(1 / delta), or 128 ln(d / delta) for the coordinate-wise outer rules.

    Args:
        delta: allowed probability of failure.
        d: number of coordinates, for the median and the trimmed mean; None for the geometric median.

    Raises:
        ValueError: if delta does not lie between 0 and 1.

    Reference:
        Theorem 3.
    """
    return 128 * math.log((d or 1) / checks.probability(delta, "delta"))


@dataclass(frozen=True)
class OracleBound:
    """Whether Theorem 3 applies to a configuration, and its bound.

    Attributes:
        applies: its hypotheses hold.
        reason: the hypothesis that fails, or "".
        vote_groups: k that the theorem asks for.
        rate: sigma-free rate sqrt(ln(1 / delta) / b) or sqrt(ln(d / delta) / b) of the error, up to a
            constant.
    """

    applies: bool
    reason: str
    vote_groups: float
    rate: float

    def __str__(self) -> str:
        if not self.applies:
            return f"not applicable: {self.reason}"
        return f"error <= c sigma {self.rate:.4g} with {math.ceil(self.vote_groups)} vote groups"


def oracle_bound(
    n: int,
    f: int,
    r: int,
    b: int,
    delta: float,
    outer: Literal["geometric-median", "median", "trimmed-mean"] = "geometric-median",
    d: int | None = None,
) -> OracleBound:
    """Checks Theorem 3 for a configuration whose inner rule is the mean.

    Args:
        n: as in the module's legend.
        f: as in the module's legend.
        r: as in the module's legend.
        b: as in the module's legend.
        delta: as in the module's legend; 0 < delta < 1/2.
        outer: the outer rule.
        d: number of coordinates; needed by the coordinate-wise outer rules.

    Raises:
        ValueError: if d is missing, delta is not in (0, 1/2), or as `vote_failure`.

    Reference:
        Theorem 3. It also asks for eps <= c with an unknown constant c, which cannot be checked.
    """
    _check_groups(n, f, r)
    if not 0 < delta < 0.5:
        raise ValueError(f"Theorem 3 needs 0 < delta < 1/2, got {delta}")
    if outer != "geometric-median" and d is None:
        raise ValueError(f"Theorem 3 for {outer} depends on the number of coordinates: pass d=")
    dimension = None if outer == "geometric-median" else d
    k, votes = required_vote_groups(delta, dimension), n // r
    reason = ""
    if f and r < required_redundancy(f) - 1e-12:
        reason = f"r = {r} is below 3 + 2 log2(f) = {required_redundancy(f):.2f}"
    if k > votes:
        reason = f"it needs {math.ceil(k)} vote groups, and there are {votes} votes"
    return OracleBound(not reason, reason, k, math.sqrt(math.log((dimension or 1) / delta) / b))


def vote_variance(n: int, r: int, b: int, variance: float = 1.0) -> float:
    """Returns variance * n / (r b) of an honest vote (mean of r b / n samples). Reference: section 4."""
    return variance * n / (r * b)


def vote_group_variance(k: int, b: int, variance: float = 1.0) -> float:
    """Returns k * variance / b, that of the mean of one of k honest vote groups. Reference: section 4."""
    return k * variance / b


def _multiply(a: list[int], b: list[int], degree: int) -> list[int]:
    product = [0] * min(len(a) + len(b) - 1, degree + 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b[: max(len(product) - i, 0)]):
            product[i + j] += x * y
    return product


def _power(base: list[int], exponent: int, degree: int) -> list[int]:
    result = [1]
    for _ in range(exponent):
        result = _multiply(result, base, degree)
    return result
