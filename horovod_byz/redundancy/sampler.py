"""The sampler that serves redundancy groups: replicas draw equal samples, groups disjoint ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from horovod_byz.common.streams import Purpose, generator
from horovod_byz.redundancy.batches import Batches


class Drawn(int):
    """The index of a sample that knows the epoch in which it was drawn, also in a loader's process."""

    epoch: int = 0

    @classmethod
    def at(cls, index: int, epoch: int) -> Drawn:
        drawn = cls(index)
        drawn.epoch = epoch
        return drawn


class SeededDataset(Dataset[Any]):
    """A data set whose random augmentation depends on (seed, epoch, sample) and on nothing else.

    So replicas agree whatever their number of loader processes, and also where one of them resumed in the
    middle of an epoch. Torch's, NumPy's and Python's global generators are seeded for the sample and then put
    back.

    Args:
        data: a map-style data set.
        seed: the seed, equal on all replicas.
    """

    def __init__(self, data: Any, seed: int = 0) -> None:
        self.data, self.seed = data, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        epoch = getattr(index, "epoch", 0)
        seed = int(generator(self.seed, Purpose.SAMPLE, int(index), epoch).integers(0, 2**62))
        # NumPy's global generator is legacy, and what transforms draw from.
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            return self.data[int(index)]
        finally:
            torch.set_rng_state(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            random.setstate(before[2])


class RedundantSampler(Sampler[int]):
    """The samples of one worker's redundancy group; replicas draw equal ones, groups disjoint ones.

    Each epoch's order is one permutation by (seed, epoch), dealt to the groups in turn, as `Batches` deals it
    in batches of one; as many samples as do not deal evenly are left out of that epoch. The epoch advances by
    itself with each pass; `set_epoch` sets it, and `state_dict` lets a run resume in the middle of an epoch.
    """

    def __init__(self, length: int, group: int, groups: int, seed: int, shuffle: bool) -> None:
        self.group, self.groups = group, groups
        if length < self.groups:
            raise ValueError(
                f"{length} samples cannot serve {self.groups} redundancy groups: one each at least"
            )
        self._batches = Batches(seed, length, 1, range(self.groups), "epochs", shuffle=shuffle)
        self.length = length
        self.epoch, self._drawn = 0, 0

    def __len__(self) -> int:
        return self._batches.steps_per_epoch

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch
        for index in self._batches.epoch(epoch, self.group)[self._drawn :]:
            self._drawn += 1
            yield Drawn.at(int(index), epoch)
        self.epoch, self._drawn = self.epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Starts the given epoch with the next pass."""
        self.epoch, self._drawn = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands. With DataLoader workers it runs ahead of training: use `position`."""
        return {"epoch": self.epoch, "drawn": self._drawn}

    def position(self, batches: int, batch_size: int, drop_last: bool = False) -> dict[str, Any]:
        """The state after training has used so many batches since epoch 0, for `load_state_dict`.

        Args:
            batches: how many, as the training loop counts them.
            batch_size: the loader's batch size.
            drop_last: whether the loader leaves out an epoch's last, shorter batch.
        """
        per_epoch = len(self) // batch_size if drop_last else -(-len(self) // batch_size)
        if per_epoch == 0:
            raise ValueError(
                f"an epoch of {len(self)} samples has no batch of {batch_size}: use a smaller one"
            )
        epoch, batch = divmod(batches, per_epoch)
        return {"epoch": epoch, "drawn": batch * batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state` stood."""
        self.epoch, self._drawn = int(state["epoch"]), int(state["drawn"])
