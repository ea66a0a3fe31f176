"""Rows of +1 and -1, kept as one bit per value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.decision import Coordinatewise
from horovod_byz.aggregation.source import Combination, Floats, Source
from horovod_byz.kernels import signs
from horovod_byz.kernels.rows import Rows

Array = npt.NDArray[Any]

# _SIGNS[byte]: the eight values that a byte's bits stand for, the highest bit first.
_SIGNS = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
_TABLES = {dtype: _SIGNS.astype(dtype) for dtype in (np.dtype(np.float32), np.dtype(np.float64))}


class SignRows(Source):
    """Rows of +1 and -1, unpacked block by block where a rule needs values.

    The majority, and distances to a row of -1, 0 and 1 such as a majority, are computed on the bits.

    Args:
        packed: (n, ceil(d / 8)) uint8, as `numpy.packbits(numpy.signbit(rows), axis=1)` gives it.
        d: number of coordinates.
        dtype: float32 or float64, of the unpacked values.
    """

    def __init__(self, packed: Array, d: int, dtype: np.dtype[Any]) -> None:
        self.n, self.d, self.dtype = len(packed), d, dtype
        self._packed, self._table = packed, _TABLES[dtype]

    def values(self, begin: int, end: int) -> Array:
        """The values of the coordinates [begin, end), `begin` a multiple of 8; (n, end - begin)."""
        packed = self._packed[:, begin // 8 : -(-end // 8)]
        unpacked = self._table[packed].reshape(self.n, 8 * packed.shape[1])
        return unpacked[:, : end - begin]

    def block(self, begin: int, end: int) -> Rows:
        return Rows(self.values(begin, end))

    def combine(self, decision: Combination, out: Array, threads: int, offset: int = 0) -> None:
        """See `Source.combine`; counts bits for the majority of signs, which is also their median."""
        # Among +1 and -1 the median is the majority's sign, and 0 (their mean) on a tie: one kernel for both.
        if (
            isinstance(decision, Coordinatewise)
            and decision.kernel in ("sign_majority", "median")
            and len(decision.chosen)
        ):
            self._majority(self._packed[decision.chosen], out, threads)
        else:
            super().combine(decision, out, threads, offset)

    def _majority(self, packed: Array, out: Array, threads: int) -> None:
        negative, tied = signs.majority(packed, threads)
        whole = self.d // 8
        # The table turns a byte into eight values at once; mode="clip" skips a bounds check that cannot fail.
        np.take(self._table, negative[:whole], axis=0, out=out[: 8 * whole].reshape(-1, 8), mode="clip")
        out[8 * whole :] = self._table[negative[whole:]].reshape(-1)[: self.d % 8]
        if tied.any():
            out[np.unpackbits(tied, count=self.d).view(np.bool_)] = 0

    def combined(
        self, decision: Combination, out: Array, begin: int, end: int, threads: int, offset: int
    ) -> Floats:
        """See `Source.combined`; on the bits where `combine` and `to_point` are."""
        part = SignRows(self._packed[:, begin // 8 : -(-end // 8)], end - begin, self.dtype)
        part.combine(decision, out, threads, offset)
        return part.to_point(out, 0, part.d, threads)

    def to_point(self, point: Array, begin: int, end: int, threads: int) -> Floats:
        """See `Source.to_point`; each differing sign adds (1 - -1)^2 = 4, each 0 of the point adds 1."""
        size = np.abs(point)
        counted = size == 1
        zeros = len(point) - np.count_nonzero(counted)
        if np.count_nonzero(size == 0) != zeros:  # the point has values other than -1, 0 and 1
            return super().to_point(point, begin, end, threads)
        packed = self._packed[:, begin // 8 : -(-end // 8)]
        differ = signs.differences(packed, np.packbits(np.signbit(point)), np.packbits(counted), threads)
        numbers = np.zeros((2, self.n + 1))
        numbers[0, :-1] = 4 * differ + zeros
        numbers[1] = float(len(point))
        numbers[1, -1] -= zeros
        return numbers

    def take(self, indices: Sequence[int]) -> SignRows:
        return SignRows(self._packed[list(indices)], self.d, self.dtype)
