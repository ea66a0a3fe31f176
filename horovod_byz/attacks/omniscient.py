"""Rows replaced by a large multiple of the negative sum of the honest rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile, finite
from horovod_byz.attacks.registry import register


@register
@dataclass(frozen=True)
class Omniscient(Attack):
    """Each Byzantine row is the negative sum of all honest rows, scaled by a large constant.

        row_i := -scale * sum_{k honest} row_k

    All Byzantine rows are equal. Without an honest row the sum is zero.

    Args:
        scale: the large constant; 1e20 in the paper.

    Raises:
        ValueError: if `scale` is not finite.

    Reference:
        Xie, Koyejo, Gupta 2018, section 5.3.
    """

    scale: float = 1e20

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "all rows"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", finite(self.scale, f"{type(self).__name__}: scale"))

    def strike(self, tile: Tile) -> None:
        value = -self.scale * tile.sum(tile.honest)
        for row in tile.targets:
            tile.block[row] = value


@register
@dataclass(frozen=True)
class ModelNegation(Omniscient):
    """The omniscient attack with the constant of the BrSGD paper, 1e10.

        row_i := -scale * sum_{k honest} row_k

    Args:
        scale: the large constant; 1e10 in the paper.

    Raises:
        ValueError: if `scale` is not finite.

    Reference:
        Li et al. 2021 (BrSGD), section 5.1, "Model Negation Attack".
    """

    scale: float = 1e10
