"""Robustness coefficients: how far a rule's result can lie from the honest mean, whatever f rows hold.

Legend: S the n - f honest rows, mu their mean, V = mean over S of |x - mu|^2 (so sqrt(V) is the honest
deviation), F the rule's result. A rule is (f, kappa)-robust if |F - mu|^2 <= kappa V for all rows. The bound
needs no distribution: it holds for every step.

The proofs use two facts about sets of honest rows. (1) If B is S without t rows, |mean(B) - mu|^2 <=
t / (n - f - t) V: the t rows pull the mean as far the other way, and both distances count in V. (2) In one
coordinate, with x_1 <= .. the honest values in order, the k-th smallest of all n values lies in
[x_(k - f), x_k], since f values at most are not honest.

Reference:
    Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan (2023), Fixing by mixing: the definition, the
    geometric median, NNM, and that no rule has a kappa below f / (n - 2f).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from horovod_byz.rules import (
    MDA,
    NNM,
    SMEA,
    GeometricMedian,
    Krum,
    Mean,
    MeanAroundMedian,
    Median,
    MultiKrum,
    Pipeline,
    Rule,
    TrimmedMean,
)
from horovod_byz.rules.condition import MAJORITY
from horovod_byz.theory import checks

__all__ = ["displacement_bound", "kappa", "least_kappa"]


def kappa(rule: Rule, n: int, f: int) -> float | None:
    """Returns the rule's kappa for n rows of which f are Byzantine; None where none is known.

        mean               0 for f = 0
        trimmed mean       f / (n - 2f), the least that is possible
        median             n / (n - 2f) for an even n, (n - 1) / (n - 2f + 1) for an odd one
        geometric median   4 (1 + f / (n - 2f))^2
        mean around median (sqrt(k + 1) + sqrt(k))^2,  k that of the median
        krum, multi-krum   2 (n - f) / (n - 2f - 1) (1 + 2 (n - f - 2) / (n - f - 1))
        mda                8 f^2 / (n - f)
        smea               4 f / (n - 2f)
        NNM, then a rule   8 f / (n - f) (k + 1),  k that of the rule

    A rule with a parameter f has one for that f only; multi-krum for m <= n - f.

    *Trimmed mean*: by (2) it lies between the means of the n - 2f lowest and highest honest values, by (1)
    near mu. *Median*: by (2) it is no higher than the honest value of rank n // 2 + 1, nor than the mean of
    those above, which (1) bounds. *Geometric median*: sum |z - x_i| <= sum |mu - x_i|. *NNM*: y_i - mu
    exchanges f rows at most, each for one that is no nearer to x_i, so |y_i - mu|^2 has a mean of 8 f / (n
    - f) V at most. *Krum*: the scores of honest rows have mean at most A = 2 (n - f) (n - f - 2) / (n - f -
    1) V, so the least is no larger; the selected row and its neighbours hold n - 2f - 1 honest rows whose
    squared distances to it add up to at most its score; average |x_k - mu|^2 <= 2 |x_k - x|^2 + 2 |x -
    mu|^2 over them. *Multi-Krum*: the m least scores have a mean of at most A too. *Mean around median*:
    the kept values are together no farther from the median than the honest ones. *MDA*: f rows at most are
    exchanged, each for one within two diameters, and diameter^2 <= 2 (n - f) V. *SMEA*: two sets of n - f
    rows share n - 2f, whose mean lies by (1) within sqrt(f / (n - 2f) lambda) of either mean.

    Args:
        rule: the rule, with its parameters.
        n: number of rows.
        f: number of Byzantine rows.

    Raises:
        ValueError: if n and f are not counts with f <= n.
    """
    checks.counts(n, f, "kappa")
    if not rule.defined_for(n) or not MAJORITY.holds(n, f) or getattr(rule, "f", f) != f:
        return None
    if isinstance(rule, Pipeline):
        return _of_pipeline(rule, n, f)
    if isinstance(rule, MultiKrum) and rule.m is not None and rule.m > n - f:
        return None
    known = _KAPPAS.get(type(rule))
    return None if known is None else known(n, f)


def displacement_bound(rule: Rule, n: int, f: int) -> float | None:
    """Returns sqrt(kappa): how far the result can lie from the honest mean, in honest deviations sqrt(V)."""
    value = kappa(rule, n, f)
    return None if value is None else math.sqrt(value)


def least_kappa(n: int, f: int) -> float:
    """Returns f / (n - 2f), below which no rule has a kappa; infinite without an honest majority."""
    checks.counts(n, f, "least_kappa")
    return f / (n - 2 * f) if MAJORITY.holds(n, f) else math.inf


def _mean(n: int, f: int) -> float | None:
    return 0.0 if f == 0 else None


def _median(n: int, f: int) -> float:
    return (n - 1) / (n - 2 * f + 1) if n % 2 else n / (n - 2 * f)


def _geometric_median(n: int, f: int) -> float:
    return 4 * (1 + f / (n - 2 * f)) ** 2


def _mean_around_median(n: int, f: int) -> float:
    median = _median(n, f)
    return (math.sqrt(median + 1) + math.sqrt(median)) ** 2


def _krum(n: int, f: int) -> float:
    h = n - f
    return 2 * h / (n - 2 * f - 1) * (1 + 2 * (h - 2) / (h - 1))


def _mda(n: int, f: int) -> float:
    return 8 * f**2 / (n - f)


def _smea(n: int, f: int) -> float:
    return 4 * f / (n - 2 * f)


_KAPPAS: dict[type[Any], Callable[[int, int], float | None]] = {
    Mean: _mean,
    Median: _median,
    GeometricMedian: _geometric_median,
    TrimmedMean: least_kappa,
    MeanAroundMedian: _mean_around_median,
    Krum: _krum,
    MultiKrum: _krum,
    MDA: _mda,
    SMEA: _smea,
}


def _of_pipeline(rule: Pipeline, n: int, f: int) -> float | None:
    if len(rule.chain) != 2 or rule.chain[0] != NNM(f=f) or not isinstance(last := rule.chain[1], Rule):
        return None
    inner = kappa(last, n, f)
    return None if inner is None else 8 * f / (n - f) * (inner + 1)
