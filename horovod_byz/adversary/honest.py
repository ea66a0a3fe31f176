"""The honest rows that an adversary works against, with their mean and deviation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horovod_byz.attacks.randomness import stream
from horovod_byz.common.checks import count

__all__ = ["Honest"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Honest:
    """Honest rows.

    Args:
        rows: (h, d) float64, finite.
        source: where they come from, in words.

    Raises:
        ValueError: if they are no such matrix, or there is none.
    """

    rows: Floats
    source: str

    def __post_init__(self) -> None:
        rows: Any = np.asarray(self.rows)
        if rows.ndim != 2 or not rows.size or rows.dtype.kind != "f":
            raise ValueError(
                "honest rows must be floating-point numbers of shape (rows, coordinates), got "
                f"{rows.dtype} of shape {rows.shape}"
            )
        if not np.isfinite(rows).all():
            raise ValueError("honest rows must be finite: leave out the rows that hold NaN or Inf")
        object.__setattr__(self, "rows", np.ascontiguousarray(rows, np.float64))

    @classmethod
    def drawn(cls, h: int, d: int, seed: int = 0, signal: float = 0.5) -> Honest:
        """Gaussian rows around a common gradient.

            row_i = g + z_i,   z_i ~ N(0, 1) per coordinate,   g ~ N(0, signal^2) per coordinate

        Args:
            h: number of rows.
            d: number of coordinates.
            seed: the same seed gives the same rows.
            signal: length of the gradient in honest deviations.

        Raises:
            ValueError: if h or d is below 1, or `signal` is negative or not finite.
        """
        h, d = count("honest rows", "h", h, least=1), count("honest rows", "d", d, least=1)
        if not (np.isfinite(signal) and signal >= 0):
            raise ValueError(f"honest rows: signal must be a finite number of at least 0, got {signal!r}")
        draw = stream(seed, "honest rows")
        common = signal * draw.standard_normal(d)
        return cls(common + draw.standard_normal((h, d)), f"Gaussian, signal {signal:g}, seed {seed}")

    @property
    def mean(self) -> Floats:
        """Their mean, (d,)."""
        mean: Floats = self.rows.mean(axis=0)
        return mean

    @property
    def spread(self) -> float:
        """The honest deviation: the root of the mean squared distance to the mean."""
        return float(np.sqrt(np.square(self.rows - self.mean).sum(axis=1).mean()))
