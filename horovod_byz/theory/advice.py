"""Recommends an aggregation rule for n workers of which f may be Byzantine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules import Detox, Draco, MajorityVote, name_of
from horovod_byz.rules.condition import MAJORITY
from horovod_byz.theory import checks
from horovod_byz.theory.requirements import REQUIREMENTS, Requirement, requirement
from horovod_byz.theory.resilience import etas


@dataclass(frozen=True)
class Option:
    """One rule, judged for given n and f.

    Attributes:
        rule: the rule's name on the command line.
        tolerates: whether its precondition holds.
        condition: the precondition.
        largest_f: the largest f that n workers allow, -1 where they are too few for the rule.
        threat: "none", "classic" or "dimensional".
        cost: leading-order cost.
        eta: its resilience constant for (n, f), None where no theorem gives one; smaller is better.
    """

    rule: str
    tolerates: bool
    condition: str
    largest_f: int
    threat: str
    cost: str
    eta: float | None


@dataclass(frozen=True)
class Recommendation:
    """The recommended rule, the reason, and the assessment of all rules.

    Attributes:
        rule: the recommended rule, None where no rule can help.
        reason: one sentence.
        options: the rules that need no redundancy, and the vote, in the order of `requirements.REQUIREMENTS`.
        redundant: DETOX's pairings and DRACO, which take r times the compute.
    """

    rule: str | None
    reason: str
    options: tuple[Option, ...]
    redundant: tuple[Option, ...] = ()


def recommend(n: int, f: int, r: int = 3) -> Recommendation:
    """Returns the recommended rule for n workers, f of them Byzantine, and an assessment of every rule.

    A choice, not a theorem: the mean where nothing can go wrong; the mean around the median where fewer than
    half are Byzantine, since it tolerates single wrong values as well as whole rows, uses n - f values per
    column, costs no more than the median, and came out best in Xie et al. 2018. Redundancy is set beside it,
    not recommended: whether r times the compute is worth it depends on the gradients.

    Args:
        n: workers.
        f: Byzantine workers among them.
        r: replicas per batch, for DETOX.

    Raises:
        ValueError: if n and f are not counts with f <= n.
    """
    checks.counts(n, f, "recommend")
    options = tuple(_option(entry, n, f) for entry in REQUIREMENTS if entry.kind is not Draco)
    rule, reason = _choose(n, f)
    return Recommendation(rule, reason, options, (*_detox(n, f, r), _draco(n, f)))


def _option(entry: Requirement, n: int, f: int) -> Option:
    eta = etas(n, f).get(entry.rule)
    most = entry.largest_f(n)
    return Option(entry.rule, entry.tolerates(n, f), entry.condition, most, entry.threat, entry.cost, eta)


def _detox(n: int, f: int, r: int) -> list[Option]:
    """The pairings of DETOX's experiments; none where n workers do not make a group of r."""
    if r < 2 or n < r:
        return []
    pairings = (
        ("median", "dimensional votes", "O(n d)"),
        ("multi-krum", "classic", "O(n d + (n / r)^2 d)"),
        ("bulyan", "classic", "O(n d + (n / r)^2 d)"),
    )
    redundancy = Redundancy(r)
    turned = MajorityVote.condition.least_uncovered_f(r)
    options = []
    for name, threat, cost in pairings:
        tolerated = [k for k in range(n + 1) if _tolerates(name, redundancy, n, k)]
        condition = f"floor(f / {turned}) of {n // r} votes, in the worst case"
        most = max(tolerated, default=-1)
        full = f"{cost}, {r} x compute"
        label = f"detox-{name} (r = {r})"
        options.append(Option(label, f in tolerated, condition, most, threat, full, None))
    return options


def _tolerates(name: str, redundancy: Redundancy, n: int, f: int) -> bool:
    return Detox.preset(name, redundancy, n, f).max_byzantine(n) >= f


def _draco(n: int, f: int) -> Option:
    option = _option(requirement(name_of(Draco)), n, f)
    return replace(option, cost=f"{option.cost}, {Draco(f=f).r} x compute")


def _choose(n: int, f: int) -> tuple[str | None, str]:
    if f == 0:
        return "mean", "no worker is assumed to be Byzantine, and the mean has the least variance"
    if not MAJORITY.holds(n, f):
        return None, (
            f"no rule helps: {f} of {n} Byzantine workers are not a minority; "
            f"use at least {MAJORITY.least_n(f)} workers, or f <= {MAJORITY.largest_f(n)}"
        )
    return "mean-around-median", (
        f"it tolerates {f} Byzantine values in every column ({MAJORITY}), whole rows or single values, "
        f"and averages the {n - f} values nearest the median"
    )
