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
# What stands out in a row, from nothing to the strongest; the last two are proof.
REASONS = ("", "far", "outvoted", "non-finite")


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
        why: (n,) what stands out, as an index of `REASONS`.
        comparable: see `Verdict`; of each row, (n,).
    """

    workers: npt.NDArray[np.intp]
    weights: Floats
    nonfinite: npt.NDArray[np.int64]
    distances: Floats
    norms: Floats
    cosines: Floats
    why: npt.NDArray[np.intp]
    comparable: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, result: Any) -> Table:
        """That of a result: of its outcome, or else of its verdicts."""
        table = getattr(getattr(result, "outcome", None), "table", None)
        return table if isinstance(table, Table) else cls.of_verdicts(result.verdicts)

    @classmethod
    def of_verdicts(cls, verdicts: Sequence[Verdict]) -> Table:
        """The columns of given verdicts."""
        return cls(
            np.array([verdict.worker for verdict in verdicts], np.intp),
            np.array([verdict.weight for verdict in verdicts], np.float64),
            np.array([verdict.nonfinite for verdict in verdicts], np.int64),
            np.array([verdict.distance for verdict in verdicts], np.float64),
            np.array([verdict.norm for verdict in verdicts], np.float64),
            np.array([verdict.cosine for verdict in verdicts], np.float64),
            np.array([REASONS.index(verdict.reason) for verdict in verdicts], np.intp),
            np.array([verdict.comparable for verdict in verdicts], np.bool_),
        )

    @property
    def proven(self) -> bool:
        """Whether some row is proof against its worker."""
        return bool((self.why >= REASONS.index("outvoted")).any())

    @property
    def outvoted(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a finite row lost a vote in its redundancy group."""
        lost: npt.NDArray[np.bool_] = self.why == REASONS.index("outvoted")
        return lost

    @property
    def notable(self) -> list[tuple[int, str]]:
        """Worker and reason of each row that stands out."""
        return [(int(self.workers[row]), REASONS[self.why[row]]) for row in np.flatnonzero(self.why)]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One verdict per row, in row order."""
        reasons = [REASONS[code] for code in self.why.tolist()]
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
    # Of the median distance, not the mean, which one far row could raise until no row counts as far.
    why = np.where(away > FAR * _median(away), REASONS.index("far"), 0)
    if outvoted is not None:
        why[outvoted] = REASONS.index("outvoted")
    why[bad] = REASONS.index("non-finite")
    cosines, alike = _cosines(away, long, norm), np.full(n, comparable)
    return Table(np.arange(n), weights, nonfinite, away, long, cosines, why, alike)


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
