"""Rows as the phases of a rule see them: where they come from is nobody's concern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from horovod_byz.kernels.rows import Rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Groups = tuple[tuple[int, ...], ...]


class Source(Protocol):
    """Rows over the coordinates that this rank holds: real ones, or combinations of real ones."""

    @property
    def n(self) -> int: ...

    @property
    def d(self) -> int: ...

    def block(self, begin: int, end: int) -> Rows: ...

    def take(self, indices: Sequence[int]) -> Source: ...


@runtime_checkable
class Packed(Source, Protocol):
    """Rows in a form of their own, some passes over which need no values."""

    def to_point(self, point: npt.NDArray[Any], begin: int, end: int, threads: int) -> Floats | None:
        """Squared L2 distances to a point over [begin, end), (n,), if the packed form is enough, or None."""

    def combine(self, decision: Any, out: npt.NDArray[Any], threads: int) -> bool:
        """Writes the row that a decision gives, if the packed form is enough; says whether it did."""
