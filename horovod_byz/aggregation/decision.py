"""Decisions: how one row, real or virtual, is computed from the rows below it.

A decision is a weighted sum of rows, a coordinate-wise rule over some of them, or a rule over the
outcomes of other decisions. Each is local to coordinates, so it gives the same bits on a
shard, on a block and on the whole rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.anchored import Anchored, nobody
from horovod_byz.aggregation.by_coordinate import Coordinatewise, Kernel
from horovod_byz.aggregation.source import Combination, Floats, FusedRule, Ints, Source, Whole
from horovod_byz.aggregation.tiles import Columns, overlaps
from horovod_byz.kernels import linear
from horovod_byz.kernels.mixing import Mixing
from horovod_byz.kernels.rows import Rows

__all__ = [
    "Anchored",
    "Composite",
    "Coordinatewise",
    "Decision",
    "Kernel",
    "Segmented",
    "Virtual",
    "Weighted",
    "compose",
    "virtual_rows",
]


@dataclass(frozen=True, eq=False)
class Weighted:
    """sum_i weights[i] * row i; rows of weight 0 are not read. All weights 0: the zero vector.

    Attributes:
        weights: (n,) weight of each row.
        outvoted: indices of rows that differ from the majority of their redundancy group.
    """

    weights: Floats
    outvoted: Ints = field(default_factory=nobody)

    @classmethod
    def uniform(cls, n: int, chosen: Sequence[int] | Ints, outvoted: Ints | None = None) -> Weighted:
        """The mean of the chosen rows out of n; the zero vector if none is chosen."""
        weights = np.zeros(n)
        if len(chosen):
            rows = np.asarray(chosen)
            if rows.min() < 0:  # NumPy would count from the end
                raise IndexError(f"chosen must be rows from 0 to {n - 1}, got {rows.min()}")
            weights[rows] = 1.0 / len(rows)
        return cls(weights, nobody() if outvoted is None else outvoted)

    def expand(self, n: int, rows: Ints) -> Weighted:
        """The same sum, where this decision's rows are `rows` out of n."""
        weights = np.zeros(n)
        weights[rows] = self.weights
        return Weighted(weights, rows[self.outvoted])

    @property
    def fused(self) -> FusedRule:
        """See `Combination`."""
        return self.weights

    def combine(self, rows: Rows, out: npt.NDArray[Any], threads: int, offset: int = 0) -> None:
        """Writes the row to `out`; `offset` is the coordinate of the rows' first column."""
        linear.weighted_sum(rows, self.weights, out, threads)


@dataclass(frozen=True, eq=False)
class Composite:
    """A decision over virtual rows: `top`, applied to the results of the decisions in `below`.

    Attributes:
        below: one per virtual row.
        top: the decision over the virtual rows.
        outvoted: as for `Weighted`.
        mixes: as for `Virtual`.
    """

    below: tuple[Decision, ...]
    top: Decision
    outvoted: Ints = field(default_factory=nobody)
    mixes: bool = False

    fused: ClassVar[None] = None

    @property
    def weights(self) -> Floats:
        """Each real row's weight, summed over the virtual rows."""
        return _mix(self.top.weights, self.below)

    def expand(self, n: int, rows: Ints) -> Composite:
        """The same, where this decision's rows are `rows` out of n."""
        below = tuple(decision.expand(n, rows) for decision in self.below)
        return Composite(below, self.top, rows[self.outvoted], self.mixes)

    def combine(self, rows: Rows, out: npt.NDArray[Any], threads: int, offset: int = 0) -> None:
        """Writes the row to `out`; makes the virtual rows block by block."""
        columns = Columns.at(offset, rows.d)
        virtual = Virtual(Whole(rows), self.below, threads, columns, mixes=self.mixes)
        virtual.combine(self.top, out, threads, offset)


@dataclass(frozen=True, eq=False)
class Segmented:
    """A weighted sum of rows for each segment of the coordinates, such as each tensor, with its own weights.

    Attributes:
        ends: the coordinate after each segment's last, ascending.
        parts: the decision in each segment.
        outvoted: as for `Weighted`.
    """

    ends: tuple[int, ...]
    parts: tuple[Weighted, ...]
    outvoted: Ints = field(default_factory=nobody)

    fused: ClassVar[None] = None

    @property
    def weights(self) -> Floats:
        """Each row's weight, averaged over the segments by their lengths."""
        lengths = np.diff(self.ends, prepend=0)
        return _mix(lengths / max(int(lengths.sum()), 1), self.parts)

    def expand(self, n: int, rows: Ints) -> Segmented:
        """The same, where this decision's rows are `rows` out of n."""
        parts = tuple(part.expand(n, rows) for part in self.parts)
        return Segmented(self.ends, parts, rows[self.outvoted])

    def combine(self, rows: Rows, out: npt.NDArray[Any], threads: int, offset: int = 0) -> None:
        """Writes the row to `out`; `offset` is the coordinate of the rows' first column."""
        for part, (begin, end) in zip(self.parts, overlaps(self.ends, offset, rows.d), strict=True):
            if begin < end:
                part.combine(rows.block(begin, end), out[begin:end], threads)


Decision = Weighted | Coordinatewise | Composite | Segmented | Anchored


def compose(below: Sequence[Decision], top: Decision, n: int, *, mixes: bool = False) -> Decision:
    """`top` over the virtual rows `below`, which are decisions over n rows.

    If every virtual row is a real row, `top` reads the real rows. A weighted sum of weighted sums is folded
    into one sum: k virtual rows with the mixing matrix W (k, n) and outer weights w (k,) are the single
    sum w W, which reads each row once.
    """
    picked = _picked(below)
    folded: Decision
    if picked is not None:
        folded = top.expand(n, picked)
    elif isinstance(top, Weighted) and all(isinstance(decision, Weighted) for decision in below):
        folded = Weighted(_mix(top.weights, below))
    elif isinstance(top, Anchored) and all(isinstance(decision, Weighted) for decision in below):
        folded = replace(top, weights=_mix(top.weights, below))
    else:
        folded = Composite(tuple(below), top, mixes=mixes)
    # A vote below decides who was outvoted; what `top` calls so are virtual rows, which no worker sent.
    return replace(folded, outvoted=np.unique(np.concatenate([decision.outvoted for decision in below])))


def virtual_rows(
    source: Source, decisions: Sequence[Decision], columns: Columns | None = None, *, mixes: bool = False
) -> Source:
    """The results of the decisions as rows; the real rows themselves if each decision picks one.

    Args:
        source: the rows below.
        decisions: one per virtual row.
        columns: the coordinates of the columns of `source`; default all, from 0 on.
        mixes: as for `Virtual`.
    """
    picked = _picked(decisions)
    if picked is None:
        return Virtual(source, decisions, columns=columns, mixes=mixes)
    return source.take([int(i) for i in picked])


def _picked(decisions: Sequence[Decision]) -> Ints | None:
    """The rows that the decisions pick; None unless each decision is a single row with weight 1."""
    rows = []
    for decision in decisions:
        if not isinstance(decision, Weighted) or np.count_nonzero(decision.weights) != 1:
            return None
        row = int(np.argmax(decision.weights))
        if decision.weights[row] != 1.0:
            return None
        rows.append(row)
    return np.array(rows, np.int64)


class Virtual(Source):
    """Rows computed by decisions from other rows, block by block when they are read.

    Args:
        source: the rows below.
        decisions: one per virtual row.
        threads: threads for the kernels.
        columns: the coordinates of the columns of `source`; default all, from 0 on.
        dtype: dtype of the blocks; None means that of the source. The values are rounded to the source's
            dtype in both cases.
        mixes: whether they are mixtures of the rows, which one kernel makes all at once where the weights in
            each are equal. It adds in the rows' own type; a single `Weighted` adds in float64.
    """

    def __init__(
        self,
        source: Source,
        decisions: Sequence[Decision],
        threads: int = 1,
        columns: Columns | None = None,
        dtype: type[np.float64] | None = None,
        *,
        mixes: bool = False,
    ) -> None:
        self.source = source
        self._columns = Columns.at(0, source.d) if columns is None else columns
        self.decisions = tuple(decisions)
        self.n, self.d = len(self.decisions), source.d
        self.dtype = source.dtype if dtype is None else np.dtype(dtype)
        self._threads, self._mixes = threads, mixes
        self._mixing = _mixing_of(decisions) if mixes else None

    def block(self, begin: int, end: int) -> Rows:
        return Rows(self.values(begin, end).astype(self.dtype, copy=False))

    def values(self, begin: int, end: int) -> npt.NDArray[Any]:
        """The coordinates [begin, end) of all rows, (n, end - begin)."""
        below = self.source.block(begin, end)
        values, offset = np.empty((self.n, end - begin), below.dtype), self._columns.coordinate(begin)
        if self._mixing is not None:
            self._mixing.mixtures(below, values, self._threads)
            return values
        for decision, row in zip(self.decisions, values, strict=True):
            decision.combine(below, row, self._threads, offset)
        return values

    def combine(self, decision: Combination, out: npt.NDArray[Any], threads: int, offset: int = 0) -> None:
        rule = decision.fused
        if self._mixing is None or not isinstance(rule, tuple) or self.dtype != self.source.dtype:
            return super().combine(decision, out, threads, offset)
        step = self.source.at_once
        for begin in range(0, self.d, step):  # without mixtures in memory
            end = min(begin + step, self.d)
            self._mixing.rule(self.source.block(begin, end), rule, out[begin:end], threads)
        return None

    def take(self, indices: Sequence[int]) -> Source:
        part = [self.decisions[i] for i in indices]
        if self.dtype == self.source.dtype:  # then rows that are picked need no copy
            return virtual_rows(self.source, part, self._columns, mixes=self._mixes)
        return Virtual(self.source, part, self._threads, self._columns, np.float64)


def _mixing_of(decisions: Sequence[Decision]) -> Mixing | None:
    """The kernel for these mixtures; None where weights in one differ, or it would save nothing."""
    weights = np.stack([decision.weights for decision in decisions])
    if not Mixing.fits(weights):
        return None
    # It adds one sum of a subset per mixture and group of four rows, at three times the speed of sums in
    # float64: much for mixtures of most rows (NNM), too little for those of a few (bucketing).
    groups = -(-np.count_nonzero(weights.any(axis=0)) // 4)
    worth = groups * (len(weights) + 11) < 3 * np.count_nonzero(weights)
    return Mixing(weights) if worth else None


def _mix(weights: Floats, below: Sequence[Decision]) -> Floats:
    mixing = np.stack([decision.weights for decision in below])
    # A plain ordered sum: NumPy's dot may group the terms by SIMD width, and all ranks need the same bits.
    total = np.zeros(mixing.shape[1])
    for weight, row in zip(weights, mixing, strict=True):
        # A row without part in a virtual row has none in the result, also where that one's weight is NaN.
        total += np.where(row == 0.0, 0.0, weight * row)
    return total
