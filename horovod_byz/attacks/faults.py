"""Constant rows: the signSGD attack, and the rows of broken hardware and software."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile, finite
from horovod_byz.attacks.registry import alias, register


@register
@dataclass(frozen=True)
class Constant(Attack):
    """Every value of a Byzantine row is the same constant.

        row_i[j] := value

    Args:
        value: the constant; -1 in the paper (-100 in its public code, the same after signSGD's sign).

    Raises:
        ValueError: if `value` is not finite.

    Reference:
        Rajput et al. 2019 (DETOX), section 5.2, "constant Byzantine attack".
    """

    value: float = -1.0

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "nothing"

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", finite(self.value, "Constant: value"))

    def strike(self, tile: Tile) -> None:
        for row in tile.targets:
            tile.block[row] = self.value


@register
@dataclass(frozen=True)
class Zero(Attack):
    """A dead worker: its row is all zeros, as an uninitialised or timed-out buffer is.

    row_i[j] := 0
    """

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "nothing"

    def strike(self, tile: Tile) -> None:
        for row in tile.targets:
            tile.block[row] = 0.0


@register
@dataclass(frozen=True)
class NotANumber(Attack):
    """A diverged or miscomputing worker: its row is all NaN.

    row_i[j] := NaN
    """

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "nothing"

    def strike(self, tile: Tile) -> None:
        for row in tile.targets:
            tile.block[row] = np.nan


@register
@dataclass(frozen=True)
class Infinite(Attack):
    """An overflowing worker: its row is infinite.

    row_i[j] := sign * Inf

    Args:
        sign: +1 or -1.

    Raises:
        ValueError: for another sign.
    """

    sign: int = 1

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "nothing"

    def __post_init__(self) -> None:
        if self.sign not in (1, -1):
            raise ValueError(f"Infinite: sign must be 1 or -1, got {self.sign!r}")

    def strike(self, tile: Tile) -> None:
        for row in tile.targets:
            tile.block[row] = self.sign * np.inf


alias("nan", "not-a-number")
