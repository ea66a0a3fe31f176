"""Silent corruption: flipped bits of a row's values, alone, together, in bursts, and as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.faults import bits
from horovod_byz.faults.bits import Floats
from horovod_byz.faults.rows import DrawnRowFault, Nan, RowFault

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Bitflip(DrawnRowFault):
    """Bits of one value are flipped, or of `count` values.

    Args:
        bit: the bit, or a tuple of several, counted as in a float32: 0..22 its mantissa, 23..30 its
            exponent, 31 the sign.
        count: how many values.
        coordinate: the first value hit, for a broken memory cell; None: drawn anew at each step.
    """

    bit: int | tuple[int, ...]
    count: int = 1
    coordinate: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        several = bits.checked(self.name, self.bit)
        object.__setattr__(self, "bit", several[0] if len(several) == 1 else several)
        self._count("count", least=1)
        if self.coordinate is not None:
            self._count("coordinate")

    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        where = self._where(row.size, step)
        pattern = bits.mask(bits.checked(self.name, self.bit), row.itemsize)
        bits.flip(row, where, np.full(where.size, pattern, np.uint64))

    def _where(self, d: int, step: int) -> Positions:
        if self.coordinate is None:
            return self._draw(step).choice(d, min(self.count, d), replace=False).astype(np.int64)
        if self.coordinate >= d:
            raise ValueError(f"{self}: the row has d = {d} values, so coordinate must be below it")
        return np.arange(self.coordinate, min(self.coordinate + self.count, d))


@dataclass(frozen=True, kw_only=True)
class Burst(DrawnRowFault):
    """A run of values, adjacent or at equal distances, each with bits of its own flipped.

    Two fifths of the values have one bit flipped, the others 2 to 8: on a gate-level model of a GPU under
    40 % of silent corruptions are single-bit flips, and they come in bursts of adjacent values and at
    periodic positions, such as one lane of a vector unit.

    Args:
        length: number of values.
        period: distance between them; 1 for adjacent ones.
        highest: the highest bit that is flipped; 31 for any, 22 for the mantissa alone.

    Reference: arXiv 2605.04213.
    """

    length: int = 32
    period: int = 1
    highest: int = bits.SIGN

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("length", least=1)
        self._count("period", least=1)
        bits.checked(self.name, self.highest)

    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        draw = self._draw(step)
        last = (self.length - 1) * self.period
        begin = int(draw.integers(0, max(1, row.size - last)))
        where = np.arange(begin, min(begin + last + 1, row.size), self.period)
        bits.flip(row, where, np.array([self._pattern(draw, row.itemsize) for _ in where], np.uint64))

    def _pattern(self, draw: np.random.Generator, itemsize: int) -> int:
        lowest = max(0, 32 - 8 * itemsize)
        room = self.highest - lowest + 1
        several = 1 if draw.random() < 0.4 else int(draw.integers(2, 9))
        chosen = draw.choice(room, min(several, room), replace=False) + lowest
        return bits.mask([int(bit) for bit in chosen], itemsize)


@dataclass(frozen=True, kw_only=True)
class Corrupt(DrawnRowFault):
    """Silent corruption as published: at each step another pattern is drawn.

    | share | pattern |
    | --- | --- |
    | 39 % | one bit of one value |
    | 30 % | 2 to 8 bits of one value |
    | 20 % | a burst of 2 to 64 adjacent values |
    | 10 % | a burst at a period of 2 to 64 |
    | 1 % | one NaN |

    Reference: arXiv 2605.04213, 2502.12340 for the kinds and for the shares of single-bit flips and of
    non-finite values; how the rest is shared among the other patterns is our choice.
    """

    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        draw = self._draw(step)
        kind, seed = draw.random(), int(draw.integers(2**63))
        length, period = int(draw.integers(2, 65)), int(draw.integers(2, 65))
        bit = draw.choice(32, int(draw.integers(2, 9)), replace=False).tolist()
        who: dict[str, Any] = {"worker": self.worker, "seed": seed}
        drawn: RowFault
        if kind < 0.39:
            drawn = Bitflip(bit=int(bit[0]), **who)
        elif kind < 0.69:
            drawn = Bitflip(bit=tuple(bit), **who)
        elif kind < 0.89:
            drawn = Burst(length=length, **who)
        elif kind < 0.99:
            drawn = Burst(length=length, period=period, **who)
        else:
            drawn = Nan(count=1, **who)
        drawn.strike(row, step, earlier)
