"""Rows replaced by noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile, finite
from horovod_byz.attacks.registry import register


@register
@dataclass(frozen=True)
class Gaussian(Attack):
    """Each Byzantine row is drawn from N(0, std^2 I).

        row_i := std * xi,    xi_j ~ N(0, 1) independent

    The numbers are float64, rounded to the dtype of the rows.

    Args:
        std: standard deviation of each value; 200 in the papers.

    Raises:
        ValueError: if `std` is negative or not finite.

    Reference:
        Xie, Koyejo, Gupta 2018, section 5.2; Li et al. 2021 (BrSGD), section 5.1.
    """

    std: float = 200.0

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "nothing"

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", finite(self.std, "Gaussian: std"))
        if self.std < 0:
            raise ValueError(f"Gaussian: std must be >= 0, got {self.std}")

    def strike(self, tile: Tile) -> None:
        for row in tile.targets:
            tile.block[row] = self.std * tile.normal(row)
