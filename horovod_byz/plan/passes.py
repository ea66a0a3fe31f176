"""Which passes a rule makes over the rows, and how large its statistics are: found by running it on few rows.

Any rule can be asked, also a user's own. A rule that sees all rows makes equally many passes for every n, and
the size of each statistic is a polynomial of at most second degree in n (a number per row, or per pair of
rows), which three small runs determine and a fourth confirms. Other rules, such as pipelines, are run as they
are: their groups keep statistics small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from horovod_byz.aggregation.decided import decided
from horovod_byz.aggregation.decision import Coordinatewise, Decision, Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.shard import Shard
from horovod_byz.aggregation.source import Source, Whole
from horovod_byz.aggregation.statistic import Statistic
from horovod_byz.kernels.rows import Rows
from horovod_byz.rules.base import Rule

__all__ = ["Pass", "passes"]

_D = 64
# Up to so many rows a rule is run as it is.
_FEW = 100
# The statistics by the beginning of their names: which timings of the kernels they cost.
_COST = {
    "nonfinite": ("read floor",),
    "squared_norms": ("read floor",),
    "distances to": ("read floor", "read floor"),
    "distances": ("squared distances",),
    "gram": ("squared distances", "median"),
    "brsgd": ("BrSGD statistics",),
    "replicas": ("vote",),
    "closeness": ("squared distances",),
}
_COMBINED = {
    "median": "median",
    "trimmed_mean": "trimmed mean",
    "mean_around_median": "mean around median",
    "phocas": "mean around median",
    "sign_majority": "sign majority",
}


@dataclass(frozen=True)
class Pass:
    """One pass over all coordinates, which ends with an exchange of its statistic where they are sharded.

    Attributes:
        kernels: names of the timings that it costs, in `results/bench/results.json`.
        rows: how many rows it reads.
        entries: numbers of 8 bytes in its statistic, per node of the summation tree.
    """

    kernels: tuple[str, ...]
    rows: int
    entries: int


class _Recorded(Statistics):
    """Statistics that note each measurement."""

    def __init__(self, source: Source, shard: Shard, log: list[Pass], *, excluded: int = 0) -> None:
        super().__init__(source, shard, excluded=excluded)
        self.log = log

    def over(self, source: Source, excluded: int = 0) -> Statistics:
        part = _Recorded(source, self.shard, self.log, excluded=excluded)
        part.unit = self.unit
        return part

    def measured(self, wanted: Statistic) -> Any:
        total = super().measured(wanted)
        kernels = next(cost for begin, cost in _COST.items() if wanted.name.startswith(begin))
        if not isinstance(self.source, Whole):
            kernels = ("mean", *kernels)  # virtual rows are computed as they are read
        self.log.append(Pass(kernels, self.n, total.size))
        return total


def passes(rule: Rule, n: int) -> list[Pass]:
    """The passes of a rule over n rows, verdicts included.

    Raises:
        ValueError: if the rule is not defined for n rows.
    """
    rule.check(n)
    if n <= _FEW or any(isinstance(getattr(rule, field.name), Rule) for field in fields(rule)):
        return _run(rule, n)
    small = replace(rule, f=1) if getattr(rule, "f", 0) else rule  # type: ignore[call-arg]
    sizes = [size for size in range(6, _FEW) if small.defined_for(size)]
    sizes = [*sizes[:3], *sizes[-1:]]
    if len(sizes) < 4:
        return _run(rule, n)
    *runs, check = [_run(small, size) for size in sizes]
    last = sizes.pop()
    # Groups of its own make a rule's statistics uneven, as Draco's do: it is run as it is.
    if any(len(run) != len(check) for run in runs) or _larger(last, sizes, runs) != check:
        return _run(rule, n)
    return _larger(n, sizes, runs)


def _larger(n: int, sizes: Sequence[int], runs: Sequence[Sequence[Pass]]) -> list[Pass]:
    return [_at(n, sizes, parts) for parts in zip(*runs, strict=True)]


def _run(rule: Rule, n: int) -> list[Pass]:
    rows = np.random.default_rng(0).standard_normal((n, _D)).astype(np.float32)
    _make_replicas_equal(rule, rows)
    log: list[Pass] = []
    statistics = _Recorded(Whole(Rows(rows)), Shard(_D), log)
    decision, out = decided(rule, statistics), np.empty(_D, np.float32)
    squares = statistics.result(decision, out)
    log[-1] = replace(log[-1], kernels=(*_combining(decision), "read floor"))
    statistics.lengths_to(out, squares)
    _ = statistics.nonfinite
    return log


def _make_replicas_equal(rule: Rule, rows: Any) -> None:
    redundancy = getattr(rule, "redundancy", None)
    if redundancy is not None:
        for group in redundancy.groups_of(len(rows)):
            rows[list(group)] = rows[group[0]]


def _combining(decision: Decision) -> Iterable[str]:
    if isinstance(decision, Coordinatewise):
        return (_COMBINED[decision.kernel],)
    return ("mean",) if isinstance(decision, Weighted) else ("median",)


def _at(n: int, sizes: Sequence[int], parts: Sequence[Pass]) -> Pass:
    """The pass at n rows, from its runs on three smaller numbers."""
    rows = np.polyfit(sizes[::2], [parts[0].rows, parts[2].rows], 1)
    entries = np.polyfit(sizes, [part.entries for part in parts], 2)
    return Pass(parts[-1].kernels, round(float(np.polyval(rows, n))), round(float(np.polyval(entries, n))))
