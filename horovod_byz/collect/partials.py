"""Partial statistics as bytes, parsed with bounds checks and never unpickled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.shard import Partial
from horovod_byz.aggregation.tiles import nodes
from horovod_byz.collect.errors import HeaderMismatchError, names

Bytes = npt.NDArray[np.uint8]

_HEAD = 8


def pack(partial: Partial) -> Bytes:
    """The array as bytes: its first length, then its values."""
    return np.frombuffer(np.int64(len(partial)).tobytes() + partial.tobytes(), np.uint8)


def size(like: Partial, length: int) -> int:
    """Bytes that `pack` writes for a partial of that first length, and of `like` in all else."""
    return _HEAD + length * math.prod(like.shape[1:]) * like.itemsize


def lengths(shards: Sequence[tuple[int, int]], d: int) -> list[int]:
    """The first length of every statistic of each shard: one entry per node of the summation tree."""
    return [max(1, len(nodes(begin, end, d))) for begin, end in shards]


def unpack(data: Bytes, like: Partial, rank: int | Sequence[int], length: int | None = None) -> Partial:
    """Reads what `pack` wrote.

    Args:
        data: the bytes a rank sent.
        like: this rank's own partial: dtype and all lengths but the first are the same.
        rank: the sender; several ranks if they elected the bytes.
        length: the first length, which follows from the sender's shard; None for any.

    Raises:
        HeaderMismatchError: if the bytes are not such a partial.
    """
    text = data.tobytes()
    first = int.from_bytes(text[:_HEAD], "little", signed=True)
    # Python's integers: NumPy's would overflow for lengths that a liar chooses.
    count = first * math.prod(like.shape[1:])
    if first < 0 or len(text) != _HEAD + count * like.itemsize or (length is not None and first != length):
        ranks = [rank] if isinstance(rank, int) else list(rank)
        raise HeaderMismatchError(f"{names(ranks)} sent statistics that cannot be read", ranks)
    return np.frombuffer(text, like.dtype, count, _HEAD).reshape(first, *like.shape[1:])
