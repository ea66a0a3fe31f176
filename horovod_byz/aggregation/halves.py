"""Rows of half precision, read in place: widened a block at a time, or for a median not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.source import Combination, Floats, Source
from horovod_byz.kernels import coordinate, distances
from horovod_byz.kernels.rows import Rows


class HalfRows(Source):
    """n rows of d float16 or bfloat16 values.

    Args:
        parts: n one-dimensional NumPy arrays of float16, or CPU tensors of float16 or bfloat16; kept as
            they are and never written to.
        dtype: float32 or float64, of the widened values; both hold every value of half precision exactly.
    """

    def __init__(self, parts: Sequence[Any], dtype: np.dtype[Any] | None = None) -> None:
        self._parts = tuple(parts)
        self.n, self.d = len(self._parts), int(self._parts[0].shape[0])
        self.dtype = np.dtype(np.float32) if dtype is None else dtype

    def values(self, begin: int, end: int) -> npt.NDArray[Any]:
        """The coordinates [begin, end), widened; (n, end - begin)."""
        values = np.empty((self.n, end - begin), self.dtype)
        for row, part in zip(values, self._parts, strict=True):
            _widen(part[begin:end], row)
        return values

    def block(self, begin: int, end: int) -> Rows:
        return Rows(self.values(begin, end))

    def take(self, indices: Sequence[int]) -> HalfRows:
        return HalfRows([self._parts[i] for i in indices], self.dtype)

    def combine(self, decision: Combination, out: npt.NDArray[Any], threads: int, offset: int = 0) -> None:
        if not self._median(decision, out, 0, self.d, threads):
            super().combine(decision, out, threads, offset)

    def combined(
        self, decision: Combination, out: npt.NDArray[Any], begin: int, end: int, threads: int, offset: int
    ) -> Floats:
        if not self._median(decision, out, begin, end, threads):
            return super().combined(decision, out, begin, end, threads, offset)
        return distances.to_point_and_norms(self.block(begin, end), out, threads)

    def _median(
        self, decision: Combination, out: npt.NDArray[Any], begin: int, end: int, threads: int
    ) -> bool:
        """Write the median of the rows as they are, with the bits of widened ones; False: no kernel does."""
        rule = decision.fused
        if not isinstance(rule, tuple) or rule[0] != "median" or self.dtype != np.float32:
            return False
        words = [word for part in self._parts if (word := _words(part[begin:end])) is not None]
        if len(words) < self.n:
            return False
        brain = not isinstance(self._parts[0], np.ndarray) and str(self._parts[0].dtype) == "torch.bfloat16"
        return coordinate.median_half(words, out, brain, threads)


def _words(part: Any) -> npt.NDArray[np.uint16] | None:
    """The bits of a row, without a copy; None where they do not lie side by side in native byte order."""
    if not isinstance(part, np.ndarray):
        import torch

        part = part.view(torch.int16).numpy()
    if not part.dtype.isnative or not part.flags.aligned or not part.flags.c_contiguous:
        return None
    return np.asarray(part).view(np.uint16)


def _widen(part: Any, row: npt.NDArray[Any]) -> None:
    if isinstance(part, np.ndarray):
        row[:] = part
    else:  # a tensor, so torch is imported; NumPy has no bfloat16 and could not convert it
        import torch

        torch.from_numpy(row).copy_(part)
