"""Claims of the papers as data: the measured statistic, the expected bounds, and the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from horovod_byz.common.words import known
from horovod_byz.reproduction.grid import matches
from horovod_byz.reproduction.series import STATISTICS, Run, Series, statistic
from horovod_byz.training.runs import RunError

__all__ = ["Claim", "Verdict", "judge"]

Status = Literal["PASS", "FAIL", "OUTSIDE THE ASSUMPTION"]
Labels = dict[str, str | tuple[str, ...]]
Over = Literal["each", "max", "min", "mean"]


class Term(BaseModel):
    """Some series, and the statistic that reduces them to one number."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    where: Labels
    over: Over = "each"
    at: int | None = None


class Claim(BaseModel):
    """A claim: a statistic of some series, minus and plus that of others, against bounds.

    With `value`, a claim about a calculated quantity instead.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    claim: str
    of: Labels = Field(default_factory=dict)
    over: Over = Field(default="each", description="how several series count: each must hold, or the best")
    minus: tuple[Term, ...] = ()
    plus: tuple[Term, ...] = ()
    statistic: str = "final"
    metric: str | None = Field(default=None, description="by default that of the artefact")
    at: int | None = None
    level: float | None = None
    value: str | None = Field(default=None, description="a calculated quantity instead of `of`")
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    expected: str = ""
    outside: str = Field(default="", description="why the paper's own assumption does not hold here")
    only_if: dict[str, float] = Field(
        default_factory=dict, description="notes of a run that must exceed a number for it to count"
    )
    same_metrics_as: Labels = Field(default_factory=dict)
    explanation: str = Field(default="", description="why it fails, where it does")

    @model_validator(mode="after")
    def _bounded(self) -> Claim:
        known(self.statistic, STATISTICS, "statistic")
        bounds = (self.least, self.most, self.above, self.below)
        if all(bound is None for bound in bounds) and not self.same_metrics_as:
            raise ValueError(f"the claim {self.claim!r} has no bound: give least, most, above or below")
        return self

    def holds(self, value: float) -> bool:
        """Whether a measured value keeps the bounds."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    @property
    def expectation(self) -> str:
        """The bounds in words."""
        if self.expected:
            return self.expected
        if self.same_metrics_as:
            return "equal, bit for bit"
        if self.least is not None and self.least == self.most:
            return f"{self.least:g}"
        signs = (
            (self.least, "at least"),
            (self.most, "at most"),
            (self.above, "over"),
            (self.below, "below"),
        )
        return ", ".join(f"{word} {bound:g}" for bound, word in signs if bound is not None)


class Verdict(BaseModel):
    """The outcome of a claim."""

    model_config = ConfigDict(frozen=True)
    claim: str
    expected: str
    measured: str
    status: Status
    note: str


def judge(claim: Claim, shown: Sequence[Series], values: Mapping[str, Any], metric: str) -> Verdict:
    """Measures a claim and compares it with its bounds.

    Args:
        claim: the claim.
        shown: the series of the artefact, its references among them.
        values: calculated quantities.
        metric: the artefact's metric.

    Raises:
        RunError: if the claim speaks of series or quantities that the artefact does not have.
    """
    metric = claim.metric or metric
    if claim.value is not None:
        if claim.value not in values:
            raise RunError(f"the claim {claim.claim!r} speaks of {claim.value!r}, which was not calculated")
        return _verdict(claim, [float(values[claim.value])], 6)
    counted = [_counted(claim, part) for part in _matching(claim, claim.of, shown)]
    counted = [part for part in counted if part.runs]
    if not counted:
        return Verdict(
            claim=claim.claim,
            expected=claim.expectation,
            measured="no run meets the condition",
            status="OUTSIDE THE ASSUMPTION",
            note=claim.outside or _condition(claim),
        )
    if claim.same_metrics_as:
        return _compare(claim, counted, _matching(claim, claim.same_metrics_as, shown))
    base = sum(_term(claim, term, shown, metric) for term in claim.plus)
    base -= sum(_term(claim, term, shown, metric) for term in claim.minus)
    measured = [_mean(claim, part, metric, claim.at) + base for part in counted]
    return _verdict(claim, _over(claim.over, measured), 1, _runs_counted(claim, counted))


def _matching(claim: Claim, where: Labels, shown: Sequence[Series]) -> list[Series]:
    chosen = [part for part in shown if matches(part.labels, where)]
    if not chosen:
        raise RunError(
            f"the claim {claim.claim!r} speaks of {where}, which is not among the runs it is shown"
        )
    return chosen


def _counted(claim: Claim, series: Series) -> Series:
    """The repeats that meet the claim's condition."""

    def meets(run: Run) -> bool:
        notes = run.record.get("notes", {})
        return all(notes.get(name, 0.0) > least for name, least in claim.only_if.items())

    return Series(series.labels, tuple(run for run in series.runs if meets(run)))


def _condition(claim: Claim) -> str:
    return "counts only where " + ", ".join(f"{name} > {least:g}" for name, least in claim.only_if.items())


def _runs_counted(claim: Claim, counted: Sequence[Series]) -> str:
    if not claim.only_if:
        return ""
    return f"{_condition(claim)} ({', '.join(str(len(part.runs)) for part in counted)} runs)"


def _mean(claim: Claim, series: Series, metric: str, at: int | None) -> float:
    options = {"at": at, "level": claim.level}
    options = {name: value for name, value in options.items() if value is not None}
    return float(np.mean(statistic(claim.statistic, series, metric, options)))


def _term(claim: Claim, term: Term, shown: Sequence[Series], metric: str) -> float:
    at = claim.at if term.at is None else term.at
    values = [_mean(claim, part, metric, at) for part in _matching(claim, term.where, shown)]
    if term.over == "each" and len(values) > 1:
        raise RunError(f"the claim {claim.claim!r} compares with {len(values)} series: say over which")
    return _over(term.over, values)[0]


def _over(over: Over, values: list[float]) -> list[float]:
    if over == "each":
        return values
    if over == "mean":
        return [sum(values) / len(values)]
    return [max(values) if over == "max" else min(values)]


def _compare(claim: Claim, ours: Sequence[Series], theirs: Sequence[Series]) -> Verdict:
    if len(ours) != len(theirs):
        raise RunError(f"the claim {claim.claim!r} compares {len(ours)} with {len(theirs)} series")
    pairs = [
        (a, b)
        for mine, other in zip(ours, theirs, strict=True)
        for a, b in zip(mine.runs, other.runs, strict=True)
    ]
    equal = sum(_on_test(a) == _on_test(b) for a, b in pairs)
    return _status(claim, equal == len(pairs), f"{equal} of {len(pairs)} runs equal")


def _on_test(run: Run) -> list[dict[str, Any]]:
    """The metrics without the training loss, whose mean is over the honest workers: one more, or one less."""
    return [{name: value for name, value in record.items() if name != "train_loss"} for record in run.metrics]


def _verdict(claim: Claim, measured: list[float], digits: int, note: str = "") -> Verdict:
    shown = [f"{value:.{digits}f}" if digits == 1 else f"{value:.{digits}g}" for value in measured]
    if len(shown) > 1:
        low, high = int(np.argmin(measured)), int(np.argmax(measured))
        shown = [f"{shown[low]} to {shown[high]} ({len(measured)} series)"]
    return _status(claim, all(map(claim.holds, measured)), shown[0], note)


def _status(claim: Claim, good: bool, measured: str, note: str = "") -> Verdict:
    status: Status = "PASS" if good else "FAIL"
    notes = [note] if note else []
    if claim.outside:
        status = "OUTSIDE THE ASSUMPTION"
        notes.append(f"{claim.outside}; it {'would pass' if good else 'would fail'}")
    elif not good and claim.explanation:
        notes.append(claim.explanation)
    return Verdict(
        claim=claim.claim,
        expected=claim.expectation,
        measured=measured,
        status=status,
        note="; ".join(notes),
    )
