"""Rows multiplied by a constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

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


@register
@dataclass(frozen=True)
class SignFlip(Attack):
    """Each Byzantine row is a gradient with its sign flipped, as long as an honest one.

        row_i := -row_i, or minus the mean of the honest rows

    Args:
        of: "own" (`ReversedGradient(c=1)`) or "mean" (`InnerProduct(epsilon=1)`).

    Raises:
        ValueError: for another `of`.
    """

    of: Literal["own", "mean"] = "own"

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "all rows"

    def __post_init__(self) -> None:
        if self.of not in ("own", "mean"):
            raise ValueError(f'SignFlip: of must be "own" or "mean", got {self.of!r}')

    def strike(self, tile: Tile) -> None:
        if self.of == "own":
            _scale_rows(tile, -1.0)
            return
        value = -tile.sum(tile.honest) / max(len(tile.honest), 1)
        for row in tile.targets:
            tile.block[row] = value
