"""How a run's training data are divided among its workers: partitions by name, and the skew of labels.

Workers of one redundancy group compute the same batches, so the data are divided among groups; without
redundancy each worker is a group.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from horovod_byz.common.checks import count, positive
from horovod_byz.common.registry import Registry
from horovod_byz.common.words import PATH, known
from horovod_byz.training import partition
from horovod_byz.training.named import Named

__all__ = ["PARTITIONS", "Dirichlet", "Extreme", "Gamma", "Iid", "Partition", "Skew", "Split"]

Ints = NDArray[np.int64]


class Partition(Protocol):
    """A way to divide samples: a frozen dataclass, whose fields are its options."""

    def deal(self, labels: Ints, groups: int, seed: int) -> Sequence[Ints] | None:
        """Per group the indices of its samples; None where every group draws from all."""


@dataclass(frozen=True)
class Iid:
    """Every worker draws its batches from the whole set."""

    def deal(self, labels: Ints, groups: int, seed: int) -> Sequence[Ints] | None:
        return None


@dataclass(frozen=True)
class Dirichlet:
    """Each class in shares from a Dirichlet distribution; see `partition.dirichlet`.

    Args:
        alpha: concentration, > 0; 0.1 is usual for strong heterogeneity.
        least: samples that each group must have.
    """

    alpha: float
    least: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", positive(self, "alpha", self.alpha))
        object.__setattr__(self, "least", count(self, "least", self.least, least=1))

    def deal(self, labels: Ints, groups: int, seed: int) -> Sequence[Ints] | None:
        return partition.dirichlet(labels, groups, self.alpha, seed, self.least)


@dataclass(frozen=True)
class Gamma:
    """A share at random, the rest in blocks by label; see `partition.gamma`.

    Args:
        share: fraction of the samples that is dealt out at random, 0 to 1.
    """

    share: float

    def __post_init__(self) -> None:
        number = isinstance(self.share, (int, float)) and not isinstance(self.share, bool)
        if not number or not 0 <= self.share <= 1:
            raise ValueError(f"Gamma: share must be a number from 0 to 1, got {self.share!r}")
        object.__setattr__(self, "share", float(self.share))

    def deal(self, labels: Ints, groups: int, seed: int) -> Sequence[Ints] | None:
        return partition.gamma(labels, groups, self.share, seed)


@dataclass(frozen=True)
class Extreme:
    """One block of the samples sorted by label for each group; see `partition.by_label`."""

    def deal(self, labels: Ints, groups: int, seed: int) -> Sequence[Ints] | None:
        return partition.by_label(labels, groups, seed)


def _is_partition(thing: Any) -> bool:
    return isinstance(thing, type) and dataclasses.is_dataclass(thing) and callable(getattr(thing, "deal", 0))


PARTITIONS: Registry[type[Partition]] = Registry(
    "partition",
    "horovod_byz.partitions",
    _is_partition,
    "a frozen dataclass with a method deal(labels, groups, seed)",
)
for _kind in (Iid, Dirichlet, Gamma, Extreme):
    PARTITIONS.add(_kind.__name__.lower(), _kind)

_MAIN = {"dirichlet": "alpha", "gamma": "share"}  # the option that a number alone means: "gamma:0.3"


class Split(Named):
    """A partition by name: `"gamma:0.3"`, `"dirichlet:alpha=0.1"`, `{name = "dirichlet", alpha = 0.1}`."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, _, number = value.partition(":")
        if not PATH.fullmatch(value):
            known(name, PARTITIONS, PARTITIONS.what)  # "gama:0.3" is no wrong form, but a wrong name
        if name in _MAIN and number and "=" not in number.partition(",")[0]:
            return f"{name}:{_MAIN[name]}={number}"
        return value

    @property
    def divides(self) -> bool:
        """Whether workers see different data."""
        return self.name != "iid"

    def make(self) -> Partition:
        """The partition.

        Raises:
            ValueError: if no partition has this name, or an option is unknown, missing or out of range.
        """
        PARTITIONS.check_options(self.name, self.options)
        try:
            return PARTITIONS[self.name](**self.options)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def parts(self, labels: Ints, groups: Sequence[int], seed: int) -> tuple[Ints, ...] | None:
        """Divides the samples among the groups.

        Args:
            labels: (samples,) the class of each sample.
            groups: for each worker its redundancy group.
            seed: the same seed gives the same parts.

        Returns:
            Per group the indices of its samples; None where every group draws from all.

        Raises:
            ValueError: if a worker would have no data, or indices are not those of samples.
        """
        dealt = self.make().deal(labels, max(groups) + 1, seed)
        if dealt is None:
            return None
        return _checked(f"data.partition {str(self)!r}", dealt, groups, len(labels))


def _checked(what: str, dealt: Sequence[Any], groups: Sequence[int], samples: int) -> tuple[Ints, ...]:
    parts = tuple(np.asarray(part) for part in dealt)
    if len(parts) != max(groups) + 1:
        raise ValueError(
            f"{what} made {len(parts)} parts for {max(groups) + 1} groups of workers: return one for each"
        )
    for group, part in enumerate(parts):
        if part.ndim != 1 or (len(part) and part.dtype.kind not in "iu"):
            raise ValueError(
                f"{what}: the part of group {group} must be a vector of sample indices, got "
                f"{part.dtype} of shape {part.shape}"
            )
        if len(part) and not (part.min() >= 0 and part.max() < samples):
            raise ValueError(f"{what}: the part of group {group} must hold indices from 0 to {samples - 1}")
    empty = [str(worker) for worker, group in enumerate(groups) if not len(parts[group])]
    if empty:
        raise ValueError(
            f"{what} leaves worker{'s' * (len(empty) > 1)} {', '.join(empty)} of {len(groups)} without data: "
            "use fewer workers, more samples, or another partition"
        )
    return tuple(part.astype(np.int64) for part in parts)


@dataclass(frozen=True)
class Skew:
    """How far the workers' labels are from the whole set's.

    Attributes:
        partition: the partition's name with its options.
        skew: mean over workers of the total variation distance, 1/2 sum over classes |p_worker - p_all|: 0
            where all workers see the same labels, near 1 where each sees few of many.
        labels: (workers, classes) samples of each class that a worker has, which replicas of a group share;
            None where every worker draws from all.
    """

    partition: str
    skew: float
    labels: Ints | None

    @classmethod
    def of(cls, split: Split, labels: Ints, parts: Sequence[Ints] | None, classes: int) -> Skew:
        """Measures the parts of a partition, those of each worker."""
        if parts is None:
            return cls(str(split), 0.0, None)
        counts = np.stack([np.bincount(labels[part], minlength=classes) for part in parts])
        everything = np.bincount(labels, minlength=classes) / len(labels)
        apart = np.abs(counts / counts.sum(axis=1, keepdims=True) - everything).sum(axis=1) / 2
        return cls(str(split), math.fsum(apart) / len(apart), counts.astype(np.int64))

    def to_data(self) -> dict[str, Any]:
        """Plain data for the run's record."""
        data: dict[str, Any] = {"partition": self.partition, "label_skew": round(self.skew, 6)}
        return data if self.labels is None else {**data, "labels_of_workers": self.labels.tolist()}

    def __str__(self) -> str:
        text = f"data by {self.partition}: label skew {self.skew:.2f}"
        if self.labels is None:
            return text
        sizes, seen = self.labels.sum(axis=1), (self.labels > 0).sum(axis=1)
        return (
            f"{text} (0: all alike, 1: apart), {sizes.min()} to {sizes.max()} images and "
            f"{seen.min()} to {seen.max()} of {self.labels.shape[1]} classes for each"
        )
