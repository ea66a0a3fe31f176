"""The first phase of a rule: statistics of the rows whose size depends on n alone.

A statistic is a sum over coordinates, in the order of `tiles`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation import reach
from horovod_byz.aggregation.segments import BySegment
from horovod_byz.aggregation.source import Floats, Groups, Ints, Packed, Source
from horovod_byz.aggregation.tiles import nodes, shards, tree_sum
from horovod_byz.kernels import brsgd, distances, scan, vote
from horovod_byz.kernels.rows import TILE, Rows

Partial = dict[str, npt.NDArray[Any]]
Reduce = Callable[[Partial], list[Partial]]

# Virtual rows are materialised at most this many tiles at a time: 64k coordinates stay in the cache
# of a core for the usual number of virtual rows, and the blocks are nodes of the summation tree.
_BLOCK_TILES = 16


def alone(partial: Partial) -> list[Partial]:
    """The `reduce` of a rank that holds every coordinate."""
    return [partial]


class Statistics:
    """What a rule may know of the rows: lazily measured, equal on every rank, free of coordinates.

    Attributes:
        n: number of rows.
        source: the rows themselves, over this rank's coordinates.
        step: optimizer step, from which rules that draw at random take their draw.
        excluded: how many rows were already taken out as certainly Byzantine (non-finite).
        offset: first coordinate of this rank's shard.
        d: number of coordinates, all shards together.
        threads: threads for the kernels.
        segments: the coordinate after each tensor's last, where the caller said so.
        unit: the rows were divided by it before they were measured; 1, or `reach.UNIT` where most of them
            are too large for their squares.
    """

    unit = 1.0

    def __init__(
        self,
        source: Source,
        *,
        offset: int = 0,
        d: int | None = None,
        reduce: Reduce = alone,
        step: int = 0,
        threads: int = 1,
        excluded: int = 0,
        segments: Sequence[int] | None = None,
    ) -> None:
        self.source = source
        self.segments = None if segments is None else tuple(segments)
        self.n = source.n
        self.step = step
        self.excluded = excluded
        self.offset = offset
        self.d = source.d if d is None else d
        self._reduce = reduce
        self.threads = threads
        self._known: dict[str, Any] = {}
        self._checked_as: Ints | None = None  # each row's index in the statistics that `checked` gave

    @property
    def alone(self) -> bool:
        """Whether this rank holds every coordinate."""
        return self._reduce is alone

    @property
    def by_segment(self) -> BySegment:
        """Statistics of each segment by itself."""
        return BySegment(self)

    def take(self, indices: Sequence[int] | Ints, excluded: int = 0) -> Statistics:
        """The statistics of some of the rows only."""
        part = self.over(self.source.take([int(i) for i in indices]), excluded)
        if "distances" in self._known:  # each pair's distance is its own sum
            chosen = np.asarray(indices, np.int64)
            part._known["distances"] = self._known["distances"][np.ix_(chosen, chosen)]
        if self._checked_as is not None:
            part._checked_as = self._checked_as[np.asarray(indices, np.int64)]
        return part

    @property
    def checked(self) -> Statistics:
        """The same statistics, which raise `reach.OutOfReachError` in place of numbers that overflowed."""
        part = copy.copy(self)  # what is known stays known to both
        part._checked_as = np.arange(self.n, dtype=np.int64)
        return part

    @property
    def scaled(self) -> Statistics:
        """The statistics of the rows divided by `reach.UNIT`."""
        part = self.over(reach.Scaled(self.source), self.excluded)
        part.unit = self.unit * reach.UNIT
        return part

    def over(self, source: Source, excluded: int = 0) -> Statistics:
        """The statistics of other (virtual) rows over the same coordinates."""
        part = Statistics(
            source,
            offset=self.offset,
            d=self.d,
            reduce=self._reduce,
            step=self.step,
            threads=self.threads,
            excluded=excluded,
            segments=self.segments,
        )
        part.unit = self.unit
        return part

    @property
    def nonfinite(self) -> Ints:
        """How many NaN or infinite values each row holds; shape (n,).

        Rows that another statistic has shown to be finite are not read again.
        """
        if "nonfinite" not in self._known:
            total = np.zeros(self.n, np.int64)
            open_ = np.flatnonzero(~self._shown_finite())
            if len(open_):
                rows = self if len(open_) == self.n else self.take(open_)
                total[open_] = rows.measured("nonfinite", rows._of_block(rows._count_nonfinite))
            self._known["nonfinite"] = total
        counts: Ints = self._known["nonfinite"]
        return counts

    def _count_nonfinite(self, rows: Rows) -> Ints:
        return scan.nonfinite(rows, self.threads)

    def _shown_finite(self) -> npt.NDArray[np.bool_]:
        """Rows of which some known sum over all coordinates is finite: so is each of their values."""
        shown = np.zeros(self.n, np.bool_)
        if "distances" in self._known:
            shown |= np.isfinite(self._known["distances"] + np.diag(np.full(self.n, np.inf))).any(axis=1)
        if "gram" in self._known:
            shown |= np.isfinite(np.diag(self._known["gram"]))
        if "brsgd" in self._known:
            shown |= np.isfinite(self._known["brsgd"][1])
        if "distances_to" in self._known:
            shown |= np.isfinite(self._known["distances_to"])
        return shown

    @property
    def finite(self) -> Ints:
        """Indices of the rows that hold finite values only, ascending."""
        return np.flatnonzero(self.nonfinite == 0).astype(np.int64)

    @property
    def distances(self) -> Floats:
        """Squared L2 distances between rows, from direct differences; shape (n, n)."""
        total: Floats = self._measure("distances", lambda rows: distances.squared(rows, self.threads))
        self._check(total)
        return total

    @property
    def gram(self) -> Floats:
        """Inner products of the rows minus their coordinate-wise median; shape (n, n)."""
        total: Floats = self._measure("gram", lambda rows: distances.gram(rows, self.threads))
        self._check(np.diag(total))
        return total

    def replicas(self, groups: Groups) -> list[npt.NDArray[np.bool_]]:
        """Per group of rows, which of them differ in some bit; one (r, r) matrix per group."""
        width = max(len(group) for group in groups)
        members = [worker for group in groups for worker in group]
        ends = list(itertools.accumulate(len(group) for group in groups))
        taken = [tuple(range(end - len(group), end)) for group, end in zip(groups, ends, strict=True)]

        def differ(rows: Rows) -> Ints:
            found = np.zeros((rows.n, width), np.int64)
            first = vote.equal(rows.take(members), taken, threads=self.threads)
            for group, places in zip(groups, taken, strict=True):
                same = first[list(places)]
                found[list(group), : len(group)] = same[:, None] != same[None, :]
            return found

        total = self._measure(f"replicas of {groups}", differ)
        return [total[np.asarray(group), : len(group)] > 0 for group in groups]

    @property
    def squared_norms(self) -> Floats:
        """Squared L2 norm of each row; shape (n,)."""

        def norms(rows: Rows) -> Floats:
            length: Floats = distances.to_point(rows, np.zeros(rows.d, rows.dtype), self.threads)
            return length

        total: Floats = self._measure("squared_norms", norms)
        self._check(total)
        return total

    @property
    def brsgd(self) -> tuple[Ints, Floats]:
        """BrSGD's scores (n,) and L1 distances to the coordinate-wise median (n,)."""
        both: Floats = self._measure(
            "brsgd",
            lambda rows: np.stack([np.asarray(x, np.float64) for x in brsgd.statistics(rows, self.threads)]),
        )
        self._check(both[1])
        return both[0].astype(np.int64), both[1]

    def distances_to(self, value: npt.NDArray[Any]) -> Floats:
        """Squared L2 distance of each row to a point; shape (n,).

        Args:
            value: the point's coordinates on this rank's shard.
        """

        def to_point(begin: int, end: int) -> Floats:
            point, apart = value[begin:end], None
            if isinstance(self.source, Packed):
                apart = self.source.to_point(point, begin, end, self.threads)
            if apart is None:
                apart = distances.to_point(self.source.block(begin, end), point, self.threads)
            return apart

        total: Floats = self.measured("distances_to", to_point)
        self._known["distances_to"] = total  # for what it shows of the rows; the next point has its own
        return total

    def _check(self, squares: Floats) -> None:
        if self._checked_as is not None and self.unit == 1.0:
            reach.check(squares, self._checked_as)

    def _measure(self, name: str, kernel: Callable[[Rows], Any]) -> Any:
        """One statistic of all columns alike, measured when it is first asked for."""
        return self.known(name, self._of_block(kernel))

    def known(
        self,
        name: str,
        kernel: Callable[[int, int], Any],
        at_once: Callable[[int, int], bool] = lambda first, size: True,
    ) -> Any:
        """As `measured`, once for each name.

        (Not functools.cached_property, which before Python 3.12 holds one lock for all instances:
        shards in threads of one process would wait for each other for ever.)
        """
        if name not in self._known:
            self._known[name] = self.measured(name, kernel, at_once)
        return self._known[name]

    def _of_block(self, kernel: Callable[[Rows], Any]) -> Callable[[int, int], Any]:
        return lambda begin, end: kernel(self.source.block(begin, end))

    def measured(
        self,
        name: str,
        kernel: Callable[[int, int], Any],
        at_once: Callable[[int, int], bool] = lambda first, size: True,
    ) -> Any:
        """Runs a kernel node by node over this shard, then adds the shards up in the tree's order.

        Args:
            name: under which the shards exchange it.
            kernel: the statistic of the columns [begin, end) of this shard.
            at_once: whether a node, by first tile and number of tiles, may be measured in one call.
        """
        begin, width = self.offset, self.source.d
        total = -(-self.d // TILE)
        known: dict[tuple[int, int], Any] = {}

        def on_range(first: int, size: int) -> Any:
            low = first * TILE - begin
            return kernel(low, min(low + size * TILE, width))

        def leaf(first: int, size: int) -> Any:
            whole = isinstance(self.source, Rows) or size <= _BLOCK_TILES
            return on_range(first, size) if whole and (size == 1 or at_once(first, size)) else None

        mine = [tree_sum(first, size, total, leaf) for first, size in nodes(begin, begin + width, self.d)]
        if not mine:
            mine = [kernel(0, 0)]
        partials = self._reduce({name: np.stack(mine)})
        for (low, high), partial in zip(shards(self.d, len(partials)), partials, strict=True):
            known.update(zip(nodes(low, high, self.d), partial[name], strict=False))
        if not known:  # no coordinates at all
            return partials[0][name][0]
        root = 1
        while root < total:
            root *= 2
        return tree_sum(0, root, total, lambda first, size: known.get((first, size)))
