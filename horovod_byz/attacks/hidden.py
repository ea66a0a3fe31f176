"""Attacks that go as far as they can while they stay among the honest rows: MinMax, MinSum, Mimic."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile
from horovod_byz.attacks.registry import register
from horovod_byz.kernels import distances
from horovod_byz.kernels.rows import Rows

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Farthest(Attack):
    """Base: every Byzantine row is mu + gamma p with the largest gamma that some distance allows.

    mu is the mean of the honest rows H, and p a direction. With a_i = |mu - H_i|^2 and c_i = <H_i - mu, p>,

        |mu + gamma p - H_i|^2 = gamma^2 |p|^2 - 2 gamma c_i + a_i,

    so that the largest gamma is the root of a quadratic, and no search is needed.
    """

    direction: Literal["unit", "deviation", "sign"] = "unit"

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "all rows"
    needs_whole_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.direction not in ("unit", "deviation", "sign"):
            raise ValueError(
                f'{type(self).__name__}: direction must be "unit", "deviation" or "sign", '
                f"got {self.direction!r}"
            )

    def strike(self, tile: Tile) -> None:
        honest = np.ascontiguousarray(tile.block[list(tile.honest)])
        mean = (tile.sum(tile.honest) / max(len(honest), 1)).astype(honest.dtype)
        value = mean
        if len(honest) > 1:
            push = self._direction(honest, mean)
            gamma = self._gamma(honest, mean, push)
            value = (mean + gamma * push.astype(np.float64)).astype(honest.dtype)
        for row in tile.targets:
            tile.block[row] = value

    def _direction(self, honest: NDArray[np.floating], mean: NDArray[np.floating]) -> NDArray[np.floating]:
        exact = mean.astype(np.float64)
        if self.direction == "unit":
            length = np.sqrt(_square(mean))
            push = -exact / length if length > 0 else exact
        elif self.direction == "sign":
            push = -np.sign(exact)
        else:
            square = np.zeros_like(exact)
            for row in honest:
                square += (row - exact) ** 2
            push = -np.sqrt(square / (len(honest) - 1))
        return push.astype(mean.dtype)

    def _gamma(
        self, honest: NDArray[np.floating], mean: NDArray[np.floating], push: NDArray[np.floating]
    ) -> float:
        rows = Rows(honest)
        near = distances.to_point(rows, mean)
        length = _square(push)
        inner = (near + length - distances.to_point(rows, (mean + push).astype(mean.dtype))) / 2
        gamma = self._largest(near, inner, length, distances.squared(rows))
        return gamma if np.isfinite(gamma) and gamma > 0 else 0.0

    @abstractmethod
    def _largest(self, near: Floats, inner: Floats, length: float, between: Floats) -> float:
        """The largest gamma.

        Args:
            near: (h,) squared distances of the honest rows to mu.
            inner: (h,) their <H_i - mu, p>.
            length: |p|^2.
            between: (h, h) squared distances between honest rows.
        """


def _square(vector: NDArray[np.floating]) -> float:
    """|vector|^2 by the kernel, whose sum is the same on every rank."""
    return float(distances.to_point(Rows(vector[None]), np.zeros_like(vector))[0])


@register
@dataclass(frozen=True)
class MinMax(_Farthest):
    """No Byzantine row is farther from any honest row than two honest rows are from one another.

        row_i := mu + gamma p,   largest gamma with max_k |row_i - H_k| <= max_{k,l} |H_k - H_l|

    With fewer than two honest rows, or rows that are not finite, gamma is 0.

    Args:
        direction: p: "unit", -mu / |mu|; "deviation", minus the standard deviation (ddof 1) of each
            coordinate; or "sign", -sign(mu).

    Raises:
        ValueError: for another direction; when called with a part of the rows' coordinates.

    Reference:
        Shejwalkar, Houmansadr 2021 (Manipulating the Byzantine), section 4.2.
    """

    def _largest(self, near: Floats, inner: Floats, length: float, between: Floats) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            roots = inner**2 - length * (near - between.max())
            return float(((inner + np.sqrt(roots)) / length).min())


@register
@dataclass(frozen=True)
class MinSum(_Farthest):
    """A Byzantine row's squared distances to the honest rows add up to no more than those of any honest row.

        row_i := mu + gamma p,   largest gamma with sum_k |row_i - H_k|^2 <= max_k sum_l |H_k - H_l|^2

    With fewer than two honest rows, or rows that are not finite, gamma is 0.

    Args:
        direction: as for `MinMax`.

    Raises:
        ValueError: for another direction; when called with a part of the rows' coordinates.

    Reference:
        Shejwalkar, Houmansadr 2021 (Manipulating the Byzantine), section 4.3.
    """

    def _largest(self, near: Floats, inner: Floats, length: float, between: Floats) -> float:
        total, most = inner.sum(), between.sum(axis=1).max()
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = len(near) * length
            return float((total + np.sqrt(total**2 - scale * (near.sum() - most))) / scale)


@register
@dataclass(frozen=True)
class Mimic(Attack):
    """Every Byzantine row is a copy of one honest row, which then counts f + 1 times.

        row_i := row_w

    No row is an outlier; on heterogeneous data a rule that picks the most similar rows follows worker w.

    Args:
        worker: w; default the first honest worker. If it is Byzantine itself at a step, the next honest one
            (cyclically) is copied.

    Raises:
        ValueError: if `worker` is no worker's index.

    Reference:
        Karimireddy, He, Jaggi 2022 (Byzantine-robust learning on heterogeneous datasets via bucketing),
        section 3.2; there the worker is chosen by the honest rows' covariance over a warm-up.
    """

    worker: int = 0

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "all rows"

    def __post_init__(self) -> None:
        whole = isinstance(self.worker, (int, np.integer)) and not isinstance(self.worker, bool)
        if not whole or self.worker < 0:
            raise ValueError(f"Mimic: worker must be a worker's index, counted from 0, got {self.worker!r}")
        object.__setattr__(self, "worker", int(self.worker))

    def strike(self, tile: Tile) -> None:
        n = len(tile.block)
        if self.worker >= n:
            raise ValueError(f"Mimic: worker {self.worker} is not among the {n} workers 0..{n - 1}")
        order = sorted(tile.honest, key=lambda row: (row - self.worker) % n)
        value = tile.block[order[0]].copy() if order else np.zeros(tile.end - tile.begin)
        for row in tile.targets:
            tile.block[row] = value
