"""The statistics by name: sums over coordinates; their size depends on n only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.shard import Shard
from horovod_byz.aggregation.source import Combination, Floats, Groups, Ints, Source
from horovod_byz.aggregation.tiles import overlaps
from horovod_byz.kernels import brsgd, distances, scan, vote
from horovod_byz.kernels.rows import Rows

Array = npt.NDArray[Any]
Kernel = Callable[[Rows, int], Array]  # of rows and threads
OnColumns = Callable[[Source, int, int, Shard], Array]
Ends = Sequence[int] | None


def _anywhere(begin: int, end: int) -> bool:
    return True


@dataclass(frozen=True, eq=False)
class Statistic:
    """A sum over coordinates.

    Attributes:
        name: key in the cache of `Statistics`.
        on: `on(source, begin, end, shard)`, the sum over the columns [begin, end) of the shard.
        sizes: the squares or magnitudes in it, finite only if the rows are: per row, (n,), or per pair of
            rows, (n, n); None if it holds none.
        in_one_call: whether one call of `on` may sum the coordinates [begin, end), more than one tile.
    """

    name: str
    on: OnColumns
    sizes: Callable[[Array], Floats] | None = None
    in_one_call: Callable[[int, int], bool] = _anywhere


def _each_block(kernel: Kernel) -> OnColumns:
    return lambda source, begin, end, shard: kernel(source.block(begin, end), shard.threads)


def _all_of_it(sizes: Array) -> Floats:
    return sizes


def _of_rows(both: Array) -> Floats:
    return both[0, :-1]


def _squared_norms(rows: Rows, threads: int) -> Floats:
    return distances.to_point(rows, np.zeros(rows.d, rows.dtype), threads)


def _brsgd(rows: Rows, threads: int) -> Floats:
    return np.stack([np.asarray(numbers, np.float64) for numbers in brsgd.statistics(rows, threads)])


NONFINITE = Statistic("nonfinite", _each_block(scan.nonfinite))
DISTANCES = Statistic("distances", _each_block(distances.squared), _all_of_it)
GRAM = Statistic("gram", _each_block(distances.gram), np.diag)
SQUARED_NORMS = Statistic("squared_norms", _each_block(_squared_norms), _all_of_it)
BRSGD = Statistic("brsgd", _each_block(_brsgd), lambda both: both[1])


def to_point(point: Array) -> Statistic:
    """Squared L2 distances to a point, and squared norms, (2, n + 1); column n is the point itself.

    Args:
        point: its coordinates on this rank's shard.
    """

    def on(source: Source, begin: int, end: int, shard: Shard) -> Floats:
        return source.to_point(point[begin:end], begin, end, shard.threads)

    return Statistic("distances to a point", on, _of_rows)


def to_result(decision: Combination, out: Array) -> Statistic:
    """`to_point` of the row that a decision gives, which is written to `out` on the way.

    Args:
        decision: gives the row.
        out: its coordinates on this rank's shard.
    """

    def on(source: Source, begin: int, end: int, shard: Shard) -> Floats:
        here = out[begin:end]
        return source.combined(decision, here, begin, end, shard.threads, shard.columns.coordinate(begin))

    return Statistic("distances to the result", on, _of_rows)


def replicas(groups: Groups, ends: Ends = None) -> Statistic:
    """Counts of the pieces in which a row differs in some bit from each member of its redundancy group.

    Returns:
        (n, largest group): [i, j] counts where row i and the j-th member of its group differ; with `ends`
        (segments, n, largest group).
    """
    width = max(len(group) for group in groups)
    # The kernel wants each row in one group at most, and may be given some groups only: number their rows
    # anew.
    members = [row for group in groups for row in group]
    cuts = itertools.pairwise([0, *itertools.accumulate(len(group) for group in groups)])
    places = [tuple(range(*cut)) for cut in cuts]

    def differ(rows: Rows, threads: int) -> Ints:
        counts = np.zeros((rows.n, width), np.int64)
        first = vote.equal(rows.take(members), places, threads=threads)
        for group, own in zip(groups, places, strict=True):
            same = first[list(own)]  # rows are equal where their first equal row is the same
            counts[list(group), : len(group)] = same[:, None] != same[None, :]
        return counts

    return _summed(f"replicas of {groups}", differ, ends)


def closeness(groups: Groups, ends: Ends = None) -> Statistic:
    """Per group: squared distances, squared norms and counts of non-finite values of its rows.

    Returns:
        (groups, largest group, largest group + 2); with `ends` (segments, ...).
    """
    width = max(len(group) for group in groups)

    def close(rows: Rows, threads: int) -> Floats:
        numbers = np.zeros((len(groups), width, width + 2))
        for group, own in zip(groups, numbers, strict=True):
            r, members = len(group), rows.take(group)
            own[:r, :r] = distances.squared(members, threads)
            own[:r, -2] = _squared_norms(members, threads)
            own[:r, -1] = scan.nonfinite(members, threads)
        return numbers

    return _summed(f"closeness in {groups}", close, ends)


def _summed(name: str, kernel: Kernel, ends: Ends) -> Statistic:
    """A statistic over all columns, or over each segment (a tensor of the model) by itself.

    A node of the summation tree inside one segment is measured in one call. Other nodes are split, down to
    single tiles, which are cut at the ends of the segments: the cuts do not depend on the shards.
    """
    if ends is None:
        return Statistic(name, _each_block(kernel))

    def on(source: Source, begin: int, end: int, shard: Shard) -> Array:
        rows = source.block(begin, end)
        none = np.zeros_like(kernel(rows.block(0, 0), shard.threads))  # the right shape, for absent segments
        cuts = overlaps(ends, shard.columns.coordinate(begin), rows.d)
        return np.stack([kernel(rows.block(a, b), shard.threads) if a < b else none for a, b in cuts])

    def inside(begin: int, end: int) -> bool:
        return not any(begin < cut < end for cut in ends)

    return Statistic(f"{name} by segment", on, in_one_call=inside)
