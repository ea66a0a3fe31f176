"""Rows in several blocks, one per range of coordinates, each of which may still be on its way."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.source import Combination, Floats, Source
from horovod_byz.kernels.rows import Rows


class Deferred(Source):
    """Rows that are made when they are first read, such as those that a transport is still receiving.

    Args:
        make: gives the rows; called once.
        n: their number.
        d: number of coordinates.
        dtype: dtype of the blocks.
        at_once: largest number of coordinates in a block, as theirs.
    """

    def __init__(
        self, make: Callable[[], Source], n: int, d: int, dtype: np.dtype[Any], at_once: int
    ) -> None:
        self.n, self.d, self.dtype = n, d, dtype
        self.at_once = at_once
        self._make, self._made, self._making = make, None, threading.Lock()

    _made: Source | None

    @property
    def made(self) -> Source:
        """The rows."""
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    def block(self, begin: int, end: int) -> Rows:
        return self.made.block(begin, end)

    def take(self, indices: Sequence[int]) -> Source:
        chosen = list(indices)  # does not wait: what is taken is read later
        return Deferred(lambda: self.made.take(chosen), len(chosen), self.d, self.dtype, self.at_once)

    def to_point(self, point: npt.NDArray[Any], begin: int, end: int, threads: int) -> Floats:
        return self.made.to_point(point, begin, end, threads)

    def combined(
        self, decision: Combination, out: npt.NDArray[Any], begin: int, end: int, threads: int, offset: int
    ) -> Floats:
        return self.made.combined(decision, out, begin, end, threads, offset)


class Joined(Source):
    """Rows whose columns lie in several sources, one after another. A block lies in one of them.

    Args:
        parts: the sources, at least one; the same rows in each.
    """

    def __init__(self, parts: Sequence[Source]) -> None:
        self._parts = tuple(parts)
        self._ends = list(itertools.accumulate(part.d for part in parts))
        self.n, self.d, self.dtype = parts[0].n, self._ends[-1], parts[0].dtype
        self.at_once = min(part.at_once for part in parts)

    def block(self, begin: int, end: int) -> Rows:
        part, start = self._part(begin, end)
        return part.block(begin - start, end - start)

    def take(self, indices: Sequence[int]) -> Joined:
        return Joined([part.take(indices) for part in self._parts])

    def to_point(self, point: npt.NDArray[Any], begin: int, end: int, threads: int) -> Floats:
        part, start = self._part(begin, end)
        return part.to_point(point, begin - start, end - start, threads)

    def combined(
        self, decision: Combination, out: npt.NDArray[Any], begin: int, end: int, threads: int, offset: int
    ) -> Floats:
        part, start = self._part(begin, end)
        return part.combined(decision, out, begin - start, end - start, threads, offset)

    def _part(self, begin: int, end: int) -> tuple[Source, int]:
        """The source of the columns [begin, end), and its first column."""
        i = min(bisect.bisect_right(self._ends, begin), len(self._parts) - 1)
        start = self._ends[i] - self._parts[i].d
        if end > self._ends[i]:
            raise ValueError(
                f"columns {begin} to {end} lie in two parts of the rows, which end at {self._ends}"
            )
        return self._parts[i], start
