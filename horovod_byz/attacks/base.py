"""The base class of the attacks: values that rewrite some rows of the gradient matrix in place, tile by tile.

Attacks simulate the gradients of Byzantine workers. They act between compute and collect, on the whole (n, d)
matrix or on any range of its coordinates, and give the same bits for every split: reductions run over rows
only (in row order, in float64), and random numbers are addressed by (seed, step, worker, tile), see
`randomness`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from horovod_byz.attacks.randomness import SHARED, TILE, check_seed, stream
from horovod_byz.common.words import kebab

FloatRows = NDArray[np.floating[Any]]
Threat = Literal["classic", "dimensional"]
Knowledge = Literal["nothing", "own row", "all rows"]


@dataclass(frozen=True, eq=False)
class Tile:
    """The part of one tile of coordinates that an attack rewrites in one call.

    Attributes:
        block: (n, width) writable view on the coordinates [begin, end).
        byzantine: sorted rows that are Byzantine at this step.
        honest: sorted rows that are not.
        targets: sorted rows that this attack may write.
        begin, end: global coordinates; both lie in one tile of `TILE` coordinates, but for an attack that
            `needs_whole_rows`.
        d: number of coordinates of the whole matrix.
        seed, step, purpose: the address of the random numbers.
    """

    block: FloatRows
    byzantine: tuple[int, ...]
    honest: tuple[int, ...]
    targets: tuple[int, ...]
    begin: int
    end: int
    d: int
    seed: int
    step: int
    purpose: str

    def sum(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """Sum of `rows`, float64, in row order; zeros if there are none.

        Row by row, and not `block.sum(axis=0)`: NumPy sums pairwise if the rows are contiguous in memory
        (a block of one column), which gives other bits.
        """
        total = np.zeros(self.end - self.begin)
        for row in rows:
            total += self.block[row]
        return total

    def normal(self, worker: int) -> NDArray[np.float64]:
        """Standard normal numbers of `worker` for the coordinates of this tile."""
        start, stop = self.begin % TILE, self.begin % TILE + self.end - self.begin
        return self._stream(worker).standard_normal(stop)[start:]

    def uniform(self, worker: int = SHARED) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1) of `worker` for the coordinates of this tile."""
        start, stop = self.begin % TILE, self.begin % TILE + self.end - self.begin
        return self._stream(worker).random(stop)[start:]

    def _stream(self, worker: int) -> np.random.Generator:
        return stream(self.seed, self.purpose, step=self.step, worker=worker, tile=self.begin // TILE)


class Attack(ABC):
    """Base of the attacks: a frozen dataclass whose instances are called on rows.

    A subclass states two facts, `threat` and `knows`, and implements `strike` for one tile.

    Attributes:
        threat: "classic": at most f whole rows are arbitrary (Xie et al. 2018, Definition 1);
            "dimensional": in every column at most f values are arbitrary, in any rows (Definition 4).
        knows: the rows that the simulated attacker reads: "nothing", its "own row", or "all rows"
            (omniscient).
        acts_on: "rows", or "labels" for attacks on the training data, which leave the rows alone.
        needs_d: whether a part of the coordinates is rewritten only if it is known of how many.
        needs_whole_rows: whether the attack looks at lengths of rows, so that a part of them is not enough.
    """

    threat: ClassVar[Threat]
    knows: ClassVar[Knowledge]
    acts_on: ClassVar[Literal["rows", "labels"]] = "rows"
    needs_d: ClassVar[bool] = False
    needs_whole_rows: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Name on the command line: the class name in kebab-case."""
        return kebab(type(self).__name__)

    def __call__(
        self,
        rows: FloatRows,
        byzantine: Sequence[int],
        *,
        seed: int = 0,
        step: int = 0,
        offset: int = 0,
        d: int | None = None,
        only: Sequence[int] | None = None,
    ) -> None:
        """Rewrites `rows` in place to the rows that the aggregator would receive at this step.

        No Byzantine row: nothing is written. All rows Byzantine: sums and means over the (absent) honest rows
        are zero. Values that exceed the dtype become infinite, as in a message of that dtype.

        Args:
            rows: (n, width) writable float32 or float64 array that holds the coordinates
                [offset, offset + width) of d; any strides.
            byzantine: indices of the Byzantine rows at this step. A classic attack writes these rows; a
                dimensional one may write any row, and an empty list switches it off.
            seed: integer in [0, 2^64).
            step: optimizer step, counted from 0.
            offset: first coordinate that `rows` holds.
            d: number of coordinates of the whole matrix; default offset + width.
            only: the rows that this call may write, where `byzantine` names more (several attacks at one
                step) or where a dimensional attack is to stay within some rows; default
                `reaches(n, byzantine)`.

        Raises:
            TypeError: if `rows` is not a NumPy array.
            ValueError: if `rows` is not a writable 2-D float array, an index is out of range, `only` names a
                row that the attack cannot reach, `d` is missing or too small, or the attack needs whole rows
                and got a part of them.
        """
        _check_rows(rows, self.name)
        n, width = rows.shape
        total = self._total(offset, width, d)
        active = _indices(byzantine, n, f"{self.name}: byzantine")
        targets = self._targets(n, active, only)
        if step < 0:
            raise ValueError(f"{self.name}: step must be >= 0, got {step}: count steps from 0")
        honest = tuple(sorted(set(range(n)) - set(active)))
        address = (total, check_seed(seed), int(step), self.name)
        if not targets:
            return
        # Attacks overflow on purpose; a warning at every step would bury the user's own.
        ranges = [(0, width)] if self.needs_whole_rows else _tiles(offset, offset + width)
        with np.errstate(over="ignore", invalid="ignore"):
            for begin, end in ranges:
                block = rows[:, begin - offset : end - offset]
                self.strike(Tile(block, active, honest, targets, begin, end, *address))

    def reaches(self, n: int, byzantine: Sequence[int]) -> tuple[int, ...]:
        """Rows that a call with these arguments may write."""
        if self.acts_on == "labels":  # the loader poisons the data; the rows stay as computed
            return ()
        if self.threat == "dimensional" and len(byzantine):
            return tuple(range(n))
        return tuple(sorted(int(worker) for worker in byzantine))

    @abstractmethod
    def strike(self, tile: Tile) -> None:
        """Rewrites the rows `tile.targets` of `tile.block`."""

    def _targets(self, n: int, byzantine: tuple[int, ...], only: Sequence[int] | None) -> tuple[int, ...]:
        reached = self.reaches(n, byzantine)
        if only is None or self.acts_on == "labels":
            return reached
        targets = _indices(only, n, f"{self.name}: only")
        beyond = sorted(set(targets) - set(reached))
        if beyond:
            raise ValueError(
                f"{self.name}: only names row {beyond[0]}, which is out of its reach with "
                f"byzantine = {list(byzantine)}: name it in byzantine too"
            )
        return targets

    def _total(self, offset: int, width: int, d: int | None) -> int:
        if offset < 0:
            raise ValueError(f"{self.name}: offset must be >= 0, got {offset}")
        if d is None:
            if self.needs_d and offset:
                raise ValueError(
                    f"{self.name} needs d, the number of coordinates of the whole matrix, when offset > 0 "
                    f"(got offset = {offset}): pass d="
                )
            d = offset + width
        if d < offset + width:
            raise ValueError(
                f"{self.name}: rows hold the coordinates [{offset}, {offset + width}) but d = {d}: "
                f"pass the d of the whole matrix, at least {offset + width}"
            )
        if self.needs_whole_rows and (offset or d != width):
            raise ValueError(
                f"{self.name} measures distances between whole rows, and got {width} of {d} coordinates: "
                'collect rows "symmetric" or at the "root", without compression'
            )
        return int(d)


def _check_rows(rows: object, name: str) -> None:
    if not isinstance(rows, np.ndarray):
        raise TypeError(
            f"{name}: rows must be a NumPy array, got {type(rows).__name__}: "
            f"pass tensor.numpy() for a CPU tensor"
        )
    if rows.ndim != 2:
        raise ValueError(f"{name}: rows must have shape (n, width), got {rows.shape}: one row per worker")
    if rows.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name}: rows must be float32 or float64, got {rows.dtype}: convert them first")
    if not rows.flags.writeable:
        raise ValueError(f"{name}: rows are read-only and an attack works in place: pass a writable copy")


def _indices(workers: Sequence[int], n: int, what: str) -> tuple[int, ...]:
    values = list(workers)
    for worker in values:
        if isinstance(worker, (bool, np.bool_)) or not isinstance(worker, (int, np.integer)):
            raise ValueError(f"{what} must hold integers, got {worker!r}: pass row indices, not a mask")
        if not 0 <= worker < n:
            raise ValueError(f"{what} holds {worker}, but there are n = {n} rows: use indices in [0, {n})")
    if len(set(values)) < len(values):
        raise ValueError(f"{what} names a row twice, got {values}: name each row once")
    return tuple(sorted(int(worker) for worker in values))


def _tiles(begin: int, end: int) -> Iterator[tuple[int, int]]:
    while begin < end:
        stop = min(end, (begin // TILE + 1) * TILE)
        yield begin, stop
        begin = stop


def finite(value: float, what: str) -> float:
    """Returns `value` as a float if it is a finite number.

    Raises:
        ValueError: if it is not: NaN would make equal attacks differ, and break their repr.
    """
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not np.isfinite(value):
        raise ValueError(f"{what} must be a finite number, got {value!r}")
    return float(value)
