"""Partial statistics as bytes: fixed arrays, read with bounds checks, never unpickled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.collect.errors import TransportError

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


def unpack(data: Bytes, like: Partial, rank: int) -> Partial:
    """Reads what `pack` wrote.

    Args:
        data: the bytes a rank sent.
        like: this rank's own partial: names, dtypes and all lengths but the first are the same.
        rank: who sent it.

    Raises:
        TransportError: if the bytes are not such a partial.
    """
    text, at, found = data.tobytes(), 0, {}
    for name in sorted(like):
        own = like[name]
        length = int.from_bytes(text[at : at + 8], "little", signed=True)
        shape = (length, *own.shape[1:])
        size = int(np.prod(shape[1:], dtype=np.int64)) * length * own.itemsize
        at += 8
        if length < 0 or at + size > len(text):
            raise TransportError(f"rank {rank} sent statistics that cannot be read ({name})", [rank])
        found[name] = np.frombuffer(text, own.dtype, size // own.itemsize, at).reshape(shape)
        at += size
    if at != len(text):
        raise TransportError(f"rank {rank} sent more statistics than it should", [rank])
    return found
