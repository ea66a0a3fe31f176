"""How rows are packed for sending: not at all, or one sign bit per coordinate as in signSGD."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.packed_signs import SignRows
from horovod_byz.aggregation.source import BLOCK, Source, Whole
from horovod_byz.kernels.rows import Rows

Array = npt.NDArray[Any]

# Rewrites an (n, width) block in place; the second argument is its first coordinate, counted from the
# shard's.
Rewrite = Callable[[Array, int], None]


class Compression(ABC):
    """The format in which rows are sent to the aggregator, as a value; equal on all ranks."""

    @abstractmethod
    def label(self, dtype: np.dtype[Any]) -> str:
        """Name of the format in headers, at most eight ASCII letters; different for different formats."""

    @abstractmethod
    def packed_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of packed elements, for rows of `dtype`."""

    @abstractmethod
    def cut(self, begin: int, end: int) -> tuple[int, int]:
        """The range of packed elements with the coordinates [begin, end); `begin` is a multiple of TILE."""

    @abstractmethod
    def pack(self, rows: Array) -> Array:
        """Packs (k, d) rows, which are not written to, to (k, elements)."""

    @abstractmethod
    def read(self, received: Array, width: int, dtype: np.dtype[Any], rewrite: Rewrite | None) -> Source:
        """Unpacks (n, elements) packed rows, or wraps them so that they are unpacked block by block.

        Args:
            received: packed rows over a range of coordinates; written to where `rewrite` is given.
            width: number of coordinates.
            dtype: dtype of the rows.
            rewrite: a simulated attack on the received values; called once per coordinate.
        """

    def room(self, n: int, width: int, dtype: np.dtype[Any]) -> Array:
        """Uninitialised memory for n packed rows of `width` coordinates."""
        return np.empty((n, self.cut(0, width)[1]), self.packed_dtype(dtype))


@dataclass(frozen=True)
class Uncompressed(Compression):
    """Rows are sent unchanged."""

    def label(self, dtype: np.dtype[Any]) -> str:
        return dtype.name

    def packed_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return dtype

    def cut(self, begin: int, end: int) -> tuple[int, int]:
        return begin, end

    def pack(self, rows: Array) -> Array:
        return rows

    def read(self, received: Array, width: int, dtype: np.dtype[Any], rewrite: Rewrite | None) -> Source:
        if rewrite is not None:
            rewrite(received, 0)
        return Whole(Rows(received))


@dataclass(frozen=True)
class SignCompression(Compression):
    """Workers send one bit per coordinate, its sign; the aggregator reads the bits as rows of +1 and -1.

        bit_j = signbit(v_j),    received v_j = 1 - 2 bit_j

    The bit is the sign bit of the number, so every value has one: +0 is sent as +1, -0 as -1, and NaN
    and infinities as the sign they carry. A coordinate whose gradient is 0 at every worker therefore
    moves, by -lr per step, which rows of float values would leave alone.

    Signs are rows like any other: any rule may be applied to them, and gives the bits that it gives on
    `numpy.copysign(1, rows)`. With `SignMajority()` the result is signSGD's majority vote, -1, 0 (a
    tie) or +1 per coordinate, and the step of `torch.optim.SGD` is w -= lr * majority, unscaled; with
    `Mean()` it is the mean of the signs. A message is d/8 bytes instead of 4d. The aggregator keeps
    rows packed: `SignMajority` and `Median` count bits, other rules have 65536 coordinates unpacked at a
    time. The result travels in full.

    A simulated attack sees the received values, +1 and -1, and what it writes is reduced to its sign
    bit again: a Byzantine worker's message has no room for more.

    Reference:
        Bernstein, Zhao, Azizzadenesheli, Anandkumar (2019), signSGD with majority vote, Algorithm 1;
        Rajput et al. (2019), DETOX, section 5.

    Examples:
        >>> import numpy as np
        >>> import horovod_byz as hb
        >>> from horovod_byz.collect import bind
        >>> session = bind("root", 4, np.float32, 3, compression=hb.SignCompression())
        >>> rows = np.array([[0.3, -2.0, 0.0, -0.0], [9.0, -1.0, 5.0, -7.0], [-0.1, 4.0, -1.0, 1.0]], "f")
        >>> session.step(rows, hb.SignMajority()).value
        array([ 1., -1.,  1., -1.], dtype=float32)
    """

    def label(self, dtype: np.dtype[Any]) -> str:
        return f"sign{8 * dtype.itemsize}"

    def packed_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def cut(self, begin: int, end: int) -> tuple[int, int]:
        return begin // 8, -(-end // 8)

    def pack(self, rows: Array) -> Array:
        packed = self.room(len(rows), rows.shape[1], rows.dtype)
        for row, bits in zip(
            rows, packed, strict=True
        ):  # row by row, so that signbit's workspace is d bytes, not k d
            bits[:] = np.packbits(np.signbit(row))
        return packed

    def read(self, received: Array, width: int, dtype: np.dtype[Any], rewrite: Rewrite | None) -> Source:
        rows = SignRows(received, width, dtype)
        if rewrite is not None:
            # By blocks: the values of all rows at once would take the memory that packing saves.
            for begin in range(0, width, BLOCK):
                end = min(begin + BLOCK, width)
                values = np.ascontiguousarray(rows.values(begin, end))
                rewrite(values, begin)
                low, high = self.cut(begin, end)
                received[:, low:high] = self.pack(values)
        return rows
