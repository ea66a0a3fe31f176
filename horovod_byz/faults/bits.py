"""Flips bits of floating-point numbers, counted as in a float32: 31 the sign, 30 to 23 its exponent.

A float64 or a 16-bit float is hit at the same distance from its sign, so that bit 30 is the highest of the
exponent everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

SIGN = 31


def checked(owner: str, bits: Any) -> tuple[int, ...]:
    """The bits as a tuple.

    Raises:
        TypeError, ValueError: if they are not different whole numbers in 0..31.
    """
    several = tuple(bits) if isinstance(bits, (tuple, list)) else (bits,)
    for bit in several:
        if isinstance(bit, bool) or not isinstance(bit, (int, np.integer)):
            raise TypeError(f"{owner}: bit must be a whole number in 0..31, or a tuple of them, got {bits!r}")
    if not several or len(set(several)) < len(several) or min(several) < 0 or max(several) > SIGN:
        raise ValueError(
            f"{owner}: bit must be in 0..31 (0 the lowest of the mantissa, 31 the sign), or a tuple of "
            f"different ones, got {bits!r}"
        )
    return tuple(int(bit) for bit in several)


def mask(bits: Sequence[int], itemsize: int) -> int:
    """The pattern that flips these bits in a number of `itemsize` bytes.

    Raises:
        ValueError: if a 16-bit number has no such bit.
    """
    shift = 8 * itemsize - SIGN - 1
    low = [bit for bit in bits if bit + shift < 0]
    if low:
        raise ValueError(
            f"a number of {8 * itemsize} bits has no bit {low[0]}: its bits are {-shift}..{SIGN}, counted as "
            "in a float32"
        )
    return sum(1 << bit + shift for bit in bits)


def flip(values: Floats, where: npt.NDArray[np.int64], patterns: npt.NDArray[np.uint64]) -> None:
    """Flips, in `values` (d,), the patterns' bits of the numbers at `where`, in place."""
    whole = values.view(np.dtype(f"u{values.itemsize}"))
    whole[where] ^= patterns.astype(whole.dtype)
