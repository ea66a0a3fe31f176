"""Which batches a rank computes for its workers, and how their rows follow from its computations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from horovod_byz import Draco
from horovod_byz.attacks import LabelFlip
from horovod_byz.training.config import RunConfig

__all__ = ["Shares", "share"]


@dataclass(frozen=True)
class Shares:
    """The computations of one rank, one gradient each.

    Attributes:
        workers: this rank's workers.
        batches: of each computation, a worker whose batch it is.
        computers: of each computation, who computes it.
        parts: for each worker of this rank, the computations that it sends a combination of; first that of
            its own batch.
        n: number of workers of the job.
        encoder: what combines them; None where each worker sends its own.
    """

    workers: range
    batches: list[int]
    computers: list[int]
    parts: list[list[int]]
    n: int
    encoder: Draco | None = None

    @property
    def own(self) -> list[int]:
        """For each worker of this rank, the computation of its own batch."""
        return [rows[0] for rows in self.parts]

    def own_of(self, computed: Tensor) -> Tensor:
        """For each worker, the gradient of its own batch; `(computations, k)` to `(workers, k)`."""
        own = self.own
        return computed[own] if own != list(range(len(computed))) else computed

    def sent(self, computed: Tensor) -> Tensor:
        """The rows that the workers send; `(computations, d)` to `(workers, d)`."""
        if self.encoder is None:
            return self.own_of(computed)
        rows = [
            self.encoder.encode([computed[row] for row in parts], worker, self.n)
            for worker, parts in zip(self.workers, self.parts, strict=True)
        ]
        return torch.stack(rows) if rows else computed[:0]


def share(config: RunConfig, workers: range, groups: list[int]) -> Shares:
    """Assigns computations to the workers of a rank.

    Replicas' gradients agree bit for bit, so one computation serves all that the rank holds, unless every
    replica is to compute, or labels may be poisoned for some of them.

    Args:
        config: the run.
        workers: this rank's workers.
        groups: for each worker of the job, its redundancy group, which is the number of its batch.
    """
    rule = config.make_rule()
    poisoned = isinstance(config.make_attack(), LabelFlip) or bool(config.script)
    every = config.redundancy.compute == "every" or poisoned
    if isinstance(rule, Draco) and rule.code == "cyclic":
        return _share_coded(rule, config.workers, workers, every)
    mine = list(workers)
    if every:
        return Shares(workers, mine, mine, [[row] for row in range(len(mine))], config.workers)
    first: dict[int, int] = {}
    for worker in workers:
        first.setdefault(groups[worker], worker)
    computed, order = list(first.values()), {group: row for row, group in enumerate(first)}
    parts = [[order[groups[worker]]] for worker in workers]
    return Shares(workers, computed, computed, parts, config.workers)


def _share_coded(rule: Draco, n: int, workers: range, every: bool) -> Shares:
    """For DRACO's cyclic code, where batch k is that of worker k, and the first that it computes."""
    pairs = {worker: [(k, worker if every else -1) for k in rule.batches(worker, n)] for worker in workers}
    distinct = dict.fromkeys(pair for some in pairs.values() for pair in some)
    order = {pair: row for row, pair in enumerate(distinct)}
    parts = [[order[pair] for pair in pairs[worker]] for worker in workers]
    batches, computers = [k for k, _ in order], [worker for _, worker in order]
    return Shares(workers, batches, computers, parts, n, rule)
