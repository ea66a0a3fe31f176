"""Runs a rule over rows: measure > decide > combine. Never imports Horovod."""

from __future__ import annotations

import functools
import operator
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation import rows as reading
from horovod_byz.aggregation.decided import decided
from horovod_byz.aggregation.decision import Decision
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.plan import Rule, plan
from horovod_byz.aggregation.shard import Shard
from horovod_byz.aggregation.source import Floats, Ints, Source
from horovod_byz.aggregation.verdict import Table, Verdict, judge
from horovod_byz.host import machine


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of one aggregation beside the value, which is in `out`; equal on all ranks.

    Attributes:
        weights: weight of each row in the result, (n,) float64; NaN where a coordinate-wise rule took some of
            its values, which nobody counts.
        nonfinite: how many NaN or infinite values each row held, (n,) int64; zeros if no
            distances were measured.
        outvoted: indices of the rows that lost a vote in their redundancy group.
        distances: L2 distance of each row to the result, (n,) float64.
        norms: L2 norm of each row, (n,) float64.
        norm: L2 norm of the result.
        symmetric: whether the rule gives no row a special place; see `is_symmetric`.
    """

    weights: Floats
    nonfinite: Ints
    outvoted: Ints
    distances: Floats
    norms: Floats
    norm: float
    symmetric: bool

    @functools.cached_property
    def table(self) -> Table:
        """The verdicts in columns."""
        numbers = (self.weights, self.nonfinite, self.distances, self.outvoted, self.norms, self.norm)
        return judge(*numbers, self.symmetric)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.weights)

    @property
    def proven(self) -> bool:
        """Whether some row is proof against its worker; reads no more than it must, at each step."""
        return bool(len(self.outvoted)) or bool(np.logical_or.reduce(self.nonfinite))

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One verdict per row, in row order."""
        return self.table.verdicts


def run(rule: Rule, rows: Source, out: npt.NDArray[Any], shard: Shard | None = None) -> Outcome:
    """Aggregates the coordinates of a shard into `out`.

    Args:
        rule: the aggregation rule.
        rows: n rows, float32 or float64, over the shard's coordinates.
        out: (rows.d,) writable, of the rows' dtype.
        shard: which coordinates those are; None means that the rows hold all, at step 0.

    Raises:
        ValueError: if the rule does not hold for n rows.
    """
    statistics = Statistics(rows, shard)
    decision, squares = _voted(rule, statistics, out, lazy=False), None
    if decision is None:
        decision = decided(rule, statistics)
        squares = statistics.result(decision, out)
    # Before `nonfinite`: a finite distance shows that the row is finite, which saves a pass over the rows.
    far, norms, norm = statistics.lengths_to(out, squares)
    bad = statistics.nonfinite
    return Outcome(decision.weights, bad, decision.outvoted, far, norms, norm, is_symmetric(rule))


def is_symmetric(rule: Rule) -> bool:
    """Whether a rule's class itself states that rows which change places leave its result the same.

    A subclass may decide otherwise, so that it has to state it anew.
    """
    return "symmetric" in vars(type(rule)) and bool(getattr(rule, "symmetric", False))


def _voted(rule: Rule, statistics: Statistics, out: npt.NDArray[Any], *, lazy: bool) -> Decision | None:
    """Decides and combines in one pass; None if the rule has no such plan for these rows, or a vote fails."""
    source, shard = statistics.source, statistics.shard
    rule.check(source.n)
    # A fused vote compares whole rows, so it needs every coordinate in one block of memory.
    fused = plan(rule, source.n, shard.step) if shard.is_whole and source.d <= source.at_once else None
    return None if fused is None else fused.run(source.block(0, source.d), out, shard.threads, lazy=lazy)


def value(rows: Any, rule: Rule, *, step: int = 0, threads: int | None = None) -> Any:
    """The aggregate alone, without the passes over all rows that the verdicts need."""
    source, restore = reading.read(rows)
    out = np.empty(source.d, source.dtype)
    into(out, source, rule, whole(source, step, threads))
    return restore(out)


def into(out: npt.NDArray[Any], rows: Source, rule: Rule, shard: Shard | None = None) -> Decision:
    """Writes the aggregate alone to `out`, (d,) of the rows' dtype; like `value`, for rows of the kernels.

    The shard has one range.
    """
    statistics = Statistics(rows, shard)
    decision = _voted(rule, statistics, out, lazy=True)
    if decision is None:
        decision = decided(rule, statistics)
        ((offset, _),) = statistics.shard.columns.ranges
        rows.combine(decision, out, statistics.shard.threads, offset)
    return decision


def whole(
    source: Source,
    step: int,
    threads: int | None,
    segments: Sequence[int] | None = None,
    memory: npt.NDArray[Any] | None = None,
) -> Shard:
    """The shard that holds all coordinates; by default with torch's number of threads."""
    return Shard(
        source.d,
        step=step,
        threads=default_threads() if threads is None else threads,
        segments=None if segments is None else checked_segments(segments, source.d),
        memory=memory,
    )


def checked_memory(memory: Any, source: Source) -> npt.NDArray[Any]:
    """A last result as an array of the rows' dtype.

    Raises:
        ValueError: unless it holds d finite numbers.
    """
    last = np.ascontiguousarray(reading.plain(memory, source.dtype))
    if last.shape != (source.d,) or not np.isfinite(last).all():
        what = "NaN or infinities" if last.shape == (source.d,) else f"the shape {last.shape}"
        raise ValueError(f"memory must be a last result, d = {source.d} finite numbers, got {what}")
    return last


def checked_segments(segments: Sequence[int], d: int) -> tuple[int, ...]:
    """The ends of the segments that are not empty.

    Raises:
        TypeError: unless they are whole numbers.
        ValueError: unless they ascend from 0 to d.
    """
    try:
        ends = tuple(operator.index(end) for end in segments)
    except TypeError:
        raise TypeError(f"segments must be a sequence of whole numbers, got {segments!r}") from None
    if list(ends) != sorted(ends) or (ends[-1] if ends else 0) != d or min(ends, default=0) < 0:
        raise ValueError(
            f"segments must be the coordinate after each tensor's last, ascending up to d = {d}, got {ends}"
        )
    return tuple(sorted(set(ends) - {0}))


def default_threads() -> int:
    """Torch's number of threads, which the user or the launcher chose for this process.

    Without torch imported it is the number that torch would start with: importing it takes seconds.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(given) if given.isdigit() and int(given) else _cores()


@functools.cache
def _cores() -> int:
    return machine.cores()
