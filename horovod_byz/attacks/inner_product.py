"""Inner product manipulation: push the aggregate's inner product with the gradient below zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile, finite
from horovod_byz.attacks.registry import alias, register


@register
@dataclass(frozen=True)
class InnerProduct(Attack):
    """Every Byzantine row is the mean of the honest rows times -epsilon.

        row_i := -(epsilon / h) * sum_{k honest} row_k,    h = number of honest rows

    epsilon > 0 attacks: large values break the median, small ones break Krum. epsilon = 0 stalls the median
    and epsilon < 0 helps it. (The paper's Remark 5 misses the minus sign; its sections 6.2 and 6.3 have it.)
    Without an honest row the sum is zero.

    Args:
        epsilon: strength; the paper uses 10, 0.1, 0, -10 on the median (12 of 25 workers), and 0.1, 0.5, 1,
            10 on Krum (11 of 25).

    Raises:
        ValueError: if `epsilon` is not finite.

    Reference:
        Xie, Koyejo, Gupta 2019 (Fall of Empires), sections 6.2 and 6.3.
    """

    epsilon: float

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "all rows"

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", finite(self.epsilon, "InnerProduct: epsilon"))

    def strike(self, tile: Tile) -> None:
        honest = tile.honest
        value = -(self.epsilon / max(len(honest), 1)) * tile.sum(honest)
        for row in tile.targets:
            tile.block[row] = value


alias("ipm", "inner-product")
