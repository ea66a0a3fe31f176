"""What broken hardware or software makes of the row that a worker sends; each hits that row in place.

The row is hit before it is digested and sent, as a fault of the worker's processor or memory would hit it:
the digest then belongs to the wrong row, and replicas disagree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from horovod_byz.attacks.randomness import stream
from horovod_byz.attacks.registry import from_data
from horovod_byz.common.words import parse_word
from horovod_byz.faults.base import Drawn, Fault
from horovod_byz.faults.bits import Floats


@dataclass(frozen=True, kw_only=True)
class RowFault(Fault, ABC):
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

    @abstractmethod
    def strike(self, row: Floats, step: int, earlier: Sequence[Floats]) -> None:
        """Hits `row`, (d,), in place; `earlier`: rows that the worker computed before, oldest first."""


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
