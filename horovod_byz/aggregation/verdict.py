"""The verdict on a worker at one step: the weight of its row in the result, and why it is suspect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
        reason: why the row is suspect: "non-finite", "outvoted", "far", or "" when it is not.
    """

    worker: int
    weight: float
    nonfinite: int
    distance: float
    reason: str

    @property
    def suspect(self) -> bool:
        return bool(self.reason)


def judge(
    weights: npt.NDArray[np.float64],
    nonfinite: npt.NDArray[np.int64],
    distances: npt.NDArray[np.float64] | None,
    outvoted: npt.NDArray[np.int64] | None = None,
) -> tuple[Verdict, ...]:
    """Turns one step's numbers into verdicts.

    Args:
        weights: (n,) weight of each row in the result; NaN where it was not measured.
        nonfinite: (n,) count of NaN or infinite values.
        distances: (n,) L2 distance of each row to the result, or None.
        outvoted: indices of rows that lost a vote in their redundancy group.
    """
    n = len(weights)
    far = np.full(n, np.nan) if distances is None else np.where(nonfinite > 0, np.nan, distances)
    measured = far[~np.isnan(far)]
    # The median distance, not the mean, which one far row could raise until no row counts as far.
    limit = FAR * float(np.median(measured)) if measured.size else np.inf
    lost = set() if outvoted is None else set(outvoted.tolist())
    return tuple(
        Verdict(i, float(weights[i]), int(nonfinite[i]), float(far[i]), reason)
        for i in range(n)
        for reason in [_reason(int(nonfinite[i]), i in lost, bool(far[i] > limit))]
    )


def _reason(nonfinite: int, outvoted: bool, far: bool) -> str:
    if nonfinite:
        return "non-finite"
    if outvoted:
        return "outvoted"
    return "far" if far else ""
