"""One worker's row at one step: its weight in the result, distance, norm, angle, and what stands out."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# A row is called far when its distance to the result is over this many times the median distance.
# Honest rows that differ by sampling noise alone lie within a factor of two of one another in high
# dimension; three leaves room for workers with unlike data.
FAR = 3.0
# What stands out in a row, from nothing to the strongest; the last two are proof.
REASONS = ("", "far", "outvoted", "non-finite")
_OUTVOTED, _NONFINITE = REASONS.index("outvoted"), REASONS.index("non-finite")


@dataclass(frozen=True)
class Verdict:
    """The treatment of one worker's row at one step.

    Attributes:
        worker: index of the row.
        weight: its weight in the result, 0 to 1; NaN if it was not measured, as by coordinate-wise rules.
        nonfinite: how many NaN or infinite values it held.
        distance: L2 distance to the result; NaN if it was not measured or the row is not finite.
        reason: what stands out: "non-finite" and "outvoted" are proof; "far" describes the row and accuses
            nobody, since honest rows may be far, too. "" if nothing does.
        norm: L2 norm of the row; NaN as for `distance`.
        cosine: of the angle between row and result, 0 if one of them is zero; NaN as for `distance`.
        comparable: whether distance and cosine may be compared with those of other rows: the result of a
            rule that gives a row less weight from the start is farther from it, whatever the row is.
    """

    worker: int
    weight: float
    nonfinite: int
    distance: float
    reason: str
    norm: float = math.nan
    cosine: float = math.nan
    comparable: bool = False

    @property
    def suspect(self) -> bool:
        """Whether something stands out; no accusation (see `reason`): the ledger tests for that."""
        return bool(self.reason)


class Seen(Protocol):
    """What a step says of its rows; the table is made when somebody reads it."""

    @property
    def n(self) -> int:
        """Number of rows."""

    @property
    def table(self) -> Table:
        """The verdicts in columns."""

    @property
    def proven(self) -> bool:
        """Whether some row is proof against its worker."""


@dataclass(frozen=True, eq=False)
class Table:
    """The verdicts of one step in columns, without an object per worker.

    Attributes:
        workers: (n,) indices of the rows, ascending.
        numbers: (4, n) float64: weights, distances, norms and cosines, which are its rows.
        nonfinite: (n,) count of NaN or infinite values.
        why: (n,) what stands out, as an index of `REASONS`.
        comparable: see `Verdict`; of each row, (n,).
    """

    workers: npt.NDArray[np.intp]
    numbers: Floats
    nonfinite: npt.NDArray[np.int64]
    why: npt.NDArray[np.intp]
    comparable: npt.NDArray[np.bool_]

    @classmethod
    def seen(cls, result: Any) -> Seen:
        """What a result says of its rows: its outcome, or else the table of its verdicts."""
        outcome: Seen | None = getattr(result, "outcome", None)
        return outcome if outcome is not None else cls.of_verdicts(result.verdicts)

    @classmethod
    def of_verdicts(cls, verdicts: Sequence[Verdict]) -> Table:
        """The columns of given verdicts."""
        names = ("weight", "distance", "norm", "cosine")
        numbers = [[getattr(verdict, name) for verdict in verdicts] for name in names]
        return cls(
            np.array([verdict.worker for verdict in verdicts], np.intp),
            np.array(numbers, np.float64),
            np.array([verdict.nonfinite for verdict in verdicts], np.int64),
            np.array([REASONS.index(verdict.reason) for verdict in verdicts], np.intp),
            np.array([verdict.comparable for verdict in verdicts], np.bool_),
        )

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.workers)

    @property
    def table(self) -> Table:
        """Itself."""
        return self

    @property
    def weights(self) -> Floats:
        """(n,) weight in the result; NaN where it was not measured."""
        weights: Floats = self.numbers[0]
        return weights

    @property
    def distances(self) -> Floats:
        """(n,) L2 distance to the result; NaN where it was not measured or the row is not finite."""
        distances: Floats = self.numbers[1]
        return distances

    @property
    def norms(self) -> Floats:
        """(n,) L2 norm; NaN as for `distances`."""
        norms: Floats = self.numbers[2]
        return norms

    @property
    def cosines(self) -> Floats:
        """(n,) of the angle to the result; NaN as for `distances`."""
        cosines: Floats = self.numbers[3]
        return cosines

    @functools.cached_property
    def measured(self) -> npt.NDArray[np.bool_]:
        """(4, n) which of the numbers are finite."""
        return np.isfinite(self.numbers)

    @functools.cached_property
    def scored(self) -> bool:
        """Whether the distance, norm and cosine of each row were measured, and their sum is finite."""
        # A sum of distances and norms, which are not negative, is finite only if each part is.
        with np.errstate(over="ignore"):
            return math.isfinite(np.add.reduce(self.numbers[1:], axis=None))

    @functools.cached_property
    def strongest(self) -> int:
        """The strongest of what stands out, as an index of `REASONS`."""
        return int(self.why.max(initial=0))

    @property
    def proven(self) -> bool:
        """Whether some row is proof against its worker."""
        return self.strongest >= _OUTVOTED

    @property
    def outvoted(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a finite row lost a vote in its redundancy group."""
        lost: npt.NDArray[np.bool_] = self.why == _OUTVOTED
        return lost

    @property
    def notable(self) -> list[tuple[int, str]]:
        """Worker and reason of each row that stands out."""
        if not self.strongest:
            return []
        return [(int(self.workers[row]), REASONS[self.why[row]]) for row in np.flatnonzero(self.why)]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One verdict per row, in row order."""
        reasons = [REASONS[code] for code in self.why.tolist()]
        weights, distances, norms, cosines = self.numbers.tolist()
        columns = self.workers.tolist(), weights, self.nonfinite.tolist(), distances
        return tuple(map(Verdict, *columns, reasons, norms, cosines, self.comparable.tolist()))


def judge(
    weights: Floats,
    nonfinite: npt.NDArray[np.int64],
    distances: Floats | None,
    outvoted: npt.NDArray[np.int64] | None = None,
    norms: Floats | None = None,
    norm: float = math.nan,
    comparable: bool = False,
) -> Table:
    """Turns one step's numbers into verdicts.

    Args:
        weights: (n,) weight of each row in the result; NaN where it was not measured.
        nonfinite: (n,) count of NaN or infinite values.
        distances: (n,) L2 distance of each row to the result, or None.
        outvoted: indices of rows that lost a vote in their redundancy group.
        norms: (n,) L2 norm of each row, or None.
        norm: L2 norm of the result.
        comparable: see `Verdict`.
    """
    n, bad = len(weights), np.flatnonzero(nonfinite > 0)
    numbers = np.empty((4, n))
    numbers[0], away = weights, numbers[1]
    away[:] = np.nan if distances is None else distances
    numbers[2] = np.nan if norms is None else norms
    if len(bad):
        numbers[1:3, bad] = np.nan
    # Of the median distance, not the mean, which one far row could raise until no row counts as far.
    why = (away > FAR * _median(away)).astype(np.intp)
    if outvoted is not None and len(outvoted):
        why[outvoted] = _OUTVOTED
    if len(bad):
        why[bad] = _NONFINITE
    _cosines(numbers, norm)
    return Table(_counted(n), numbers, nonfinite, why, _alike(n, comparable))


def _median(values: Floats) -> float:
    """The median of those that are not NaN; infinite if all are."""
    ordered = np.sort(values)  # NaN last
    count = len(values)
    if count and math.isnan(ordered[-1]):
        count -= int(np.count_nonzero(np.isnan(values)))
    if not count:
        return math.inf
    return (float(ordered[(count - 1) // 2]) + float(ordered[count // 2])) / 2


def _cosines(numbers: Floats, norm: float) -> None:
    """From the three sides of the triangle of row, result and origin, each divided by the longest.

    |x - a|^2 = |x|^2 + |a|^2 - 2 <x, a>, so that no product of rows is measured.

    Args:
        numbers: see `Table`; distances and norms are read, cosines are written.
        norm: L2 norm of the result.
    """
    far, long, cosine = numbers[1:]
    unit = np.maximum(np.maximum(far, long), norm)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart, x = numbers[1:3] / unit
        a = norm / unit
        np.divide(x * x + a * a - apart * apart, 2 * x * a, out=cosine)
    np.minimum(np.maximum(cosine, -1.0, out=cosine), 1.0, out=cosine)  # NaN stays NaN
    if norm == 0 or not np.logical_and.reduce(long):
        cosine[(long == 0) | (norm == 0)] = 0.0
        cosine[np.isnan(far) | np.isnan(long)] = np.nan


@functools.lru_cache(maxsize=32)
def _counted(n: int) -> npt.NDArray[np.intp]:
    """The indices 0 to n - 1; one array for all steps, so that a reader knows them by identity."""
    indices = np.arange(n)
    indices.flags.writeable = False
    return indices


@functools.lru_cache(maxsize=32)
def _alike(n: int, value: bool) -> npt.NDArray[np.bool_]:
    flags = np.full(n, value)
    flags.flags.writeable = False
    return flags
