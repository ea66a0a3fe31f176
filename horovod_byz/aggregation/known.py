"""Statistics without rows: a rule decides on rows that nobody made, from their distances and norms alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from horovod_byz.aggregation import mixing
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.shard import Shard
from horovod_byz.aggregation.source import Floats, Ints, Source
from horovod_byz.kernels.rows import Rows

__all__ = ["Known", "RowsNeededError"]


class RowsNeededError(Exception):
    """A rule reads the rows themselves, or a statistic other than distances, inner products and norms."""


class _Absent(Source):
    """n rows that do not exist."""

    def __init__(self, n: int) -> None:
        self.n, self.d, self.dtype = n, 1, np.dtype(np.float64)

    def block(self, begin: int, end: int) -> Rows:
        self._refuse()

    def take(self, indices: Sequence[int]) -> _Absent:
        return _Absent(len(indices))

    def _refuse(self) -> NoReturn:
        raise RowsNeededError


class Known(Statistics):
    """The statistics of n finite rows, given their squared distances and norms.

    What else a rule asks for raises `RowsNeededError`.

    Args:
        distances: (n, n) squared distances, finite.
        squared_norms: (n,), finite.
        step: optimizer step, which seeds randomised rules.
    """

    def __init__(self, distances: Floats, squared_norms: Floats, *, step: int = 0) -> None:
        super().__init__(_Absent(len(distances)), Shard(1, step=step))
        self._cached["distances"], self._cached["squared_norms"] = distances, squared_norms
        self._cached["gram"] = mixing.centred(distances)
        self._shown_finite[:] = True

    def take(self, indices: Sequence[int] | Ints, excluded: int = 0) -> Statistics:
        part = super().take(indices, excluded)
        part._cached["gram"] = mixing.centred(part._cached["distances"])
        return part
