"""Runs a rule over rows: measure > decide > combine. Knows no Horovod."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation import rows as reading
from horovod_byz.aggregation.decision import BLOCK, Decision, Segmented
from horovod_byz.aggregation.measure import Reduce, Statistics, alone
from horovod_byz.aggregation.reach import lengths_to
from horovod_byz.aggregation.source import Floats, Ints, Packed, Source
from horovod_byz.aggregation.tiles import shards
from horovod_byz.aggregation.verdict import Verdict, judge
from horovod_byz.host import machine
from horovod_byz.kernels.rows import Rows

if TYPE_CHECKING:
    from horovod_byz.rules.base import Rule

__all__ = ["Aggregate", "Outcome", "aggregate", "run", "shards"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """One aggregation as seen by the rank that holds a shard; the value itself is in `out`.

    Attributes:
        weights: what share of the result each row got, (n,) float64.
        nonfinite: how many NaN or infinite values each row held, (n,) int64; zeros where distances were
            not asked for.
        outvoted: indices of the rows that lost a vote in their redundancy group.
        distances: L2 distance of each row to the result, (n,) float64.
    """

    weights: Floats
    nonfinite: Ints
    outvoted: Ints
    distances: Floats

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One verdict per row, in row order."""
        return judge(self.weights, self.nonfinite, self.distances, self.outvoted)


@dataclass(frozen=True, eq=False)
class Aggregate:
    """What `aggregate` returns.

    Attributes:
        value: the aggregate, (d,), of the rows' type, dtype and device.
        weights: what share of the result each row got, (n,) float64. A coordinate-wise rule gives
            each row that took part an equal share.
        verdicts: one `Verdict` per row, in row order.
    """

    value: Any
    weights: Floats
    verdicts: tuple[Verdict, ...]


def run(
    rule: Rule,
    rows: Source,
    out: npt.NDArray[Any],
    *,
    offset: int = 0,
    d: int | None = None,
    reduce: Reduce = alone,
    step: int = 0,
    threads: int = 1,
    segments: Sequence[int] | None = None,
) -> Outcome:
    """Aggregates the coordinates [offset, offset + rows.d) of d into `out`.

    Args:
        rule: the aggregation rule.
        rows: n rows, float32 or float64, over this shard of coordinates; `Rows`, or what gives
            `Rows` block by block.
        out: (rows.d,) writable, of the rows' dtype.
        offset: first coordinate of the shard; a multiple of `TILE`, as `shards` gives it.
        d: number of coordinates in all; None means that the rows hold all.
        reduce: gathers every shard's partial statistics, in the order of `shards`.
        step: optimizer step, for rules that draw at random.
        threads: threads for the kernels; the result does not depend on it.
        segments: the coordinate after each tensor's last, for rules that treat tensors apart.

    Raises:
        ValueError: if the rule does not hold for n rows.
    """
    statistics = Statistics(
        rows, offset=offset, d=d, reduce=reduce, step=step, threads=threads, segments=segments
    )
    decision = _combine(rule, rows, statistics, out, threads, lazy=False)
    far = lengths_to(out, statistics)  # first: it shows which rows are finite
    return Outcome(decision.weights, statistics.nonfinite, decision.outvoted, far)


def _combine(
    rule: Rule, rows: Source, statistics: Statistics, out: npt.NDArray[Any], threads: int, *, lazy: bool
) -> Decision:
    """Decides and writes the result; reads of the rows only what the rule asks for."""
    rule.check(rows.n)
    if isinstance(rows, Rows) and statistics.alone:
        done = rule.in_one_pass(rows, out, step=statistics.step, threads=threads, lazy=lazy)
        if done is not None:
            return done
    offset, decision = statistics.offset, rule.decide(statistics)
    if isinstance(rows, Rows):
        decision.combine(rows, out, threads, offset)
    elif not (isinstance(rows, Packed) and rows.combine(decision, out, threads)):
        # combine is local to coordinates: the same bits block by block
        for begin in range(0, rows.d, BLOCK):
            end = min(begin + BLOCK, rows.d)
            decision.combine(rows.block(begin, end), out[begin:end], threads, offset + begin)
    if isinstance(decision, Segmented) or np.count_nonzero(decision.weights) == 1:
        # A single row is copied bit for bit, so three equal rows with NaN elect NaN: not into the model.
        out[~np.isfinite(out)] = 0
    return decision


def aggregate(
    rows: Any,
    rule: Rule | str,
    *,
    step: int = 0,
    threads: int | None = None,
    segments: Sequence[int] | None = None,
) -> Aggregate:
    """Aggregates n rows and says how each was treated.

    Args:
        rows: (n, d) array or tensor, or a sequence of n one-dimensional ones; floating point. They
            are never written to.
        rule: an aggregation rule such as `MultiKrum(f=2)`, or its name, such as "multi-krum:f=2".
        step: optimizer step, for rules that draw at random.
        threads: threads for the kernels (default: torch's number of threads); the result does not
            depend on it.
        segments: the coordinate after each tensor's last, for rules that treat tensors apart, such as
            `MajorityVote(scope="tensor")`; the last is d.

    Returns:
        The aggregate with weights and verdicts.

    Raises:
        TypeError: if `rows` are not floating point, or mix types, dtypes or devices, or `rule` is no rule.
        ValueError: if the shape is not (n, d), the rule does not hold for n rows, or no rule has that name.

    Examples:
        >>> import numpy as np
        >>> import horovod_byz as hb
        >>> rows = np.array([[1.0, 2.0], [1.0, 4.0], [float("nan"), 0.0]])
        >>> result = hb.aggregate(rows, hb.Mean())
        >>> result.value, result.verdicts[2].reason
        (array([1., 3.]), 'non-finite')
    """
    from horovod_byz.rules.naming import as_rule

    rule = as_rule(rule)
    source, restore = reading.read(rows)
    ends = None if segments is None else checked_segments(segments, source.d)
    out = np.empty(source.d, source.dtype)
    threads = default_threads() if threads is None else threads
    outcome = run(rule, source, out, step=step, threads=threads, segments=ends)
    return Aggregate(restore(out), outcome.weights, outcome.verdicts)


def value(rows: Any, rule: Rule, *, step: int = 0, threads: int | None = None) -> Any:
    """The aggregate alone, without the passes over all rows that the verdicts need."""
    source, restore = reading.read(rows)
    out = np.empty(source.d, source.dtype)
    threads = default_threads() if threads is None else threads
    into(out, source, rule, step=step, threads=threads)
    return restore(out)


def into(out: npt.NDArray[Any], rows: Source, rule: Rule, *, step: int = 0, threads: int = 1) -> Decision:
    """As `value`, from rows that are read already, into (d,) memory of their dtype."""
    return _combine(rule, rows, Statistics(rows, step=step, threads=threads), out, threads, lazy=True)


def checked_segments(segments: Sequence[int], d: int) -> tuple[int, ...]:
    """The ends of the segments, those of empty ones left out.

    Raises:
        ValueError: unless they ascend from 0 to d.
    """
    ends = tuple(int(end) for end in segments)
    if list(ends) != sorted(ends) or (ends[-1] if ends else 0) != d or min(ends, default=0) < 0:
        raise ValueError(
            f"segments must be the coordinate after each tensor's last, ascending up to d = {d}, got {ends}"
        )
    return tuple(sorted(set(ends) - {0}))


def default_threads() -> int:
    """Torch's number of threads: what the user, or the launcher, gave this process.

    Who has not imported torch gets what torch would begin with, without waiting for its import.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(given) if given.isdigit() and int(given) else _cores()


@functools.cache
def _cores() -> int:
    return machine.cores()
