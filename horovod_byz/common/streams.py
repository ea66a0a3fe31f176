"""Streams of random numbers that are addressed instead of advanced: the same wherever and whenever drawn.

Philox is a keyed bijection of a 256-bit counter. A key is a seed and a purpose, so that adding a purpose
changes no other stream; the counter says where the numbers are used, so that a run resumes at any step, and
replicas draw alike. `attacks.randomness` names its purposes by words, whose checksums are above those here.

Reference: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What numbers are drawn for. The values are part of every result: new ones go to the end."""

    BATCH = 0
    AUGMENT = 1
    MODEL = 2
    ORDER = 3
    SAMPLE = 4


def check_seed(seed: int) -> int:
    """Return `seed` if it is an integer in [0, 2^64), the range that a Philox key word holds.

    Raises:
        ValueError: `seed` is not such an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= int(seed) < 2**64:
        raise ValueError(f"seed must be an integer in [0, 2^64), got {seed!r}: pass a non-negative integer")
    return int(seed)


def generator(
    seed: int, purpose: int, first: int = 0, second: int = 0, third: int = 0
) -> np.random.Generator:
    """The stream of one (seed, purpose, place); its first k values are the same however many are drawn.

    Args:
        seed: integer in [0, 2^64).
        purpose: a `Purpose`, or another number below 2^64 that names what the numbers are for.
        first: first coordinate of the place, such as a redundancy group.
        second: second coordinate, such as a step.
        third: third coordinate.

    Raises:
        ValueError: if the seed is out of range.
    """
    key = np.array([check_seed(seed), purpose], np.uint64)
    # The counter's low word counts the draws.
    counter = np.array([0, first, second, third], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def torch_seed(seed: int, purpose: int, group: int, step: int) -> int:
    """A seed for torch's generators, at one step of one redundancy group."""
    return int(generator(seed, purpose, group, step).integers(0, 2**62))
