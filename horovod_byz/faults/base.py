"""`Fault`: something that goes wrong at certain steps; its text is the call that makes it."""

from __future__ import annotations

import dataclasses
import numbers
from dataclasses import dataclass, field
from typing import Any, ClassVar

from horovod_byz.common.checks import count
from horovod_byz.common.words import kebab

# Where each fault's text puts them; its own fields stand between.
_FIRST, _LAST = ("worker", "rank"), ("at", "every", "start", "until", "seed")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong at certain steps, counted as the ledger counts them.

    Args:
        at: the step, or a tuple of steps; None for those that the other three say.
        every: the distance between two steps.
        start: the first step.
        until: the step after the last; None for no end.

    Raises:
        TypeError, ValueError: if these are not whole numbers >= 0 (`every` >= 1), no step lies between
            `start` and `until`, or both `at` and one of the others are given.
    """

    at: int | tuple[int, ...] | None = None
    every: int = 1
    start: int = 0
    until: int | None = None

    # A fault after which the process does not go on; it must say when.
    ends: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._count("every", least=1)
        self._count("start")
        if self.until is not None:
            self._count("until", least=self.start + 1)
        if self.at is None:
            if self.ends and (self.every, self.start, self.until) == (1, 0, None):
                raise ValueError(
                    f"{self.name} needs the step at which it takes place: give at=30, for example"
                )
            return
        if (self.every, self.start, self.until) != (1, 0, None):
            raise ValueError(f"{self.name}: give either at, or some of every, start and until, not both")
        if isinstance(self.at, (tuple, list)):
            steps = tuple(count(self.name, "at", step) for step in self.at)
            if not steps:
                raise ValueError(f"{self.name}: at names no step, got {self.at!r}")
            object.__setattr__(self, "at", steps)
        else:
            self._count("at")

    def active(self, step: int) -> bool:
        """Whether the fault takes place at `step`."""
        if isinstance(self.at, tuple):
            return step in self.at
        if self.at is not None:
            return step == self.at
        before_end = self.until is None or step < self.until
        return step >= self.start and before_end and (step - self.start) % self.every == 0

    @property
    def name(self) -> str:
        """The call that makes it, such as "flip_parameter"."""
        return call_of(type(self))

    def __str__(self) -> str:
        """The call: what differs from the defaults, whom it concerns first and the steps last."""
        given = {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if each.name in _FIRST or getattr(self, each.name) != each.default
        }
        own = [name for name in given if name not in (*_FIRST, *_LAST)]
        order = [*_FIRST, *own, *_LAST]
        return f"{self.name}({', '.join(f'{name}={given[name]!r}' for name in order if name in given)})"

    def _count(self, name: str, least: int = 0) -> None:
        object.__setattr__(self, name, count(self.name, name, getattr(self, name), least))

    def _number(self, name: str, least: float | None = None) -> None:
        object.__setattr__(self, name, number(self.name, name, getattr(self, name), least))


def call_of(kind: type[Fault]) -> str:
    """The method of `Faults` that makes a fault of this class."""
    return kebab(kind.__name__).replace("-", "_")


def made(kind: type[Fault], given: dict[str, Any]) -> Fault:
    """A fault of this class.

    Raises:
        TypeError: if an argument is none of its fields, or one without a default is missing.
        ValueError: if a value is not allowed.
    """
    fields = {each.name: each for each in dataclasses.fields(kind)}
    call = call_of(kind)
    order = [*(n for n in _FIRST if n in fields), *(n for n in fields if n not in (*_FIRST, *_LAST))]
    takes = ", ".join([*order, *(n for n in _LAST if n in fields)])
    for name in given:
        if name not in fields:
            raise TypeError(f"{call} has no argument {name}: it takes {takes}")
    missing = [n for n, each in fields.items() if each.default is dataclasses.MISSING and n not in given]
    if missing:
        raise TypeError(f"{call} needs {' and '.join(missing)}: it takes {takes}")
    return kind(**given)


def number(owner: str, name: str, value: Any, least: float | None = None) -> float:
    """Checks that an argument is a finite number, of at least `least`.

    Raises:
        TypeError, ValueError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}")
    if not abs(float(value)) < float("inf") or (least is not None and value < least):
        raise ValueError(
            f"{owner}: {name} must be finite{'' if least is None else f' and >= {least:g}'}, got {value!r}"
        )
    return float(value)


@dataclass(frozen=True, kw_only=True)
class Drawn(Fault):
    """A fault that hits positions drawn by (seed, step, worker or rank), the same in every run.

    Args:
        seed: integer in [0, 2^64).
    """

    seed: int = field(default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("seed")
