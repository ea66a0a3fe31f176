"""Counter-based randomness: a number depends on its address, never on how the work was split.

The streams of `common.streams`, addressed by

    key     = (seed, purpose)           purpose = CRC-32 of a name, so that two attacks never share numbers
    counter = (0, tile, worker, step)   the low word counts the draws inside one tile

Reference:
    J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import zlib

import numpy as np

from horovod_byz.common.streams import check_seed, generator

__all__ = ["SHARED", "TILE", "check_seed", "stream", "subset"]

TILE = 4096
"""Coordinates per tile. A tile is always drawn from its start, whatever part of it is asked for."""

SHARED = 2**64 - 1
"""The `worker` of draws that belong to no single worker (the row that is hit, the Byzantine workers)."""


def stream(
    seed: int, purpose: str, *, step: int = 0, worker: int = SHARED, tile: int = 0
) -> np.random.Generator:
    """Returns the random stream of one (seed, purpose, step, worker, tile).

    Args:
        seed: integer in [0, 2^64), the run's seed.
        purpose: name of the use of the numbers.
        step: optimizer step, counted from 0.
        worker: row index, `SHARED` for draws that belong to no single worker.
        tile: index of the tile of `TILE` coordinates.

    Returns:
        A generator. The first k values are the same whether k or more are drawn.

    Raises:
        ValueError: if `seed` is out of range.
    """
    # CRC-32, not hash(), which Python salts anew in every process.
    return generator(seed, zlib.crc32(purpose.encode()), tile, worker, step)


def subset(seed: int, purpose: str, n: int, k: int, *, step: int = 0) -> tuple[int, ...]:
    """Returns k of the n workers, drawn uniformly without replacement, sorted.

    The k smallest of n uniform numbers: plain arithmetic on the stream, so that the choice does not depend
    on the algorithm of a library's `choice`.
    """
    # Stable, so that equal numbers do not depend on the sorting algorithm.
    order = np.argsort(stream(seed, purpose, step=step).random(n), kind="stable")
    return tuple(sorted(int(worker) for worker in order[:k]))
