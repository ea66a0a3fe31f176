"""Flipped bits in single values, as a failing memory or link produces them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile
from horovod_byz.attacks.registry import register


def flip_bits(values: NDArray[np.float32], bits: tuple[int, ...] = (22, 29, 30, 31)) -> NDArray[np.float32]:
    """Returns float32 `values` with the 0-based `bits` flipped; twice gives the values back."""
    mask = np.uint32(sum(1 << bit for bit in bits))
    flipped: NDArray[np.float32] = (np.ascontiguousarray(values).view(np.uint32) ^ mask).view(np.float32)
    return flipped


@register
@dataclass(frozen=True)
class BitFlip(Attack):
    """In each of the first `coordinates` columns, one row drawn at random has some float32 bits flipped.

        row_i[j] := flip(row_i[j]),    i ~ uniform over the n rows, independently for each j < coordinates

    The default bits are 0-based: 22 (top of the mantissa), 29 and 30 (exponent bits of weight 64 and 128),
    and 31 (sign), as in the authors' code; 1.0 becomes -2.767e19 and 0.0 becomes -5.534e19. The paper writes
    "22th, 30th, 31th and 32th", which mixes the bases: `bits=(21, 29, 30, 31)` is its 1-based reading.
    Float64 rows are flipped in their float32 image, as if they had been sent in float32. Values with |x| in
    [2^-64, 2^-63) become infinite or NaN.

    Args:
        bits: 0-based bits of the float32 pattern.
        coordinates: number of attacked columns, counted from the first; all of them where d is smaller.

    Raises:
        ValueError: if `bits` is empty, repeats a bit or leaves 0..31, or `coordinates` is negative.

    Reference:
        Xie, Koyejo, Gupta 2018, section 5.4.
    """

    bits: tuple[int, ...] = (22, 29, 30, 31)
    coordinates: int = 1000

    threat: ClassVar[Threat] = "dimensional"
    knows: ClassVar[Knowledge] = "own row"

    def __post_init__(self) -> None:
        bits = tuple(self.bits)
        object.__setattr__(self, "bits", bits)
        integers = all(isinstance(bit, int) and not isinstance(bit, bool) for bit in bits)
        if not bits or not integers or len(set(bits)) < len(bits) or min(bits) < 0 or max(bits) > 31:
            raise ValueError(f"BitFlip: bits must be different integers in 0..31, got {self.bits!r}")
        if (
            isinstance(self.coordinates, bool)
            or not isinstance(self.coordinates, int)
            or self.coordinates < 0
        ):
            raise ValueError(f"BitFlip: coordinates must be an integer >= 0, got {self.coordinates!r}")

    def strike(self, tile: Tile) -> None:
        columns = np.arange(max(min(self.coordinates, tile.end) - tile.begin, 0))
        if not len(columns):
            return
        choice = (tile.uniform()[: len(columns)] * len(tile.targets)).astype(np.intp)
        rows = np.asarray(tile.targets)[choice]
        values: NDArray[Any] = tile.block[rows, columns].astype(np.float32)
        tile.block[rows, columns] = flip_bits(values, self.bits)
