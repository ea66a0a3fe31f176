"""How rows are packed for sending: not at all, in 16 bits a coordinate, or as one sign bit as in signSGD."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.halves import HalfRows
from horovod_byz.aggregation.packed_signs import SignRows
from horovod_byz.aggregation.source import BLOCK, Source, Whole
from horovod_byz.kernels.rows import Rows

if TYPE_CHECKING:
    import torch

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
    def pack(self, rows: Array, out: Array | None = None) -> Array:
        """Packs (k, d) rows, which are not written to, to (k, elements).

        Args:
            rows: the rows.
            out: memory for the packed rows, such as those of the step before; default new memory. Where
                nothing is packed, it is not used.
        """

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

    def _rewrite(self, received: Array, rows: SignRows | HalfRows, rewrite: Rewrite) -> None:
        """Applies a simulated attack to packed rows; what it writes is packed again.

        By blocks: the values of all rows at once would take the memory that packing saves.
        """
        for begin in range(0, rows.d, BLOCK):
            end = min(begin + BLOCK, rows.d)
            values = np.ascontiguousarray(rows.values(begin, end))
            rewrite(values, begin)
            low, high = self.cut(begin, end)
            received[:, low:high] = self.pack(values)


@dataclass(frozen=True)
class Uncompressed(Compression):
    """Rows are sent unchanged."""

    def label(self, dtype: np.dtype[Any]) -> str:
        return dtype.name

    def packed_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return dtype

    def cut(self, begin: int, end: int) -> tuple[int, int]:
        return begin, end

    def pack(self, rows: Array, out: Array | None = None) -> Array:
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

    def pack(self, rows: Array, out: Array | None = None) -> Array:
        packed = self.room(len(rows), rows.shape[1], rows.dtype) if out is None else out
        for row, bits in zip(
            rows, packed, strict=True
        ):  # row by row, so that signbit's workspace is d bytes, not k d
            bits[:] = np.packbits(np.signbit(row))
        return packed

    def read(self, received: Array, width: int, dtype: np.dtype[Any], rewrite: Rewrite | None) -> Source:
        rows = SignRows(received, width, dtype)
        if rewrite is not None:
            self._rewrite(received, rows, rewrite)
        return rows


_HALVES = ("bfloat16", "float16")


@dataclass(frozen=True)
class HalfCompression(Compression):
    """Rows are sent in 16 bits a coordinate, rounded to the nearest value; half the traffic of float32.

    The aggregator keeps rows packed and computes in the rows' dtype: any rule gives the bits that it gives on
    the rounded rows. Weights, verdicts and redundancy stay exact, since equal rows are rounded alike. The
    result travels in full, unrounded.

    The error of a finite value v is at most
        bfloat16: 2^-8 |v| from 1.2e-38 on;
        float16:  2^-11 |v| from 6.1e-5 to 65504, 2^-25 below; larger values become 65504.
    So gradients of any size fit bfloat16, and float16 is for gradients whose scale is known. A finite value
    never becomes infinite, and NaN and infinities stay what they are, so that a row with them is still named.

    Args:
        dtype: "bfloat16" or "float16", which is that of `hvd.Compression.fp16`.

    Raises:
        ValueError: for another dtype.

    Examples:
        >>> import numpy as np
        >>> import horovod_byz as hb
        >>> from horovod_byz.collect import bind
        >>> session = bind("root", 2, np.float32, 3, compression=hb.HalfCompression())
        >>> rows = np.array([[1.0, 3.001], [2.0, 5.0], [2.001, 7.0]], np.float32)
        >>> session.step(rows, hb.Median()).value
        array([2., 5.], dtype=float32)
    """

    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        if self.dtype not in _HALVES:
            raise ValueError(f"HalfCompression needs the dtype {' or '.join(_HALVES)}, got {self.dtype!r}")

    def label(self, dtype: np.dtype[Any]) -> str:
        return f"{self.dtype[0]}16f{8 * dtype.itemsize}"

    def packed_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return np.dtype(np.uint8)  # two bytes each: every transport can send bytes

    def cut(self, begin: int, end: int) -> tuple[int, int]:
        return 2 * begin, 2 * end

    def pack(self, rows: Array, out: Array | None = None) -> Array:
        packed = self.room(len(rows), rows.shape[1], rows.dtype) if out is None else out
        for row, half in zip(rows, self._halves(packed), strict=True):
            for begin in range(0, len(row), BLOCK):
                _round(row[begin : begin + BLOCK], half[begin : begin + BLOCK])
        return packed

    def read(self, received: Array, width: int, dtype: np.dtype[Any], rewrite: Rewrite | None) -> Source:
        rows = HalfRows(list(self._halves(received)), dtype)
        if rewrite is not None:
            self._rewrite(received, rows, rewrite)
        return rows

    def _halves(self, packed: Array) -> torch.Tensor:
        """The packed rows as a (k, d) tensor over the same memory."""
        import torch

        halves: torch.Tensor = torch.from_numpy(packed.view(np.int16)).view(getattr(torch, self.dtype))
        return halves


def _round(values: Array, half: torch.Tensor) -> None:
    import torch

    from horovod_byz.collect.by_alltoall import tensor_over

    exact = tensor_over(values)
    half.copy_(exact)
    overflowed = half.isinf()
    if overflowed.any():
        limit = torch.finfo(half.dtype).max
        half.copy_(torch.where(exact.isinf(), exact, exact.clamp(-limit, limit)))  # clamp keeps NaN


# The names by which a command line, a configuration and a script call them.
COMPRESSIONS: dict[str, Compression] = {
    "none": Uncompressed(),
    "sign": SignCompression(),
    "bfloat16": HalfCompression("bfloat16"),
    "float16": HalfCompression("float16"),
}


def as_compression(compression: Any) -> Compression:
    """A compression given as itself, by name, as None (nothing is packed) or as one of Horovod's.

    Raises:
        ValueError: for anything else; it names the choices.
    """
    if isinstance(compression, Compression):
        return compression
    name = getattr(compression, "__name__", compression)
    name = {None: "none", "NoneCompressor": "none", "FP16Compressor": "float16"}.get(name, name)
    if isinstance(name, str) and name in COMPRESSIONS:
        return COMPRESSIONS[name]
    raise ValueError(
        f"compression={compression!r} is not supported: leave it out, or use hb.HalfCompression() for 16 "
        'bits a coordinate ("bfloat16" or "float16") or hb.SignCompression() for one ("sign")'
    )
