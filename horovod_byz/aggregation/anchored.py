"""A decision that starts from the last result: a weighted sum of rows and of what a rule remembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.source import Floats, Ints
from horovod_byz.kernels import linear
from horovod_byz.kernels.rows import Rows


def nobody() -> Ints:
    """No rows."""
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Anchored:
    """share * anchor + sum_i weights[i] * row i; rows of weight 0 are not read.

    Attributes:
        weights: (n,) weight of each row.
        anchor: (d,), all coordinates, finite, of the rows' dtype.
        share: weight of the anchor.
        outvoted: as for `Weighted`.
    """

    weights: Floats
    anchor: npt.NDArray[Any]
    share: float
    outvoted: Ints = field(default_factory=nobody)

    fused: ClassVar[None] = None

    def expand(self, n: int, rows: Ints) -> Anchored:
        """The same sum, where this decision's rows are `rows` out of n."""
        weights = np.zeros(n)
        weights[rows] = self.weights
        return replace(self, weights=weights, outvoted=rows[self.outvoted])

    def combine(self, rows: Rows, out: npt.NDArray[Any], threads: int, offset: int = 0) -> None:
        """Writes the row to `out`; `offset` is the coordinate of the rows' first column."""
        both = rows.with_row(self.anchor[offset : offset + rows.d])
        linear.weighted_sum(both, np.append(self.weights, self.share), out, threads)
