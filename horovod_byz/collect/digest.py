"""Short digests of rows, sent directly, that show whether a relayed row arrived as it was sent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

SIZE = 16  # bytes; 128 bits, since a relay may search for a second preimage but gets one step to do so


def digest(block: npt.NDArray[Any]) -> bytes:
    """BLAKE2b of a C-contiguous array's bytes."""
    if block.size == 0:
        return bytes(SIZE)
    return hashlib.blake2b(block.reshape(-1).view(np.uint8).data, digest_size=SIZE).digest()


def digests(blocks: Sequence[npt.NDArray[Any]], threads: int = 1) -> list[bytes]:
    """The digest of each block; hashlib releases the GIL, so threads help."""
    if threads < 2 or len(blocks) < 2:
        return [digest(block) for block in blocks]
    with ThreadPoolExecutor(min(threads, len(blocks))) as pool:
        return list(pool.map(digest, blocks))


def of_text(*parts: str) -> bytes:
    """Digest of some text, for configuration that all ranks must share."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=SIZE).digest()
