"""One worker's row at one step: its weight in the result, distance, norm, angle, and what stands out."""

from __future__ import annotations

import math
from dataclasses import dataclass

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


def judge(
    weights: Floats,
    nonfinite: npt.NDArray[np.int64],
    distances: Floats | None,
    outvoted: npt.NDArray[np.int64] | None = None,
    norms: Floats | None = None,
    norm: float = math.nan,
    comparable: bool = False,
) -> tuple[Verdict, ...]:
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
    n = len(weights)
    unknown = np.full(n, np.nan)
    far = unknown if distances is None else np.where(nonfinite > 0, np.nan, distances)
    long = unknown if norms is None else np.where(nonfinite > 0, np.nan, norms)
    measured = far[~np.isnan(far)]
    # The median distance, not the mean, which one far row could raise until no row counts as far.
    limit = FAR * float(np.median(measured)) if measured.size else np.inf
    lost = set() if outvoted is None else set(outvoted.tolist())
    table = (weights.tolist(), nonfinite.tolist(), far.tolist(), long.tolist(), _cosines(far, long, norm))
    return tuple(
        Verdict(i, weight, bad, away, _reason(bad, i in lost, away > limit), length, cosine, comparable)
        for i, (weight, bad, away, length, cosine) in enumerate(zip(*table, strict=True))
    )


def _cosines(far: Floats, long: Floats, norm: float) -> list[float]:
    """From the three sides of the triangle of row, result and origin, each divided by the longest.

    |x - a|^2 = |x|^2 + |a|^2 - 2 <x, a>, so that no product of rows is measured.
    """
    unit = np.maximum(np.maximum(far, long), norm)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, a, apart = long / unit, norm / unit, far / unit
        cosine = (x * x + a * a - apart * apart) / (2 * x * a)
    zero = (long == 0) | (norm == 0)
    inside = np.where(zero, 0.0, np.clip(cosine, -1.0, 1.0))
    values: list[float] = np.where(np.isnan(far) | np.isnan(long), np.nan, inside).tolist()
    return values


def _reason(nonfinite: int, outvoted: bool, far: bool) -> str:
    if nonfinite:
        return "non-finite"
    if outvoted:
        return "outvoted"
    return "far" if far else ""
