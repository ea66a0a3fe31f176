"""Rows of half precision, read in place: each block is widened, the whole matrix never."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.source import Source
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


def _widen(part: Any, row: npt.NDArray[Any]) -> None:
    if isinstance(part, np.ndarray):
        row[:] = part
    else:  # a tensor, so torch is imported; NumPy has no bfloat16 and could not convert it
        import torch

        torch.from_numpy(row).copy_(part)
