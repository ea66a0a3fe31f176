"""Which worker computes which batch: redundancy groups."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from horovod_byz.aggregation.source import Groups
from horovod_byz.common.checks import count
from horovod_byz.common.streams import Purpose, torch_seed
from horovod_byz.host.process import job_ranks

if TYPE_CHECKING:
    from horovod_byz.redundancy.sampler import RedundantSampler, SeededDataset

# Two against one is the smallest majority that outvotes anybody.
_LEAST_VOTERS = 3


@dataclass(frozen=True)
class Redundancy:
    """A random partition of the workers into groups of r that compute the same batch.

    The partition is drawn once by seed and holds for the whole run. Where r does not divide n, the
    n mod r workers that are left join one group each, which then has r + 1 members; a vote always
    needs a strict majority of its group.

    Args:
        r: replicas per batch; 1 means no redundancy. Odd numbers use every replica.
        seed: seed of the partition.
        groups: the partition itself, instead of a random one: tuples of worker indices that cover
            0..n-1.

    Reference:
        Rajput, Wang, Charles, Papailiopoulos (2019), DETOX, Algorithm 1, line 1.
    """

    r: int = 1
    seed: int = 0
    groups: Groups | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "r", count(self, "r", self.r, least=1))
        object.__setattr__(self, "seed", count(self, "seed", self.seed))
        if self.groups is not None:
            object.__setattr__(self, "groups", tuple(tuple(int(i) for i in group) for group in self.groups))

    def groups_of(self, n: int) -> Groups:
        """The groups for n workers, each ascending.

        Raises:
            ValueError: if n < r, or the given groups are not a partition of 0..n-1.
        """
        if self.groups is not None:
            if sorted(i for group in self.groups for i in group) != list(range(n)):
                raise ValueError(
                    f"Redundancy: groups {self.groups} do not cover workers 0..{n - 1} once each"
                )
            return self.groups
        if n < self.r:
            raise ValueError(f"Redundancy(r={self.r}) needs at least {self.r} workers, got {n}: use r <= {n}")
        return _drawn(self.r, self.seed, n)

    def without(self, workers: Sequence[int], n: int) -> Redundancy:
        """The groups without some of n workers, the others numbered anew from 0.

        Raises:
            ValueError: if a group of replicas keeps fewer than three, which cannot outvote a wrong one: of
                two that differ nobody knows which is wrong. Groups of one member go.
        """
        gone, groups = set(workers), self.groups_of(n)
        number = {worker: i for i, worker in enumerate(w for w in range(n) if w not in gone)}
        for group in groups:
            kept = len(group) - len(gone.intersection(group))
            if len(group) > 1 and kept < min(len(group), _LEAST_VOTERS):
                raise ValueError(
                    f"redundancy group {group} keeps {kept} of its {len(group)} replicas, which cannot "
                    f"outvote a wrong one: use Redundancy(r={len(group) + 2}) or more, or keep the worker, "
                    "which its group outvotes"
                )
        rest = (tuple(number[worker] for worker in group if worker not in gone) for group in groups)
        return replace(self, groups=tuple(group for group in rest if group))

    def group_of(self, worker: int, n: int) -> int:
        """Index of the group that a worker belongs to."""
        for k, group in enumerate(self.groups_of(n)):
            if worker in group:
                return k
        raise ValueError(f"worker {worker} is not among the {n} workers 0..{n - 1}")

    def batch_size(self, total: int, n: int) -> int:
        """Samples per worker, r b / n, so that the distinct samples of a step are b in all.

        Raises:
            ValueError: if the groups cannot share `total` evenly; the message names the nearest that
                they can.
        """
        groups = len(self.groups_of(n))
        if total % groups:
            low = total // groups * groups
            raise ValueError(
                f"a batch of {total} cannot be split evenly among {groups} redundancy groups: "
                f"use {low or groups} or {low + groups}"
            )
        return total // groups

    def seed_step(self, worker: int, n: int, step: int) -> None:
        """Seeds torch's generators alike on all replicas of a group, so that dropout bits agree."""
        import torch

        torch.manual_seed(torch_seed(self.seed, Purpose.MODEL, self.group_of(worker, n), step))

    def sampler(
        self,
        data: Sized,
        seed: int = 0,
        *,
        worker: int | None = None,
        workers: int | None = None,
        shuffle: bool = True,
    ) -> RedundantSampler:
        """A sampler that gives every replica of a group the same samples in the same order.

        Args:
            data: the data set; only its length is used.
            seed: seed of the order, the same on every worker.
            worker: this worker's index (default: the rank in Horovod, or else in torch.distributed).
            workers: number of workers (default: the number of ranks).
            shuffle: whether to draw a new order in each epoch.

        Raises:
            RuntimeError: if the rank is needed, and neither Horovod nor torch.distributed is initialised.
        """
        from horovod_byz.redundancy.sampler import RedundantSampler

        if worker is None or workers is None:
            rank, size = job_ranks()
            worker = rank if worker is None else worker
            workers = size if workers is None else workers
        group, groups = self.group_of(worker, workers), len(self.groups_of(workers))
        return RedundantSampler(len(data), group, groups, seed, shuffle)

    def seeded(self, data: Any) -> SeededDataset:
        """The data set with random augmentation that all replicas draw alike: by sample and epoch.

        Without it, augmentation takes its random numbers from the loader's processes, which agree only if
        their number does, and not after one replica was restarted.
        """
        from horovod_byz.redundancy.sampler import SeededDataset

        return SeededDataset(data, self.seed)


@lru_cache(maxsize=64)
def _drawn(r: int, seed: int, n: int) -> Groups:
    order = np.random.default_rng([seed, 0xDE70]).permutation(n).tolist()
    full = n // r
    members = [order[r * k : r * (k + 1)] for k in range(full)]
    for k, worker in enumerate(order[r * full :]):
        members[k % full].append(worker)
    return tuple(tuple(sorted(group)) for group in members)
