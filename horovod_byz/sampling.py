"""The sampler that serves redundancy groups: replicas draw equal samples, groups disjoint ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from horovod_byz.redundancy import Redundancy


class RedundantSampler(Sampler[int]):
    """The samples of one worker's redundancy group; replicas draw equal ones, groups disjoint ones.

    Each epoch's order is one permutation by (seed, epoch), dealt to the groups in turn; as many
    samples as do not deal evenly are left out of that epoch. The epoch advances by itself with each
    pass; `set_epoch` sets it, and `state_dict` lets a run resume in the middle of an epoch.
    """

    def __init__(
        self, length: int, redundancy: Redundancy, worker: int, workers: int, seed: int, shuffle: bool
    ) -> None:
        groups = redundancy.groups_of(workers)
        self.group = redundancy.group_of(worker, workers)
        self.groups = len(groups)
        if length < self.groups:
            raise ValueError(
                f"{length} samples cannot serve {self.groups} redundancy groups: one each at least"
            )
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.epoch, self._drawn = 0, 0

    def __len__(self) -> int:
        return self.length // self.groups

    def __iter__(self) -> Iterator[int]:
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        mine = order[self.group : len(self) * self.groups : self.groups]
        for index in mine[self._drawn :]:
            self._drawn += 1
            yield int(index)
        self.epoch, self._drawn = self.epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Starts the given epoch with the next pass."""
        self.epoch, self._drawn = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands. With DataLoader workers it runs ahead of training: use `position`."""
        return {"epoch": self.epoch, "drawn": self._drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state` stood."""
        self.epoch, self._drawn = int(state["epoch"]), int(state["drawn"])
