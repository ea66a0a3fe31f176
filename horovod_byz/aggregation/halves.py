"""Rows of half precision, read in place: each block is widened to float32, the whole matrix never."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from horovod_byz.aggregation.source import Source
from horovod_byz.kernels.rows import Rows


class HalfRows(Source):
    """n rows of d float16 or bfloat16 values.

    Args:
        parts: n one-dimensional NumPy arrays of float16, or CPU tensors of float16 or bfloat16; kept as
            they are and never written to.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = tuple(parts)
        self.n, self.d = len(self._parts), int(self._parts[0].shape[0])

    def block(self, begin: int, end: int) -> Rows:
        """The coordinates [begin, end) in float32, which holds every value of half precision exactly."""
        values = np.empty((self.n, end - begin), self.dtype)
        for row, part in zip(values, self._parts, strict=True):
            _widen(part[begin:end], row)
        return Rows(values)

    def take(self, indices: Sequence[int]) -> HalfRows:
        return HalfRows([self._parts[i] for i in indices])


def _widen(part: Any, row: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    if isinstance(part, np.ndarray):
        row[:] = part
    else:  # a tensor, so torch is imported; NumPy has no bfloat16 and could not convert it
        import torch

        torch.from_numpy(row).copy_(part)
