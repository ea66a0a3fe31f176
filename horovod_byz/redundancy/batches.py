"""Which samples a redundancy group computes at a step: a pure function of seed, step and group."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from horovod_byz.common.streams import Purpose, check_seed, generator, torch_seed

__all__ = ["Batches", "Sampling"]

Sampling = Literal["random", "epochs"]


class Batches:
    """Draws each worker's batches; nothing is remembered from step to step, so a run resumes at any step.

    Args:
        seed: seed of the run.
        size: number of samples.
        batch: samples per worker and step.
        groups: for each worker the redundancy group whose batches it computes. Workers of one group get the
            same samples, augmentation and dropout.
        sampling: "random" draws every batch anew, uniformly with replacement; "epochs" deals out one shuffled
            pass over the data in consecutive batches, group after group, then the next (a rest that does
            not fill a step is dropped).
        shuffle: whether "epochs" shuffles.
        parts: for each group the indices of the samples that are its own; default: all groups share all
            samples. In "epochs" each group then passes over its own samples, at its own pace.

    Raises:
        ValueError: when the samples do not suffice for one batch, or in "epochs" for one step; of a group's
            own samples "random" needs one only, since it draws with replacement.
    """

    def __init__(
        self,
        seed: int,
        size: int,
        batch: int,
        groups: Sequence[int],
        sampling: Sampling = "random",
        *,
        shuffle: bool = True,
        parts: Sequence[NDArray[np.int64]] | None = None,
    ) -> None:
        self.seed, self.size, self.batch, self.sampling = check_seed(seed), size, batch, sampling
        self.groups, self._shuffle = tuple(groups), shuffle
        self._count = max(self.groups) + 1
        self._parts, self._orders = parts, dict[int, tuple[int, NDArray[np.int64]]]()
        if parts is not None:
            self._check_parts(parts)
            return
        needed = batch * (self._count if sampling == "epochs" else 1)
        if not 1 <= batch <= needed <= size:
            raise ValueError(
                f"{sampling!r} sampling needs between 1 and {size} samples per step, got {needed} "
                f"(batch {batch}): use a smaller batch"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Steps that one pass over the data takes; where groups have their own, over the largest part."""
        if self._parts is not None:
            return max(len(part) for part in self._parts) // self.batch
        return self.size // (self._count * self.batch)

    def indices(self, step: int, workers: Sequence[int]) -> NDArray[np.int64]:
        """Indices of the samples of each of `workers` at `step`, `(len(workers), batch)`."""
        draw = self._random if self.sampling == "random" else self._dealt
        return np.stack([draw(step, self.groups[worker]) for worker in workers])

    def epoch(self, epoch: int, group: int) -> NDArray[np.int64]:
        """The samples of a group in one pass over the data, `(steps_per_epoch * batch,)`."""
        if self._parts is not None:
            per = len(self._parts[group]) // self.batch
            steps = range(epoch * per, (epoch + 1) * per)
            return np.concatenate([self._dealt_own(step, group, self._parts[group]) for step in steps])
        whole = self._order(epoch)[: self.steps_per_epoch * self._count * self.batch]
        return whole.reshape(-1, self._count, self.batch)[:, group].reshape(-1)

    def augmentation(self, step: int, worker: int) -> np.random.Generator:
        """The random generator for the worker's augmentation at this step."""
        return generator(self.seed, Purpose.AUGMENT, self.groups[worker], step)

    def model_seed(self, step: int, worker: int) -> int:
        """The seed for dropout in the worker's forward pass at this step."""
        return torch_seed(self.seed, Purpose.MODEL, self.groups[worker], step)

    def _random(self, step: int, group: int) -> NDArray[np.int64]:
        part = None if self._parts is None else self._parts[group]
        size = self.size if part is None else len(part)
        drawn = generator(self.seed, Purpose.BATCH, group, step).integers(0, size, self.batch)
        return drawn if part is None else part[drawn]

    def _dealt(self, step: int, group: int) -> NDArray[np.int64]:
        if self._parts is not None:
            return self._dealt_own(step, group, self._parts[group])
        epoch, turn = divmod(step, self.steps_per_epoch)
        begin = (turn * self._count + group) * self.batch
        return self._order(epoch)[begin : begin + self.batch]

    def _dealt_own(self, step: int, group: int, part: NDArray[np.int64]) -> NDArray[np.int64]:
        epoch, turn = divmod(step, len(part) // self.batch)
        known, order = self._orders.get(group, (-1, part))
        if known != epoch:
            order = part
            if self._shuffle:
                order = part[generator(self.seed, Purpose.ORDER, group, epoch).permutation(len(part))]
            self._orders[group] = epoch, order
        return order[turn * self.batch : (turn + 1) * self.batch]

    def _check_parts(self, parts: Sequence[NDArray[np.int64]]) -> None:
        if len(parts) != self._count or self.batch < 1:
            raise ValueError(
                f"got a batch of {self.batch} and {len(parts)} parts of the data for {self._count} groups: "
                "give each group a part, and a batch of at least 1"
            )
        needed = self.batch if self.sampling == "epochs" else 1
        least = min(range(len(parts)), key=lambda group: len(parts[group]))
        if len(parts[least]) < needed:
            worker = self.groups.index(least)
            raise ValueError(
                f"{self.sampling!r} sampling needs at least {needed} samples for each worker, and the "
                f"partition leaves worker {worker} only {len(parts[least])}: use sampling 'random', a "
                f"smaller batch, fewer workers, or a partition with larger parts (dirichlet takes "
                f"least={needed})"
            )

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if not self._shuffle:
            return np.arange(self.size)
        return _order(self.seed, epoch, self.size)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    return generator(seed, Purpose.ORDER, 0, epoch).permutation(size)
