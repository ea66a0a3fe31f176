"""The interface through which a rule reads rows, whatever their storage."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from horovod_byz.kernels import distances
from horovod_byz.kernels.rows import TILE, Rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Groups = tuple[tuple[int, ...], ...]
# A rule of `distances.combined`: weights, or a kernel and its f.
FusedRule = Floats | tuple[str, int]

# Rows that must be computed are computed for this many coordinates at a time: 64k stay in a core's cache for
# the usual number of rows, and such blocks are nodes of the summation tree.
BLOCK = 16 * TILE


class Combination(Protocol):
    """A row of which each coordinate depends on that coordinate of the rows only, such as a `Decision`."""

    @property
    def fused(self) -> FusedRule | None:
        """What `distances.combined` calls it; None where no kernel combines and measures at once."""

    def combine(self, rows: Rows, out: npt.NDArray[Any], threads: int, offset: int) -> None:
        """Writes the row to `out`; `offset` is the coordinate of the rows' first column."""


class Source(ABC):
    """n rows over the d coordinates of this rank: given, or computed from other rows when they are read.

    Attributes:
        n: number of rows.
        d: number of coordinates.
        dtype: dtype of the blocks, float32 or float64.
        at_once: largest number of coordinates in a block.
    """

    n: int
    d: int
    dtype: np.dtype[Any]
    at_once: int = BLOCK

    @abstractmethod
    def block(self, begin: int, end: int) -> Rows:
        """The coordinates [begin, end), as kernels read them; `begin` is a multiple of `TILE`."""

    @abstractmethod
    def take(self, indices: Sequence[int]) -> Source:
        """Some of the rows, in that order."""

    def to_point(self, point: npt.NDArray[Any], begin: int, end: int, threads: int) -> Floats:
        """Squared L2 distances to a point, and squared norms, over [begin, end).

        Returns:
            (2, n + 1): distances of the rows and 0; norms of the rows and of the point.
        """
        return distances.to_point_and_norms(self.block(begin, end), point, threads)

    def combined(
        self, decision: Combination, out: npt.NDArray[Any], begin: int, end: int, threads: int, offset: int
    ) -> Floats:
        """`combine` over [begin, end), and `to_point` of the result while the block is in a cache.

        Args:
            decision: gives the row.
            out: (end - begin,), where it is written.
            begin: first coordinate.
            end: the coordinate after the last.
            threads: threads for the kernels.
            offset: coordinate of `begin` in all shards together.
        """
        rows, rule = self.block(begin, end), decision.fused
        if rule is not None:
            return distances.combined(rows, rule, out, threads)
        decision.combine(rows, out, threads, offset)
        return distances.to_point_and_norms(rows, out, threads)

    def combine(self, decision: Combination, out: npt.NDArray[Any], threads: int, offset: int = 0) -> None:
        """Writes the row that a decision gives to `out`, (d,); `offset` is this shard's first coordinate."""
        for begin in range(0, self.d, self.at_once):
            end = min(begin + self.at_once, self.d)
            decision.combine(self.block(begin, end), out[begin:end], threads, offset + begin)


class Whole(Source):
    """Rows that kernels read in place, so that any range of coordinates is one block.

    Args:
        rows: the rows; nothing is copied.
    """

    at_once = sys.maxsize

    def __init__(self, rows: Rows) -> None:
        self._rows, self.n, self.d, self.dtype = rows, rows.n, rows.d, rows.dtype

    def block(self, begin: int, end: int) -> Rows:
        return self._rows.block(begin, end)

    def take(self, indices: Sequence[int]) -> Whole:
        return Whole(self._rows.take(indices))
