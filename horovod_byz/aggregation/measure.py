"""The first phase of a rule: statistics of the rows, measured on first use."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation import mixing, reach, statistic
from horovod_byz.aggregation.decision import Decision, Weighted, virtual_rows
from horovod_byz.aggregation.reduction import reduced
from horovod_byz.aggregation.shard import Shard
from horovod_byz.aggregation.source import Floats, Groups, Ints, Source
from horovod_byz.aggregation.statistic import Ends, Statistic


class Statistics:
    """Statistics of the rows: measured on first use, identical on all ranks; their size depends on n only.

    Args:
        source: the rows themselves, over this rank's coordinates.
        shard: which coordinates those are; None means all.
        excluded: number of rows that were removed before as certainly Byzantine (non-finite).

    Attributes:
        n: number of rows.
        unit: divisor of the rows before they were measured: 1, or `reach.UNIT` where the squares of most rows
            would overflow.
    """

    unit = 1.0

    def __init__(self, source: Source, shard: Shard | None = None, *, excluded: int = 0) -> None:
        self.source, self.n = source, source.n
        self.shard = Shard(source.d) if shard is None else shard
        self.excluded = excluded
        self._cached: dict[str, npt.NDArray[Any]] = {}
        self._shown_finite = np.zeros(self.n, np.bool_)
        self._checked_as: Ints | None = None  # each row's index in the statistics that raise

    @property
    def step(self) -> int:
        """Optimizer step, which seeds the draws of randomised rules."""
        return self.shard.step

    @property
    def memory(self) -> npt.NDArray[Any]:
        """The last result, (d,), in the rows' dtype and unit; zeros if there is none."""
        last = self.shard.memory
        if last is None:
            return np.zeros(self.shard.d, self.source.dtype)
        return np.ascontiguousarray(last if self.unit == 1.0 else last / self.unit, self.source.dtype)

    def take(self, indices: Sequence[int] | Ints, excluded: int = 0) -> Statistics:
        """The statistics of some of the rows only."""
        chosen = np.asarray(indices, np.int64)
        part = self.over(self.source.take(chosen.tolist()), excluded)
        if "distances" in self._cached:  # a pair's distance depends on no other row
            part._cached["distances"] = self._cached["distances"][np.ix_(chosen, chosen)]
        if "squared_norms" in self._cached:
            part._cached["squared_norms"] = self._cached["squared_norms"][chosen]
        part._shown_finite = self._shown_finite[chosen]
        if self._checked_as is not None:
            part._checked_as = self._checked_as[chosen]
        return part

    @property
    def checked(self) -> Statistics:
        """The same statistics, which raise `reach.OutOfReachError` in place of numbers that overflowed."""
        part = copy.copy(self)  # a shallow copy: both share one cache, so nothing is measured twice
        part._checked_as = np.arange(self.n, dtype=np.int64)
        return part

    @property
    def scaled(self) -> Statistics:
        """The statistics of the rows divided by `reach.UNIT`."""
        part = self.over(reach.scaled(self.source), self.excluded)
        part.unit = self.unit * reach.UNIT
        return part

    def over(self, source: Source, excluded: int = 0) -> Statistics:
        """The statistics of other (virtual) rows over the same coordinates."""
        part = Statistics(source, self.shard, excluded=excluded)
        part.unit = self.unit
        return part

    def virtual(self, decisions: Sequence[Decision], *, mixes: bool = False) -> Statistics:
        """The statistics of the rows that decisions about these rows give; `mixes` as for `Virtual`."""
        return self.over(virtual_rows(self.source, decisions, self.shard.columns, mixes=mixes))

    def mixed(self, weights: Floats, *, from_distances: bool) -> Statistics:
        """The statistics of mixtures of these rows, all of which are finite.

        Args:
            weights: (k, n) weights of the rows in each mixture.
            from_distances: whether to derive distances and inner products from those of these rows, which
                needs weights of sum 1; else they are measured if they are read.
        """
        part = self.virtual([Weighted(row) for row in weights], mixes=True)
        part.excluded = self.excluded
        part._shown_finite[:] = True  # a value that would overflow is written as 0
        if from_distances:
            part._cached["distances"] = mixing.mixed_distances(self.distances, weights)
            part._cached["gram"] = mixing.centred(part._cached["distances"])
        return part

    @property
    def nonfinite(self) -> Ints:
        """The number of NaN or infinite values in each row; shape (n,).

        Rows that an earlier statistic showed to be finite are not read again: a sum of magnitudes over all
        coordinates is finite only if every value is. A rule saves a pass over the rows if it first measures
        the statistic that it needs anyway, and then asks which rows are finite.
        """
        if "nonfinite" not in self._cached:
            counts = np.zeros(self.n, np.int64)
            # Not shown finite is not proof of NaN: squares of finite values overflow too. Count those rows.
            unknown = np.flatnonzero(~self._shown_finite)
            if len(unknown):
                rows = self if len(unknown) == self.n else self.take(unknown)
                counts[unknown] = rows.measured(statistic.NONFINITE)
            self._cached["nonfinite"] = counts
        return self._cached["nonfinite"]

    @property
    def finite(self) -> Ints:
        """Indices of the rows that hold finite values only, ascending."""
        return np.flatnonzero(self.nonfinite == 0).astype(np.int64)

    @property
    def distances(self) -> Floats:
        """Squared L2 distances between rows, from direct differences; shape (n, n)."""
        return self.get(statistic.DISTANCES)

    @property
    def gram(self) -> Floats:
        """Inner products of the rows minus a centre of the bulk of them; shape (n, n).

        The centre is the coordinate-wise median, or where distances of mixtures are derived, a row.
        """
        return self.get(statistic.GRAM)

    @property
    def squared_norms(self) -> Floats:
        """Squared L2 norm of each row; shape (n,)."""
        return self.get(statistic.SQUARED_NORMS)

    @property
    def brsgd(self) -> tuple[Ints, Floats]:
        """BrSGD's scores (n,) and L1 distances to the coordinate-wise median (n,)."""
        scores, l1 = self.get(statistic.BRSGD)
        return scores.astype(np.int64), l1

    def replicas(self, groups: Groups) -> list[npt.NDArray[np.bool_]]:
        """Which rows of each group differ in some bit: one (r, r) matrix per group."""
        return [differ for (differ,) in self.replicas_in(groups, None)]

    def replicas_in(self, groups: Groups, ends: Ends) -> list[list[npt.NDArray[np.bool_]]]:
        """Like `replicas`, per group and segment; without `ends` all coordinates are one segment."""
        parts = self._by_segment(statistic.replicas(groups, ends), ends)
        return [[counts[np.asarray(group), : len(group)] > 0 for counts in parts] for group in groups]

    def closeness_in(self, groups: Groups, ends: Ends) -> list[list[tuple[Floats, Floats, Ints]]]:
        """Per group and segment: squared distances (r, r), squared norms (r,), non-finite values (r,)."""
        parts = self._by_segment(statistic.closeness(groups, ends), ends)
        return [
            [(own[k, :r, :r], own[k, :r, -2], own[k, :r, -1].astype(np.int64)) for own in parts]
            for k, r in enumerate(map(len, groups))
        ]

    def _by_segment(self, wanted: Statistic, ends: Ends) -> list[npt.NDArray[Any]]:
        return [self.get(wanted)] if ends is None else list(self.get(wanted))

    def result(self, decision: Decision, out: npt.NDArray[Any]) -> Floats:
        """Writes a decision's row to `out`, this rank's shard, and measures it: `squares` of `lengths_to`."""
        return self.measured(statistic.to_result(decision, out))

    def lengths_to(
        self, value: npt.NDArray[Any], squares: Floats | None = None
    ) -> tuple[Floats, Floats, float]:
        """L2 distance of each row to a finite point, and norms; at most the largest float64.

        Args:
            value: the point's coordinates on this rank's shard.
            squares: what `result` returned if it wrote them; None measures.

        Returns:
            Distances (n,) and norms (n,), infinite for rows with NaN and Inf; and the norm of the point.
        """
        if squares is None:
            squares = self.measured(statistic.to_point(value))
        length: Floats = np.sqrt(squares)
        over = np.flatnonzero(np.isinf(squares[:, :-1]).any(axis=0))
        over = over[self.nonfinite[over] == 0] if len(over) else over
        if len(over) or np.isinf(squares[1, -1]):
            # Finite values whose squares overflowed: measured again in the larger unit. A point that is too
            # long has a row that is; the first stands in for it where that row is not finite.
            far = self.take(over if len(over) else [0]).scaled
            again = np.sqrt(far.measured(statistic.to_point(value / reach.UNIT)))
            with np.errstate(over="ignore"):
                again = np.minimum(again * reach.UNIT, np.finfo(np.float64).max)
            # Only what overflowed: the squares of short rows would underflow in the larger unit.
            for column, numbers in zip([*over, -1], [*again[:, : len(over)].T, again[:, -1]], strict=True):
                length[:, column] = np.where(np.isinf(length[:, column]), numbers, length[:, column])
        return length[0, :-1], length[1, :-1], float(length[1, -1])

    def get(self, wanted: Statistic) -> npt.NDArray[Any]:
        """A statistic, measured on first use.

        This is no functools.cached_property, which before Python 3.12 holds one lock for all instances:
        shards in threads of one process would deadlock.

        Raises:
            reach.OutOfReachError: if its magnitudes are out of range and the statistics are `checked`.
        """
        if wanted.name not in self._cached:
            self._cached[wanted.name] = self.measured(wanted)
        total = self._cached[wanted.name]
        if self._checked_as is not None and self.unit == 1.0 and wanted.sizes is not None:
            reach.check(wanted.sizes(total), self._checked_as)
        return total

    def measured(self, wanted: Statistic) -> npt.NDArray[Any]:
        """Measures a statistic without keeping it; only the rows that it shows to be finite are recorded."""
        total = reduced(wanted, self.source, self.shard)
        if wanted.sizes is not None:
            # In place, since the copies that `checked` makes share this array.
            self._shown_finite |= _finite_rows(wanted.sizes(total))
        return total


def _finite_rows(sizes: Floats) -> npt.NDArray[np.bool_]:
    if sizes.ndim == 2:  # any finite distance to another row shows it
        sizes = np.where(np.isfinite(sizes) & ~np.eye(len(sizes), dtype=np.bool_), 0.0, np.inf).min(axis=1)
    return np.isfinite(sizes)
