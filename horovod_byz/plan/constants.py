"""The measured constants of the cost model; `constants.json` is made by `horovod_byz.bench.calibrate`."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

__all__ = ["Constants", "Fit", "measured"]


@dataclass(frozen=True)
class Fit:
    """How well the constants give back the steps that they were fitted to.

    Attributes:
        steps: number of measured steps.
        worst: largest relative error of a step's time.
        typical: median of the relative errors.
        machines: the machines that were measured.
    """

    steps: int
    worst: float
    typical: float
    machines: tuple[str, ...]

    def __str__(self) -> str:
        half = f"half of them within {100 * self.typical:.0f} %"
        return f"within {100 * self.worst:.0f} % of {self.steps} measured steps, {half}"


@dataclass(frozen=True)
class Constants:
    """Seconds of one core.

    Attributes:
        kernels: per kernel, seconds of one value by number of rows, at d of 10^6 or more.
        fit: the error.
        operation: of one operation between ranks, whatever its size.
        direct: of a byte sent or received directly.
        relayed: of a byte sent or received in an allgather, its digest included.
        ring: of a byte sent or received in the framework's own mean.
        around: of a coordinate, for the copies between gradients and row.
        apply: of a coordinate, in the optimizer's own step.
        rules: factor by which a rule inside a step takes longer than alone.
    """

    kernels: Mapping[str, Mapping[int, float]]
    fit: Fit
    operation: float = 0.0
    direct: float = 0.0
    relayed: float = 0.0
    ring: float = 0.0
    around: float = 0.0
    apply: float = 0.0
    rules: float = 0.0

    def of_value(self, kernel: str, rows: float) -> float:
        """Seconds of one value of a matrix with so many rows.

        Between two measured numbers of rows along a straight line in log n; beyond the largest along the
        power of n that the last two show (pairs of rows: about n); below the smallest as there.
        """
        known = sorted(self.kernels[kernel].items())
        if rows <= known[0][0]:
            return known[0][1]
        (low, a), (high, b) = next(
            (pair for pair in itertools.pairwise(known) if rows <= pair[1][0]),
            (known[-2], known[-1]),
        )
        share = math.log(rows / low) / math.log(high / low)
        return a + share * (b - a) if rows <= high else b * max(1.0, (b / a) ** (share - 1))


@functools.cache
def measured() -> Constants:
    """The constants that come with the package."""
    given = json.loads(resources.files("horovod_byz.plan").joinpath("constants.json").read_text())
    kernels = {
        name: {int(rows): seconds for rows, seconds in by_rows.items()}
        for name, by_rows in given.pop("kernels").items()
    }
    fit = given.pop("fit")
    return Constants(**given, kernels=kernels, fit=Fit(**{**fit, "machines": tuple(fit["machines"])}))
