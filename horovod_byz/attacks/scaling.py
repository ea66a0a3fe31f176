"""Rows multiplied by a constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile, finite
from horovod_byz.attacks.registry import register


def _scale_rows(tile: Tile, factor: float) -> None:
    for row in tile.targets:
        tile.block[row] = factor * tile.block[row].astype(np.float64)


@register
@dataclass(frozen=True)
class GradientScale(Attack):
    """Each Byzantine row is its own gradient times a constant.

        row_i := scale * row_i

    The Mean column of the paper's table cannot come from 1e10; 1e-10 fits it better (docs/differences.md).

    Args:
        scale: the constant; 1e10 in the paper.

    Raises:
        ValueError: if `scale` is not finite.

    Reference:
        Li et al. 2021 (BrSGD), section 5.1, "Gradient Scale Attack".
    """

    scale: float = 1e10

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "own row"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", finite(self.scale, "GradientScale: scale"))

    def strike(self, tile: Tile) -> None:
        _scale_rows(tile, self.scale)


@register
@dataclass(frozen=True)
class ReversedGradient(Attack):
    """Each Byzantine row is its own gradient, reversed and enlarged.

        row_i := -c * row_i,    c > 0

    Args:
        c: the factor. The paper states c > 0 only; its public code uses 100.

    Raises:
        ValueError: if `c` is not a finite number > 0.

    Reference:
        Rajput et al. 2019 (DETOX), section 5.2, "reversed gradient".
    """

    c: float = 100.0

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "own row"

    def __post_init__(self) -> None:
        object.__setattr__(self, "c", finite(self.c, "ReversedGradient: c"))
        if self.c <= 0:
            raise ValueError(
                f"ReversedGradient: c must be > 0, got {self.c}: use GradientScale for other factors"
            )

    def strike(self, tile: Tile) -> None:
        _scale_rows(tile, -self.c)
