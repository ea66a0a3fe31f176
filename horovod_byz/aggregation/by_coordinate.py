"""A decision that applies a coordinate-wise rule to some rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.anchored import nobody
from horovod_byz.aggregation.source import Floats, FusedRule, Ints
from horovod_byz.kernels import coordinate
from horovod_byz.kernels.rows import Rows

Kernel = Literal["median", "trimmed_mean", "mean_around_median", "phocas", "sign_majority"]


@dataclass(frozen=True, eq=False)
class Coordinatewise:
    """A coordinate-wise rule over the chosen rows.

    Attributes:
        kernel: which rule.
        chosen: indices of the rows that take part.
        n: number of rows chosen from.
        f: number of values that the rule trims, if it has such a parameter.
        outvoted: as for `Weighted`.
    """

    kernel: Kernel
    chosen: Ints
    n: int
    f: int = 0
    outvoted: Ints = field(default_factory=nobody)

    _TRIMS: ClassVar[frozenset[str]] = frozenset({"trimmed_mean", "mean_around_median", "phocas"})

    @property
    def weights(self) -> Floats:
        """0 for a row that was not chosen; NaN, not measured, for the others.

        Which rows' values count differs by coordinate: a row may give all of the result, or nothing. An equal
        share each would credit a row that lies far outside in every coordinate with 1/n.
        """
        weights = np.zeros(self.n)
        weights[self.chosen] = 1.0 if len(self.chosen) == 1 else np.nan
        return weights

    def expand(self, n: int, rows: Ints) -> Coordinatewise:
        """The same rule, where this decision's rows are `rows` out of n."""
        return Coordinatewise(self.kernel, rows[self.chosen], n, self.f, rows[self.outvoted])

    @property
    def fused(self) -> FusedRule | None:
        """See `Combination`: rows that were not chosen are measured, too, so that all have to be chosen."""
        f = self.f if self.kernel in self._TRIMS else 0
        return (self.kernel, f) if len(self.chosen) == self.n else None

    def combine(self, rows: Rows, out: npt.NDArray[Any], threads: int, offset: int = 0) -> None:
        """Writes the row to `out`; `offset` is the coordinate of the rows' first column."""
        if len(self.chosen) == 0:
            out[:] = 0
            return
        if len(self.chosen) != rows.n:  # the usual case, all rows, needs no new pointers
            rows = rows.take([int(i) for i in self.chosen])
        kernel = getattr(coordinate, self.kernel)
        arguments = (self.f,) if self.kernel in self._TRIMS else ()
        kernel(rows, out, *arguments, threads)
