"""The two counter-examples of Xie et al. 2018: one Byzantine value per column is enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile, finite
from horovod_byz.attacks.registry import register


@register
@dataclass(frozen=True)
class MeanCounterExample(Attack):
    """The Byzantine rows make the mean of all rows point against the gradient.

        row_i := -(g + sum_{k honest} row_k) / f,    so that    mean = -g / n,    <mean, g> = -|g|^2 / n

    The paper has one Byzantine row (f = 1) and the expected gradient g; here f rows share the value, and g
    is the mean of the honest rows. Without an honest row, g and the rows are zero.

    Reference:
        Xie, Koyejo, Gupta 2018, Theorem 1, equation (3).
    """

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "all rows"

    def strike(self, tile: Tile) -> None:
        honest = tile.honest
        total = tile.sum(honest)
        value = -(total / max(len(honest), 1) + total) / len(tile.targets)
        for row in tile.targets:
            tile.block[row] = value


@register
@dataclass(frozen=True)
class SelectionCounterExample(Attack):
    """One value of each row is multiplied by a large negative number, each in another column.

        row_i[i] := -scale * row_i[i],    i < min(n, d)

    Whichever row a rule selects, its inner product with the gradient falls without bound as scale grows,
    while each column holds one Byzantine value only.

    Args:
        scale: the large number; "arbitrarily large" in the paper.

    Raises:
        ValueError: if `scale` is not finite.

    Reference:
        Xie, Koyejo, Gupta 2018, Theorem 2 and Corollary 1.
    """

    scale: float = 1e6

    threat: ClassVar[Threat] = "dimensional"
    knows: ClassVar[Knowledge] = "own row"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", finite(self.scale, "SelectionCounterExample: scale"))

    def strike(self, tile: Tile) -> None:
        for row in tile.targets:
            if tile.begin <= row < tile.end:
                tile.block[row, row - tile.begin] = -self.scale * float(tile.block[row, row - tile.begin])
