"""Short digests of rows, sent directly, against which relayed rows are checked."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

SIZE = 16  # bytes; 128 bits, since a relay has the length of one step to search for a second preimage


def digest(block: npt.NDArray[Any]) -> bytes:
    """BLAKE3 of a C-contiguous array's bytes: n rows are hashed at each step, so it must be fast."""
    if block.size == 0:
        return bytes(SIZE)
    return _blake3(block.reshape(-1).view(np.uint8).data)


def digests(blocks: Sequence[npt.NDArray[Any]], threads: int = 1) -> list[bytes]:
    """The digest of each block; hashing releases the GIL, so threads help."""
    if threads < 2 or len(blocks) < 2:
        return [digest(block) for block in blocks]
    with ThreadPoolExecutor(min(threads, len(blocks))) as pool:
        return list(pool.map(digest, blocks))


def of_text(*parts: str) -> bytes:
    """Digest of some text, for configuration that all ranks must share."""
    return _blake3("\0".join(parts).encode())


def _blake3(data: bytes | memoryview) -> bytes:
    from blake3 import blake3  # here, so that rules work without blake3 installed

    return blake3(data).digest(SIZE)
