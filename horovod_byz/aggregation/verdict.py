"""One worker's row at one step: its weight in the result, distance, norm, angle, and what stands out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# A row is called far when its distance to the result is over this many times the median distance.
# Honest rows that differ by sampling noise alone lie within a factor of two of one another in high
# dimension; three leaves room for workers with unlike data.
FAR = 3.0


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


@dataclass(frozen=True, eq=False)
class Table:
    """The verdicts of one step in columns, without an object per worker.

    Attributes:
        workers: (n,) indices of the rows, ascending.
        weights: (n,) weight in the result; NaN where it was not measured.
        nonfinite: (n,) count of NaN or infinite values.
        distances: (n,) L2 distance to the result; NaN where it was not measured or the row is not finite.
        norms: (n,) L2 norm; NaN as for `distances`.
        cosines: (n,) of the angle to the result; NaN as for `distances`.
        outvoted: (n,) whether a finite row lost a vote in its redundancy group.
        far: (n,) whether a row that is neither stands out by its distance.
        comparable: see `Verdict`; of each row, (n,).
    """

    workers: npt.NDArray[np.intp]
    weights: Floats
    nonfinite: npt.NDArray[np.int64]
    distances: Floats
    norms: Floats
    cosines: Floats
    outvoted: npt.NDArray[np.bool_]
    far: npt.NDArray[np.bool_]
    comparable: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, result: Any) -> Table:
        """That of a result: of its outcome, or else of its verdicts."""
        table = getattr(getattr(result, "outcome", None), "table", None)
        return table if isinstance(table, Table) else cls.of_verdicts(result.verdicts)

    @classmethod
    def of_verdicts(cls, verdicts: Sequence[Verdict]) -> Table:
        """The columns of given verdicts."""
        names = ("weight", "nonfinite", "distance", "norm", "cosine", "comparable")
        columns = {name: np.array([getattr(verdict, name) for verdict in verdicts]) for name in names}
        reasons = [verdict.reason for verdict in verdicts]
        return cls(
            np.array([verdict.worker for verdict in verdicts], np.intp),
            columns["weight"].astype(np.float64),
            columns["nonfinite"].astype(np.int64),
            *(columns[name].astype(np.float64) for name in ("distance", "norm", "cosine")),
            *(np.array([reason == name for reason in reasons], np.bool_) for name in ("outvoted", "far")),
            columns["comparable"].astype(np.bool_),
        )

    @property
    def notable(self) -> list[tuple[int, str]]:
        """Worker and reason of each row that stands out."""
        rows = np.flatnonzero((self.nonfinite > 0) | self.outvoted | self.far)
        return [(int(self.workers[row]), self.reason(row)) for row in rows]

    def reason(self, row: Any) -> str:
        """What stands out in a row; see `Verdict`."""
        if self.nonfinite[row]:
            return "non-finite"
        if self.outvoted[row]:
            return "outvoted"
        return "far" if self.far[row] else ""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One verdict per row, in row order."""
        reasons = [""] * len(self.workers)
        for row in np.flatnonzero((self.nonfinite > 0) | self.outvoted | self.far).tolist():
            reasons[row] = self.reason(row)
        numbers = (self.workers, self.weights, self.nonfinite, self.distances)
        rest = (self.norms, self.cosines, self.comparable)
        columns = [column.tolist() for column in numbers], [column.tolist() for column in rest]
        return tuple(map(Verdict, *columns[0], reasons, *columns[1]))


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
    n, bad = len(weights), nonfinite > 0
    unknown = np.full(n, np.nan)
    away = unknown if distances is None else np.where(bad, np.nan, distances)
    long = unknown if norms is None else np.where(bad, np.nan, norms)
    lost = np.zeros(n, np.bool_)
    if outvoted is not None:
        lost[outvoted] = True
        lost &= ~bad
    # Of the median distance, not the mean, which one far row could raise until no row counts as far.
    far = (away > FAR * _median(away)) & ~lost
    cosines, alike = _cosines(away, long, norm), np.full(n, comparable)
    return Table(np.arange(n), weights, nonfinite, away, long, cosines, lost, far, alike)


def _median(values: Floats) -> float:
    """The median of those that are not NaN; infinite if all are."""
    ordered = np.sort(values)  # NaN last
    count = len(values) - int(np.count_nonzero(np.isnan(values)))
    if not count:
        return math.inf
    return (float(ordered[(count - 1) // 2]) + float(ordered[count // 2])) / 2


def _cosines(far: Floats, long: Floats, norm: float) -> Floats:
    """From the three sides of the triangle of row, result and origin, each divided by the longest.

    |x - a|^2 = |x|^2 + |a|^2 - 2 <x, a>, so that no product of rows is measured.
    """
    unit = np.maximum(np.maximum(far, long), norm)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, a, apart = long / unit, norm / unit, far / unit
        cosine = (x * x + a * a - apart * apart) / (2 * x * a)
    zero = (long == 0) | (norm == 0)
    inside = np.where(zero, 0.0, np.clip(cosine, -1.0, 1.0))
    return np.where(np.isnan(far) | np.isnan(long), np.nan, inside)
