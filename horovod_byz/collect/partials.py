"""Partial statistics as bytes: fixed arrays, read with bounds checks, never unpickled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.tiles import nodes
from horovod_byz.collect.errors import TransportError, names

Bytes = npt.NDArray[np.uint8]
Partial = dict[str, npt.NDArray[Any]]


def pack(partial: Partial) -> Bytes:
    """Lays the arrays one after another, in the order of their names, each after its first length."""
    found = []
    for name in sorted(partial):
        array = np.ascontiguousarray(partial[name])
        found.append(np.array([array.shape[0]], np.int64).tobytes())
        found.append(array.tobytes())
    return np.frombuffer(b"".join(found), np.uint8)


def lengths(shards: Sequence[tuple[int, int]], d: int) -> list[int]:
    """The first length of every statistic of each shard: one entry per node of the summation tree."""
    return [max(1, len(nodes(begin, end, d))) for begin, end in shards]


def unpack(data: Bytes, like: Partial, rank: int | Sequence[int], length: int | None = None) -> Partial:
    """Reads what `pack` wrote.

    Args:
        data: the bytes a rank sent.
        like: this rank's own partial: names, dtypes and all lengths but the first are the same.
        rank: who sent it; several ranks where it was elected.
        length: the first length of every array, which the receiver knows from the sender's shard; None
            for any.

    Raises:
        TransportError: if the bytes are not such a partial.
    """
    ranks = [rank] if isinstance(rank, int) else list(rank)
    text, at, read = data.tobytes(), 0, {}
    for name in sorted(like):
        own = like[name]
        first = int.from_bytes(text[at : at + 8], "little", signed=True)
        # Python's integers: NumPy's would wrap around for the lengths that a liar sends.
        count = first * math.prod(own.shape[1:])
        at += 8
        if first < 0 or (length is not None and first != length) or at + count * own.itemsize > len(text):
            raise TransportError(f"{names(ranks)} sent statistics that cannot be read ({name})", ranks)
        read[name] = np.frombuffer(text, own.dtype, count, at).reshape(first, *own.shape[1:])
        at += count * own.itemsize
    if at != len(text):
        raise TransportError(f"{names(ranks)} sent more statistics than it should", ranks)
    return read
