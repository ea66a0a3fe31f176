"""What broken hardware or software makes of the row that a worker sends; each hits that row in place.

The row is hit before it is digested and sent, as a fault of the worker's processor or memory would hit it:
the digest then belongs to the wrong row, and replicas disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from horovod_byz.attacks.randomness import stream
from horovod_byz.attacks.registry import from_data
from horovod_byz.common.words import parse_word
from horovod_byz.faults import bits
from horovod_byz.faults.base import Drawn, Fault
from horovod_byz.faults.bits import Floats

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RowFault(Fault):
    """A fault of one worker's row.

    Args:
        worker: the worker.
    """

    worker: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("worker")

    @property
    def depth(self) -> int:
        """How many of the worker's earlier rows it needs."""
        return 0

    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        """Hits `row`, (d,), in place; `earlier`: rows that the worker computed before, oldest first."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class DrawnRowFault(RowFault, Drawn):
    """A fault of positions of a row that are drawn anew at each step."""

    def _draw(self, step: int) -> np.random.Generator:
        return stream(self.seed, f"fault {self.name}", step=step, worker=self.worker)


@dataclass(frozen=True, kw_only=True)
class Written(DrawnRowFault):
    """Some values of the row, or all, are replaced by one value.

    Args:
        count: how many, at positions drawn by the seed; None for all.
    """

    count: int | None = None

    value: ClassVar[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count is not None:
            self._count("count", least=1)

    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        if self.count is None or self.count >= row.size:
            row[:] = self.value
        else:
            row[self._draw(step).choice(row.size, self.count, replace=False)] = self.value


class Nan(Written):
    """The row holds NaN."""

    value = np.nan


class Infinite(Written):
    """The row holds +Inf."""

    value = np.inf


class Zero(Written):
    """The row holds zeros, as a buffer that was never filled."""

    value = 0.0


@dataclass(frozen=True, kw_only=True)
class Constant(RowFault):
    """Every value of the row is `value`."""

    value: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("value")

    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        row[:] = self.value


@dataclass(frozen=True, kw_only=True)
class Scale(RowFault):
    """The row is multiplied by `factor`, as by a mean over another number of samples."""

    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("factor")

    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # on purpose
            row *= self.factor


class FlipSign(RowFault):
    """The row is negated."""

    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        np.negative(row, out=row)


@dataclass(frozen=True, kw_only=True)
class Perturb(DrawnRowFault):
    """Each value is multiplied by 1 + scale N(0, 1): the small errors that most bad nodes make.

    Reference: arXiv 2502.12340: on real bad nodes perturbations of gradients are mostly small.
    """

    scale: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("scale", least=0.0)

    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            row *= 1.0 + self.scale * self._draw(step).standard_normal(row.size)


@dataclass(frozen=True, kw_only=True)
class Stale(RowFault):
    """The worker sends the row that it computed `age` steps ago; its first, while it has no older one."""

    age: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("age", least=1)

    @property
    def depth(self) -> int:
        return self.age

    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        if earlier:
            row[:] = earlier[max(0, len(earlier) - self.age)]


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


@dataclass(frozen=True, kw_only=True)
class Attack(DrawnRowFault):
    """The worker sends the row of an attack of `hb.attacks` that knows its own row at most.

    Args:
        attack: its name, with options where it has some, such as "gaussian:std=10".
    """

    attack: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.attack, str):
            raise TypeError(f'attack: attack must be a name such as "gaussian:std=10", got {self.attack!r}')
        made = self._made()
        if made.acts_on != "rows" or made.knows == "all rows":
            raise ValueError(
                f"attack: {made.name} needs more than a worker's own row, and a worker has no other: give it "
                "as `wire` to the optimizer"
            )

    def _made(self) -> Any:
        name, options = parse_word(self.attack)
        return from_data({"name": name, **options})

    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        self._made()(row[None], [0], seed=self.seed, step=step)
