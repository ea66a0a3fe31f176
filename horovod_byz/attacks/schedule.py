"""Schedules: the Byzantine workers of each step.

`Fixed` and `Redrawn` name the workers, and the caller chooses the attack; a `Script` (see `script`) also has
the attack of each worker.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from horovod_byz.attacks.randomness import check_seed, subset


class Schedule(ABC):
    """Base of the schedules: a value that names the Byzantine workers of each step."""

    @abstractmethod
    def workers(self, step: int) -> tuple[int, ...]:
        """Returns the sorted indices of the workers that are Byzantine at `step` (counted from 0)."""


@dataclass(frozen=True)
class Fixed(Schedule):
    """The same workers at every step.

    Args:
        indices: worker indices, in any order.

    Raises:
        ValueError: if an index is negative, not an integer, or named twice.

    Reference:
        Rajput et al. 2019 (DETOX), section 2: "a fixed subset Q".
    """

    indices: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", worker_indices(self.indices, "Fixed"))

    def workers(self, step: int) -> tuple[int, ...]:
        return self.indices


@dataclass(frozen=True)
class FixedAtRandom(Schedule):
    """f of n workers, drawn once by the seed and the same at every step.

    Args:
        n: number of workers.
        f: number of Byzantine workers among them.
        seed: integer in [0, 2^64).

    Raises:
        ValueError: if f does not lie in 0..n, or the seed is out of range.
    """

    n: int
    f: int
    seed: int = 0

    def __post_init__(self) -> None:
        _check_counts(self.n, self.f, self.seed, "FixedAtRandom")

    def workers(self, step: int) -> tuple[int, ...]:
        return subset(self.seed, "byzantine workers, fixed", self.n, self.f)


@dataclass(frozen=True)
class Redrawn(Schedule):
    """f of n workers, drawn anew at every step by (seed, step).

    Args:
        n: number of workers.
        f: number of Byzantine workers at each step.
        seed: integer in [0, 2^64).

    Raises:
        ValueError: if f does not lie in 0..n, or the seed is out of range.

    Reference:
        Xie, Koyejo, Gupta 2019 (Fall of Empires), section 6.2: "a randomly selected subset" per
        iteration.
    """

    n: int
    f: int
    seed: int = 0

    def __post_init__(self) -> None:
        _check_counts(self.n, self.f, self.seed, "Redrawn")

    def workers(self, step: int) -> tuple[int, ...]:
        return subset(self.seed, "byzantine workers, redrawn", self.n, self.f, step=step)


def draw(n: int, f: int, mode: Literal["first", "fixed", "redrawn"] = "fixed", seed: int = 0) -> Schedule:
    """Returns the schedule of f Byzantine workers among n, by the name of its mode.

    Args:
        n: number of workers.
        f: number of Byzantine workers.
        mode: "first": workers 0 to f - 1 (public code of Fall of Empires); "fixed": drawn once by the seed;
            "redrawn": drawn at every step.
        seed: integer in [0, 2^64).

    Raises:
        ValueError: if the mode is unknown, or f does not lie in 0..n.
    """
    _check_counts(n, f, seed, "draw")
    if mode == "first":
        return Fixed(tuple(range(f)))
    if mode == "fixed":
        return FixedAtRandom(n, f, seed)
    if mode == "redrawn":
        return Redrawn(n, f, seed)
    raise ValueError(f'unknown schedule {mode!r}: choose "first", "fixed" or "redrawn"')


def worker_indices(workers: object, what: str) -> tuple[int, ...]:
    """Returns an index, or several, as a sorted tuple.

    Raises:
        ValueError: if an index is negative, not an integer, or named twice.
    """
    values = [workers] if isinstance(workers, int) else list(workers)  # type: ignore[call-overload]
    if any(isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in values):
        raise ValueError(f"{what}: workers must be integers >= 0, got {workers!r}")
    if len(set(values)) < len(values):
        raise ValueError(f"{what}: a worker is named twice, got {workers!r}: name each once")
    return tuple(sorted(values))


def _check_counts(n: int, f: int, seed: int, what: str) -> None:
    for label, value in (("n", n), ("f", f)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{what}: {label} must be an integer, got {value!r}")
    if not 0 <= f <= n:
        raise ValueError(f"{what}: f must lie in 0..n = {n}, got {f}: at most all workers are Byzantine")
    check_seed(seed)
