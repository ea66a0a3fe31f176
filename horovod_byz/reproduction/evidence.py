"""Whether repeats decide a claim: its margin with standard error, paired by seed, against its bounds.

The rule was fixed before the runs that it judges; docs/reproduction.md states it in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from horovod_byz.theory.normal import binomial_tail, quantile

__all__ = ["LEVEL", "SEEDS", "Bounds", "Margin", "Status", "decide", "interval", "proportion", "student"]

Status = Literal["PASS", "FAIL", "NOT DECIDED", "OUTSIDE THE ASSUMPTION"]
SEEDS = 5
"""Fewer paired seeds than these never decide a claim about a difference."""
LEVEL = 0.05
"""One minus the confidence of the two-sided interval that has to lie within a claim's bounds, or beyond."""


class Bounds(Protocol):
    """What a claim expects."""

    def holds(self, value: float) -> bool:
        """Whether a value keeps the bounds."""

    def misses(self, low: float, high: float) -> bool:
        """Whether every value from `low` to `high` breaks the same bound."""


@dataclass(frozen=True, eq=False)
class Margin:
    """What a claim compares: a number per seed.

    Attributes:
        values: one per paired seed, `(n,)`.
        collapse: in every repeat one side ends at guessing and the other one has trained. That is no
            comparison of close numbers, and it needs no error bar.
        unattacked: DETOX series that might have lost votes and lost none in any repeat; empty without any.
        share: the values are 0 or 100, and the claim is about how many of the repeats have which.
    """

    values: NDArray[np.float64]
    collapse: bool = False
    unattacked: str = ""
    share: bool = False

    @property
    def mean(self) -> float:
        """The mean over the seeds; NaN without any."""
        return float(np.mean(self.values)) if len(self.values) else float("nan")

    @property
    def error(self) -> float:
        """The standard error of the mean; NaN where it is not known."""
        if len(self.values) < 2 or not np.isfinite(self.values).all():
            return float("nan")
        return float(np.std(self.values, ddof=1) / np.sqrt(len(self.values)))

    def __str__(self) -> str:
        if not len(self.values):
            return "no seed in common"
        error = "" if np.isnan(self.error) or self.share else f" ± {self.error:.1f}"
        return f"{self.mean:.1f}{error}"


def decide(bounds: Bounds, margins: Sequence[Margin]) -> tuple[Status, str]:
    """The outcome of a claim that each margin has to keep, and why it is not decided.

    It passes if every margin does, and fails if some margin fails. For failing, a margin's interval is
    widened for the number of margins (Bonferroni), since the worst of many lies far out by chance; that all
    pass needs no correction.
    """
    outcomes = [_outcome(bounds, margin, len(margins)) for margin in margins]
    statuses = [status for status, _ in outcomes]
    if "FAIL" in statuses:
        return "FAIL", ""
    undecided = [reason for status, reason in outcomes if status != "PASS"]
    return ("NOT DECIDED", "; ".join(dict.fromkeys(undecided))) if undecided else ("PASS", "")


def _outcome(bounds: Bounds, margin: Margin, count: int) -> tuple[Status, str]:
    if margin.unattacked:
        return "NOT DECIDED", f"{margin.unattacked} lost no vote in any run: nothing attacked it"
    values = margin.values
    if not len(values):
        return "NOT DECIDED", "the series have no seed in common"
    if margin.share and _refuted(bounds, values):
        return "FAIL", ""
    if len(values) < SEEDS:
        return _of_few(bounds, margin)
    if margin.share:
        return _of_share(bounds, values)
    if not np.isfinite(values).all():
        # A level that was never reached: no mean. That five of five keep a bound has chance 1/32 at most.
        good = [bounds.holds(value) for value in values]
        return ("PASS", "") if all(good) else ("NOT DECIDED", "a level is never reached in some repeats")
    if bounds.misses(*interval(margin.mean, margin.error, len(values), LEVEL / count)):
        return "FAIL", ""
    inside = all(map(bounds.holds, interval(margin.mean, margin.error, len(values), LEVEL)))
    return ("PASS", "") if inside else ("NOT DECIDED", "within noise")


def _of_few(bounds: Bounds, margin: Margin) -> tuple[Status, str]:
    good = [bounds.holds(value) for value in margin.values]
    if margin.collapse and len(set(good)) == 1:
        return ("PASS" if good[0] else "FAIL"), ""
    number = f"{len(good)} seed{'' if len(good) == 1 else 's'}"
    return "NOT DECIDED", f"{number} of the {SEEDS} that a difference needs"


def _refuted(bounds: Bounds, values: NDArray[np.float64]) -> bool:
    """Whether a repeat contradicts a claim of "always" or "never"."""
    return _absolute(bounds) and not all(bounds.holds(value) for value in values)


def _absolute(bounds: Bounds) -> bool:
    """Whether a claim about a percentage of repeats says "always" or "never"."""
    always = bounds.holds(100.0) and not bounds.holds(100.0 - 1e-9)
    return always or (bounds.holds(0.0) and not bounds.holds(1e-9))


def _of_share(bounds: Bounds, values: NDArray[np.float64]) -> tuple[Status, str]:
    if _absolute(bounds):
        return "PASS", ""  # no repeat contradicts it
    low, high = proportion(int(np.count_nonzero(values)), len(values), LEVEL)
    if bounds.misses(100 * low, 100 * high):
        return "FAIL", ""
    inside = bounds.holds(100 * low) and bounds.holds(100 * high)
    return ("PASS", "") if inside else ("NOT DECIDED", "within noise")


def interval(mean: float, error: float, n: int, level: float) -> tuple[float, float]:
    """Student's two-sided interval of a mean over n values with that standard error."""
    width = student(1 - level / 2, n - 1) * error
    return mean - width, mean + width


def student(p: float, freedom: int) -> float:
    """The quantile p of Student's t, to 0.5 % from 4 degrees of freedom on.

    Reference: Abramowitz and Stegun (1964), 26.7.5.
    """
    z = quantile(p)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / freedom**power for power, term in enumerate(terms)))


def proportion(successes: int, n: int, level: float) -> tuple[float, float]:
    """Clopper's and Pearson's exact two-sided interval of a probability, from its successes in n trials."""

    def root(wanted: float, least: int) -> float:
        """The p at which `least` successes or more have the probability `wanted`."""
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if binomial_tail(n, middle, least - 1) < wanted else (low, middle)
        return low

    low = 0.0 if successes == 0 else root(level / 2, successes)
    high = 1.0 if successes == n else root(1 - level / 2, successes + 1)
    return low, high
