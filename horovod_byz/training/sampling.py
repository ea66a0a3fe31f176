"""Which training images a worker sees at a step: a pure function of seed, step and worker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Sampling = Literal["random", "epochs"]

# One independent family of random numbers per purpose, so that adding a purpose changes no other.
_BATCH, _AUGMENT, _MODEL, _ORDER = range(4)


class Sampler:
    """Draws each worker's batches; nothing is remembered from step to step, so a run resumes at any step.

    Args:
        seed: seed of the run.
        size: number of training images.
        batch: images per worker and step.
        streams: for each worker the number of the stream of batches that it computes. Workers with the same
            stream (a redundancy group) get the same images, augmentation and dropout; by default each has its
            own.
        sampling: "random" draws every batch anew, uniformly with replacement; "epochs" deals out one shuffled
            pass over the data in consecutive batches, stream after stream, then the next (a rest that does
            not fill a step is dropped).

    Raises:
        ValueError: when the images do not suffice for one batch, or in "epochs" for one step.
    """

    def __init__(
        self, seed: int, size: int, batch: int, streams: Sequence[int], sampling: Sampling = "random"
    ) -> None:
        self.seed, self.size, self.batch, self.sampling = seed, size, batch, sampling
        self.streams = tuple(streams)
        self._count = max(self.streams) + 1
        needed = batch * (self._count if sampling == "epochs" else 1)
        if not 1 <= batch <= needed <= size:
            raise ValueError(
                f"{sampling!r} sampling needs between 1 and {size} images per step, got {needed} "
                f"(batch {batch}): use a smaller batch"
            )
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def indices(self, step: int, workers: Sequence[int]) -> NDArray[np.int64]:
        """Indices of the training images of each of `workers` at `step`, `(len(workers), batch)`."""
        draw = self._random if self.sampling == "random" else self._dealt
        return np.stack([draw(step, self.streams[worker]) for worker in workers])

    def augmentation(self, step: int, worker: int) -> np.random.Generator:
        """The random generator for the worker's image augmentation at this step."""
        return self._generator(_AUGMENT, step, self.streams[worker])

    def model_seed(self, step: int, worker: int) -> int:
        """The seed for dropout in the worker's forward pass at this step."""
        return int(self._generator(_MODEL, step, self.streams[worker]).integers(0, 2**62))

    def _generator(self, purpose: int, step: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, purpose], counter=[0, stream, step, 0]))

    def _random(self, step: int, stream: int) -> NDArray[np.int64]:
        return self._generator(_BATCH, step, stream).integers(0, self.size, self.batch)

    def _dealt(self, step: int, stream: int) -> NDArray[np.int64]:
        per_step = self._count * self.batch
        epoch, turn = divmod(step, self.size // per_step)
        begin = turn * per_step + stream * self.batch
        return self._order(epoch)[begin : begin + self.batch]

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return self._generator(_ORDER, epoch, 0).permutation(self.size)


def take(images: Tensor, labels: Tensor, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Gather batches: `(k, batch)` indices to images `(k, batch, ...)` and labels `(k, batch)`."""
    chosen = torch.from_numpy(indices).to(labels.device)
    flat = chosen.view(-1)
    return images.index_select(0, flat).view(*chosen.shape, *images.shape[1:]), labels[chosen]
