"""A little is enough: hide inside the spread of the honest rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile, finite
from horovod_byz.attacks.registry import alias, register
from horovod_byz.theory.little import z_max


@register
@dataclass(frozen=True)
class ALittleIsEnough(Attack):
    """Every Byzantine row sits z standard deviations away from the mean, in every coordinate.

        row_i := mu + sign * z * sigma,    mu_j, sigma_j = mean and population standard deviation of column j

    over the rows in `view`, as they were before the attack. With one Byzantine row and view="byzantine",
    sigma is 0 and the attack sends the honest gradient. An empty view gives zero rows.

    Args:
        z: number of standard deviations; 1.0 in the public code of DETOX. "zmax": the largest value that
            stays unnoticed, `horovod_byz.theory.z_max(n, f)`.
        view: the rows that mu and sigma are taken over: "all" (public code of DETOX), "byzantine" (the
            colluding workers' own gradients, as the text has it) or "honest".
        sign: +1 (DETOX) or -1 (public code of the attack's authors).

    Raises:
        ValueError: if an argument is not one of those; or, when called with z="zmax", f is too large for n.

    Reference:
        Baruch, Baruch, Goldberg 2019; Rajput et al. 2019 (DETOX), section 5.2.
    """

    z: float | Literal["zmax"] = 1.0
    view: Literal["all", "byzantine", "honest"] = "all"
    sign: int = 1

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "all rows"

    def __post_init__(self) -> None:
        if self.z != "zmax":
            object.__setattr__(self, "z", finite(self.z, 'ALittleIsEnough: z, unless it is "zmax",'))
        if self.view not in ("all", "byzantine", "honest"):
            raise ValueError(
                f'ALittleIsEnough: view must be "all", "byzantine" or "honest", got {self.view!r}'
            )
        if self.sign not in (1, -1):
            raise ValueError(f"ALittleIsEnough: sign must be 1 or -1, got {self.sign!r}")

    def strike(self, tile: Tile) -> None:
        n = len(tile.block)
        z = z_max(n, len(tile.byzantine)) if self.z == "zmax" else self.z
        views = {"all": tuple(range(n)), "byzantine": tile.byzantine, "honest": tile.honest}
        # Before any row is written, since the targets may be in the view.
        mean, std = _moments(tile, views[self.view])
        value = mean + self.sign * z * std
        for row in tile.targets:
            tile.block[row] = value


def _moments(tile: Tile, rows: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count = max(len(rows), 1)
    mean = tile.sum(rows) / count
    square = np.zeros_like(mean)
    for row in rows:
        square += (tile.block[row] - mean) ** 2
    return mean, np.sqrt(square / count)


alias("alie", "a-little-is-enough")
