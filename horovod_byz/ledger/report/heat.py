"""The heat map of a run: what was entered against each worker, over the steps."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import median

from horovod_byz.ledger.parsed import Entry, Window
from horovod_byz.ledger.report.overview import Overview
from horovod_byz.ledger.sifted import sift

__all__ = ["Cell", "HeatMap", "Strip", "heat_map"]

COLUMNS = 96
ROWS = 64  # more workers than this: those with something entered first
_FAR = (1.5, 2.0, 3.0)  # times the median distance of a window; of no worker more than a hint
_SHARES = (0.25, 0.75)  # of the steps of a column: with proof at more of them it is drawn darker
_BETS = (0.25, 0.5, 1.0)  # share of the evidence, in decades, at which a test accuses

Level = tuple[int, int]  # (2 proof, 1 suspicion, 0 distance; strength 1 to 3)
_WORDS = {2: "proof", 1: "suspicion", 0: "far from the aggregate, which alone shows nothing"}


@dataclass(frozen=True)
class Cell:
    """Some columns that look alike: `kind` and `strength` choose the colour and the height."""

    at: int
    width: int
    kind: str
    strength: int
    title: str


@dataclass(frozen=True)
class Strip:
    """The row of one worker."""

    worker: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class HeatMap:
    """The rows, and the steps at the ends and the middle of the axis."""

    strips: tuple[Strip, ...]
    columns: int
    ticks: tuple[int, ...]
    hidden: int


def heat_map(shown: Overview) -> HeatMap:
    """The heat map of a run; without strips where no step is known."""
    end = shown.history.last_step
    if end is None or not shown.workers or not (shown.history.windows or shown.history.entries):
        return HeatMap((), 0, (), 0)
    size = -(-(end + 1) // COLUMNS)
    columns = -(-(end + 1) // size)
    rows = sorted(shown.workers, key=lambda row: (row.silent, row.worker))[:ROWS]
    levels = _levels(shown, size, columns)
    strips = tuple(
        Strip(row.worker, tuple(_cells(levels.get(row.worker, {}), size, end)))
        for row in sorted(rows, key=lambda row: row.worker)
    )
    return HeatMap(strips, columns, tuple(dict.fromkeys((0, end // 2, end))), len(shown.workers) - len(rows))


def _levels(shown: Overview, size: int, columns: int) -> dict[int, dict[int, Level]]:
    """The strongest level of each worker in each column."""
    levels: dict[int, dict[int, Level]] = {}

    def note(worker: int, column: int, level: Level) -> None:
        if 0 <= column < columns:
            row = levels.setdefault(worker, {})
            row[column] = max(row.get(column, level), level)

    for window in shown.history.windows:
        for worker, level in _of_window(shown, window).items():
            for column in range(window.first // size, min(window.last // size + 1, columns)):
                note(worker, column, level)
    sifted = sift(shown.history)
    for entry in sifted.suspicions:
        for worker in _workers(shown, entry):
            note(worker, entry.evidence.step // size, (1, 3))
    proven = Counter(
        (worker, step // size)
        for worker, step in {
            (worker, entry.evidence.step) for entry in sifted.proofs for worker in _workers(shown, entry)
        }
    )
    for (worker, column), count in proven.items():
        note(worker, column, (2, 1 + sum(count > share * size for share in _SHARES)))
    return levels


def _workers(shown: Overview, entry: Entry) -> tuple[int, ...]:
    """The workers that evidence is drawn for: those of a rank where it names a rank alone."""
    if entry.evidence.worker is not None:
        return (entry.evidence.worker,)
    place = shown.history.bound(entry.binding).place(entry.evidence.rank)
    return place.workers if place else ()


def _of_window(shown: Overview, window: Window) -> dict[int, Level]:
    """The level of each worker in a window, where it has no evidence of its own."""
    alpha = shown.history.bound(window.binding).alpha
    needed = math.log10(max(len(window.workers), 1) / alpha) if alpha and 0 < alpha < 1 else math.inf
    usual = median([w.distance for w in window.workers if w.distance is not None] or [0.0])
    levels: dict[int, Level] = {}
    for each in window.workers:
        bet = sum((each.suspicion or 0.0) >= share * needed for share in _BETS)
        far = sum((each.distance or 0.0) > times * usual for times in _FAR) if usual > 0 else 0
        if bet:
            levels[each.worker] = (1, bet)
        elif far:
            levels[each.worker] = (0, far)
    return levels


def _cells(row: dict[int, Level], size: int, end: int) -> list[Cell]:
    """Neighbouring columns of the same level as one cell."""
    cells: list[Cell] = []
    for column in sorted(row):
        kind, strength = row[column]
        name = ("far", "suspicion", "proof")[kind]
        before = cells[-1] if cells else None
        if (
            before
            and before.at + before.width == column
            and (before.kind, before.strength) == (name, strength)
        ):
            cells.pop()
            begin = before.at
        else:
            begin = column
        steps = f"steps {begin * size} to {min((column + 1) * size - 1, end)}"
        cells.append(Cell(begin, column + 1 - begin, name, strength, f"{steps}: {_WORDS[kind]}"))
    return cells
