"""Claims of the papers as data: the measured statistic, the expected bounds, and the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from horovod_byz.common.words import known
from horovod_byz.reproduction.evidence import LEVEL, Margin, Status, decide, interval
from horovod_byz.reproduction.grid import matches
from horovod_byz.reproduction.series import STATISTICS, Run, Series, statistic
from horovod_byz.training.runs import RunError

__all__ = ["Claim", "Verdict", "judge"]

Labels = dict[str, str | tuple[str, ...]]
Over = Literal["each", "max", "min", "mean"]


class Term(BaseModel):
    """Some series; of several, what is taken of them in each seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    where: Labels
    over: Over = "each"
    at: int | None = None


class Claim(BaseModel):
    """A claim: a statistic of some series, minus and plus that of others with the same seed, against bounds.

    With `value`, a claim about a calculated quantity instead; quantities of the same name followed by
    ", standard error" and ", trials" are its noise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    claim: str
    of: Labels = Field(default_factory=dict)
    over: Over = Field(
        default="each", description="how several series count: each must hold, or in each seed the best"
    )
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

    def misses(self, low: float, high: float) -> bool:
        """Whether every value from `low` to `high` breaks the same bound."""
        return (
            (self.least is not None and high < self.least)
            or (self.most is not None and low > self.most)
            or (self.above is not None and high <= self.above)
            or (self.below is not None and low >= self.below)
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
    """The outcome of a claim; `seeds` is the number of paired seeds, empty where nothing is random."""

    model_config = ConfigDict(frozen=True)
    claim: str
    expected: str
    measured: str
    seeds: str = ""
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
        return _calculated(claim, claim.value, values)
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
    against = [_matching(claim, term.where, shown) for term in (*claim.plus, *claim.minus)]
    for term, others in zip((*claim.plus, *claim.minus), against, strict=True):
        if term.over == "each" and len(others) > 1:
            raise RunError(f"the claim {claim.claim!r} compares with {len(others)} series: say over which")
    groups = [[part] for part in counted] if claim.over == "each" else [counted]
    margins = [_margin(claim, group, against, metric) for group in groups]
    status, reason = decide(claim, margins)
    notes = [reason] if reason else []
    if claim.only_if:
        notes.append(f"{_condition(claim)} ({', '.join(str(len(part.runs)) for part in counted)} runs)")
    counts = sorted({len(margin.values) for margin in margins})
    seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return _verdict(claim, status, _measured(margins), notes, seeds)


def _calculated(claim: Claim, name: str, values: Mapping[str, Any]) -> Verdict:
    """The verdict on a calculated quantity; if it is noisy, its interval of 95 % has to keep the bounds."""
    if name not in values:
        raise RunError(f"the claim {claim.claim!r} speaks of {name!r}, which was not calculated")
    value, error = float(values[name]), values.get(f"{name}, standard error")
    if error is None:
        return _verdict(claim, "PASS" if claim.holds(value) else "FAIL", f"{value:.6g}", [])
    trials = int(values[f"{name}, trials"])
    low, high = interval(value, float(error), trials, LEVEL)
    status: Status = "FAIL" if claim.misses(low, high) else "NOT DECIDED"
    status = "PASS" if claim.holds(low) and claim.holds(high) else status
    notes = ["within noise"] if status == "NOT DECIDED" else []
    return _verdict(claim, status, f"{value:.4g} ± {float(error):.2g}", notes, f"{trials} trials")


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


def _margin(
    claim: Claim, group: Sequence[Series], against: Sequence[Sequence[Series]], metric: str
) -> Margin:
    """The claim's number for each seed that all of its series have."""
    terms = (*claim.plus, *claim.minus)
    total = _over(claim.over, [_by_seed(claim, part, metric, claim.at) for part in group])
    for number, (term, others) in enumerate(zip(terms, against, strict=True)):
        at = claim.at if term.at is None else term.at
        values = _over(term.over, [_by_seed(claim, part, metric, at) for part in others])
        sign = 1 if number < len(claim.plus) else -1
        total = {seed: total[seed] + sign * values[seed] for seed in total if seed in values}
    every = [part for others in against for part in others]
    spared = [part.labels.get("rule", "DETOX") for part in (*group, *every) if part.spared]
    return Margin(
        np.array([total[seed] for seed in sorted(total)], np.float64),
        collapse=_collapse(claim, group, every),
        unattacked=" and ".join(dict.fromkeys(spared)),
        share=claim.statistic == "crashed" and not terms,
    )


def _by_seed(claim: Claim, series: Series, metric: str, at: int | None) -> dict[int, float]:
    options = {"at": at, "level": claim.level}
    options = {name: value for name, value in options.items() if value is not None}
    values = statistic(claim.statistic, series, metric, options)
    return {run.config.seed: float(value) for run, value in zip(series.runs, values, strict=True)}


def _over(over: Over, values: list[dict[int, float]]) -> dict[int, float]:
    """The best, worst or mean of several series in each seed that all of them have."""
    seeds = [seed for seed in values[0] if all(seed in each for each in values)]
    shared = {seed: [each[seed] for each in values] for seed in seeds}
    if over == "mean":
        return {seed: float(np.mean(each)) for seed, each in shared.items()}
    return {seed: min(each) if over == "min" else max(each) for seed, each in shared.items()}


def _collapse(claim: Claim, group: Sequence[Series], against: Sequence[Series]) -> bool:
    """Whether the claim sets training beside guessing, in every repeat."""
    ours = [run for part in group for run in part.runs]
    theirs = [run for part in against for run in part.runs]
    if claim.plus:
        return False
    if claim.statistic == "drop" and not theirs:
        start = [(run, claim.at or run.config.attack_start) for run in ours]
        return all(run.guesses and run.trained_at(step) for run, step in start)
    if claim.statistic not in ("final", "crashed"):
        return False
    if not theirs:
        return all(run.guesses for run in ours)
    return any(
        all(run.guesses for run in low) and all(run.trained for run in high)
        for low, high in ((ours, theirs), (theirs, ours))
    )


def _compare(claim: Claim, ours: Sequence[Series], theirs: Sequence[Series]) -> Verdict:
    if len(ours) != len(theirs):
        raise RunError(f"the claim {claim.claim!r} compares {len(ours)} with {len(theirs)} series")
    pairs = [
        (a, b)
        for mine, other in zip(ours, theirs, strict=True)
        for a, b in zip(mine.runs, other.runs, strict=True)
    ]
    equal = sum(_on_test(a) == _on_test(b) for a, b in pairs)
    return _verdict(
        claim, "PASS" if equal == len(pairs) else "FAIL", f"{equal} of {len(pairs)} runs equal", []
    )


def _on_test(run: Run) -> list[dict[str, Any]]:
    """The metrics without the training loss, whose mean is over the honest workers: one more, or one less."""
    return [{name: value for name, value in record.items() if name != "train_loss"} for record in run.metrics]


def _measured(margins: Sequence[Margin]) -> str:
    if len(margins) == 1:
        return str(margins[0])
    ordered = sorted(margins, key=lambda margin: margin.mean)
    return f"{ordered[0]} to {ordered[-1]} ({len(margins)} series)"


def _verdict(claim: Claim, status: Status, measured: str, notes: list[str], seeds: str = "") -> Verdict:
    if claim.outside:
        would = {"PASS": "would pass", "FAIL": "would fail"}.get(status, "would not be decided")
        status, notes = "OUTSIDE THE ASSUMPTION", [*notes, f"{claim.outside}; it {would}"]
    elif status == "FAIL" and claim.explanation:
        notes = [*notes, claim.explanation]
    return Verdict(
        claim=claim.claim,
        expected=claim.expectation,
        measured=measured,
        seeds=seeds,
        status=status,
        note="; ".join(notes),
    )
