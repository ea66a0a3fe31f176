"""Statistics of each segment (a tensor of the model) by itself, for rules that treat tensors apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.source import Floats, Groups, Ints
from horovod_byz.aggregation.tiles import overlaps
from horovod_byz.kernels import distances, scan, vote
from horovod_byz.kernels.rows import TILE, Rows

if TYPE_CHECKING:
    from horovod_byz.aggregation.measure import Statistics


class BySegment:
    """What a rule may know of each segment of the rows.

    Args:
        statistics: of the same rows as a whole.

    Raises:
        ValueError: if the rows' segments are not known.
    """

    def __init__(self, statistics: Statistics) -> None:
        if statistics.segments is None:
            raise ValueError("the rows' segments are not known")
        self._statistics, self._ends = statistics, statistics.segments

    def replicas(self, groups: Groups) -> list[list[npt.NDArray[np.bool_]]]:
        """Per group, per segment: which rows differ there in some bit, (r, r)."""
        threads = self._statistics.threads
        width = max(len(group) for group in groups)

        def differ(rows: Rows) -> Ints:
            found = np.zeros((len(groups), width, width), np.int64)
            for k, group in enumerate(groups):
                r = len(group)
                found[k, :r, :r] = vote.mismatches(rows.take(group), threads)
            return found

        total = self._measure(f"replicas of {groups} by segment", differ)
        return [list(total[:, k, : len(group), : len(group)] > 0) for k, group in enumerate(groups)]

    def apart(self, groups: Groups) -> list[list[tuple[Floats, Floats, Ints]]]:
        """Per group, per segment: squared distances (r, r), squared norms (r,), non-finite values (r,)."""
        threads = self._statistics.threads
        width = max(len(group) for group in groups)

        def apart(rows: Rows) -> Floats:
            found = np.zeros((len(groups), width, width + 2))
            for k, group in enumerate(groups):
                r, own = len(group), rows.take(group)
                found[k, :r, :r] = distances.squared(own, threads)
                found[k, :r, -2] = distances.to_point(own, np.zeros(own.d, own.dtype), threads)
                found[k, :r, -1] = scan.nonfinite(own, threads)
            return found

        total = self._measure(f"distances of {groups} by segment", apart)
        return [
            [(one[k, :r, :r], one[k, :r, -2], one[k, :r, -1].astype(np.int64)) for one in total]
            for k, r in enumerate(map(len, groups))
        ]

    def _measure(self, name: str, kernel: Callable[[Rows], Any]) -> Any:
        """A statistic of each segment; shape (segments, ...).

        A node of the tree is measured at once where it lies in one segment; else down to single tiles, whose
        pieces are cut at coordinates that do not depend on shards.
        """
        whole, ends = self._statistics, self._ends

        def pieces(low: int, high: int) -> Any:
            rows = whole.source.block(low, high)
            cuts = overlaps(ends, whole.offset + low, rows.d)
            none = kernel(rows.block(0, 0))
            return np.stack([kernel(rows.block(a, b)) if a < b else np.zeros_like(none) for a, b in cuts])

        def inside(first: int, size: int) -> bool:
            begin, end = first * TILE, min((first + size) * TILE, whole.d)
            return not any(begin < cut < end for cut in ends)

        return whole.known(name, pieces, inside)
