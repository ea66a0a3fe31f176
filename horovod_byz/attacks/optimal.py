"""Attacks that know the rule, and search the strength that moves its result farthest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile
from horovod_byz.attacks.line import Line, strongest
from horovod_byz.attacks.registry import alias, register
from horovod_byz.rules import Rule, as_rule

Floats = NDArray[np.float64]

DEVIATIONS = tuple(2.0 ** (k / 2) for k in range(-6, 15))
"""Strengths of a search in standard deviations: 1/8 to 128."""

MULTIPLES = tuple(2.0 ** (k / 2) for k in range(-8, 15))
"""Strengths of a search in multiples of the mean: 1/16 to 128."""


@dataclass(frozen=True)
class _Optimal(Attack):
    """Base: every Byzantine row is mu + gamma p with the gamma that moves the rule's result farthest from mu.

    A grid of strengths, then golden sections. See `line.Line` for what an evaluation costs.
    """

    rule: Rule | str

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "all rows"
    needs_whole_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        as_rule(self.rule, f"{type(self).__name__}: rule")

    def strike(self, tile: Tile) -> None:
        honest = list(tile.honest)
        mean = tile.sum(honest) / max(len(honest), 1)
        value = mean.astype(tile.block.dtype)
        with np.errstate(all="ignore"):
            push = self._push(tile.block[honest], mean).astype(tile.block.dtype)
            if tile.end > tile.begin and push.any():
                line = Line(as_rule(self.rule), tile.block, tile.targets, value, push, step=tile.step)
                best, _ = strongest(lambda strength: line.moved(self._gamma(strength)), self._strengths())
                value = line.point(self._gamma(best))
        for row in tile.targets:
            tile.block[row] = value

    @abstractmethod
    def _push(self, honest: NDArray[np.floating], mean: Floats) -> Floats:
        """The direction p, (d,)."""

    @abstractmethod
    def _strengths(self) -> Sequence[float]:
        """The grid."""

    def _gamma(self, strength: float) -> float:
        return strength


@register
@dataclass(frozen=True)
class OptimalALittleIsEnough(_Optimal):
    """A little is enough, with the z that moves the given rule's result farthest from the honest mean.

        row_i := mu + sign * z * sigma,    z = argmax |rule(rows) - mu|

    mu_j, sigma_j: mean and standard deviation (ddof 1) of column j over the honest rows. z is searched
    between 1/8 and 128. With fewer than two honest rows sigma is 0.

    Args:
        rule: the rule that is attacked, or its name. In a configuration the run's rule, if left out.
        sign: +1 or -1.

    Raises:
        TypeError: if `rule` is no rule.
        ValueError: if no rule has that name, or `sign` is another; when called with a part of the rows'
            coordinates, or with fewer rows than the rule needs.

    Reference:
        Baruch, Baruch, Goldberg 2019 for the rows; the search as in Allouah et al. 2023 (Fixing by mixing),
        section 6.
    """

    sign: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sign not in (1, -1):
            raise ValueError(f"OptimalALittleIsEnough: sign must be 1 or -1, got {self.sign!r}")

    def _push(self, honest: NDArray[np.floating], mean: Floats) -> Floats:
        return self.sign * deviation(honest, mean)

    def _strengths(self) -> Sequence[float]:
        return DEVIATIONS


@register
@dataclass(frozen=True)
class OptimalInnerProduct(_Optimal):
    """Inner product manipulation with the epsilon that moves the given rule's result farthest from the mean.

        row_i := -epsilon * mu,    epsilon = argmax |rule(rows) - mu|

    mu: mean of the honest rows. epsilon is searched between 1/16 and 128. Without an honest row mu is zero.

    Args:
        rule: the rule that is attacked, or its name. In a configuration the run's rule, if left out.

    Raises:
        TypeError: if `rule` is no rule.
        ValueError: if no rule has that name; when called with a part of the rows' coordinates, or with fewer
            rows than the rule needs.

    Reference:
        Xie, Koyejo, Gupta 2019 for the rows; the search as in Allouah et al. 2023 (Fixing by mixing), section
        6.
    """

    def _push(self, honest: NDArray[np.floating], mean: Floats) -> Floats:
        return -mean

    def _strengths(self) -> Sequence[float]:
        return MULTIPLES

    def _gamma(self, strength: float) -> float:
        return 1.0 + strength  # -epsilon mu = mu + (1 + epsilon) (-mu)


def deviation(honest: NDArray[np.floating], mean: Floats) -> Floats:
    """Standard deviation of each column, ddof 1, (d,); zeros for fewer than two rows."""
    square = np.zeros_like(mean)
    with np.errstate(over="ignore", invalid="ignore"):
        for row in honest:
            square += (row - mean) ** 2
    return np.sqrt(square / max(len(honest) - 1, 1))


alias("optimal-alie", "optimal-a-little-is-enough")
alias("optimal-ipm", "optimal-inner-product")
