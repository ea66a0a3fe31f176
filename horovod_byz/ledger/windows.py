"""Means over windows of steps, which grow with the run, so that a run of any length has few of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.verdict import Seen, Table
from horovod_byz.ledger.records import WINDOWS

__all__ = ["Means", "Window", "length_of"]

_NUMBERS = ("weight", "distance", "norm")
FIRST = 20  # steps in a window of a young run
_YOUNG = WINDOWS // 2  # windows of that length
_GROWTH = 1 / 16  # then each is longer than the one before by this share


def length_of(number: int) -> int:
    """The number of steps in a window, which are numbered from 0.

    256 windows of 20 steps, then longer ones: 512 windows hold 2 * 10^9 steps. Should a run be longer, each
    further window is as long as all before.
    """
    if number < _YOUNG:
        return FIRST
    older = min(number, WINDOWS) - _YOUNG + 1
    return int(math.ceil(FIRST * (1 + _GROWTH) ** older) * 2 ** max(0, number - WINDOWS + 1))


@dataclass
class Means:
    """Sums, and in how many steps each was measured, so that the means leave out what was not."""

    totals: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, value: float) -> None:
        if math.isfinite(value):
            self.totals[name] += value  # type: ignore[assignment]
            self.counts[name] += 1

    def mean(self, name: str) -> float | None:
        """The mean, or None where nothing was measured."""
        return float(f"{self.totals[name] / self.counts[name]:.6g}") if self.counts[name] else None


class Window:
    """What the steps of one window add up to.

    Args:
        number: its number in the run.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.first = self.last = -1
        self.steps = 0
        self._workers: dict[int, Means] = {}
        self._pending: list[Seen] = []
        # The sums over the last steps, in columns, as long as their workers are the same.
        self._columns: npt.NDArray[np.intp] = np.zeros(0, np.intp)
        self._totals: npt.NDArray[np.float64] = np.zeros((3, 0))
        self._counts: npt.NDArray[np.int64] = np.zeros((3, 0), np.int64)
        self._proofs: Counter[int] = Counter()
        self._phases = Means()
        self._ranks: dict[int, Means] = {}

    @property
    def is_full(self) -> bool:
        return self.steps >= length_of(self.number)

    def prove(self, worker: int | None) -> None:
        """Counts a proof against a worker."""
        if worker is not None:
            self._proofs[worker] += 1

    def add(self, result: Any, step: int) -> None:
        """Adds a step; see `Ledger.add` for the result."""
        self.first, self.last = (step if self.steps == 0 else self.first), step
        self.steps += 1
        self._pending.append(Table.seen(result))
        if len(self._pending) >= FIRST:
            self._add_up()
        for phase, seconds in getattr(result, "timings", {}).items():
            self._phases.add(phase, seconds)
        for pace in getattr(result, "paces", ()):
            self._pace(pace)

    def _add_up(self) -> None:
        """Adds the tables of the last steps, one after the other: in a row they cost less than each alone."""
        for seen in self._pending:
            self._enter(seen.table)
        self._pending.clear()

    def _enter(self, table: Table) -> None:
        if self._columns is not table.workers and not np.array_equal(self._columns, table.workers):
            self._fold()
            self._totals = np.zeros((3, len(table.workers)))
            self._counts = np.zeros((3, len(table.workers)), np.int64)
        self._columns = table.workers
        measured = table.measured[:3]
        np.add(self._totals, table.numbers[:3], out=self._totals, where=measured)
        self._counts += measured

    def _fold(self) -> None:
        for worker, totals, counts in zip(
            self._columns.tolist(), self._totals.T.tolist(), self._counts.T.tolist(), strict=True
        ):
            means = self._workers.setdefault(worker, Means())
            for name, total, count in zip(_NUMBERS, totals, counts, strict=True):
                if count:
                    means.totals[name] += total
                    means.counts[name] += count
        self._columns, self._totals = self._columns[:0], self._totals[:, :0]
        self._counts = self._counts[:, :0]

    def _pace(self, pace: Any) -> None:
        means = self._ranks.setdefault(pace.rank, Means())
        means.add("wait", pace.wait)
        means.add("compute", pace.compute)
        if pace.rank == 0:  # the phases are those of the rank that writes the file
            self._phases.add("compute", pace.compute)
            self._phases.add("apply", pace.apply)

    def record(self, time: float, suspicion: Callable[[int], float | None]) -> dict[str, Any]:
        """The window's record; see `records`.

        Args:
            time: seconds since the run started.
            suspicion: log10 of a worker's e-value, or None where it has none.
        """
        self._add_up()
        self._fold()
        return {
            "record": "window",
            "first": self.first,
            "last": self.last,
            "time": round(time, 3),
            "workers": [self._worker(worker, means, suspicion) for worker, means in self._workers.items()],
            "phases": {name: self._phases.mean(name) for name in self._phases.counts},
            "ranks": [
                {"rank": rank, "wait": means.mean("wait"), "compute": means.mean("compute")}
                for rank, means in self._ranks.items()
            ],
        }

    def _worker(self, worker: int, means: Means, suspicion: Callable[[int], float | None]) -> dict[str, Any]:
        return {
            "worker": worker,
            **{name: means.mean(name) for name in _NUMBERS},
            "measured": means.counts["distance"],
            "proofs": self._proofs[worker],
            "suspicion": suspicion(worker),
        }
