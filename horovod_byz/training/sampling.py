"""The batches of a run: its redundancy groups, its partition of the data, its seed."""

from __future__ import annotations

from horovod_byz.redundancy.batches import Batches
from horovod_byz.training.config import RunConfig
from horovod_byz.training.data import Dataset
from horovod_byz.training.split import Skew

__all__ = ["sampled"]


def sampled(config: RunConfig, dataset: Dataset) -> tuple[Batches, Skew]:
    """The batches of every worker, and how far apart the workers' labels are; the same on every rank.

    Raises:
        ValueError: if the partition leaves a group of workers without data, or with less than its batches
            need.
    """
    redundancy, labels = config.make_redundancy(), dataset.train_y.cpu().numpy()
    groups = [redundancy.group_of(worker, config.workers) for worker in range(config.workers)]
    split = config.data.partition
    parts = split.parts(labels, groups, config.seed)
    batches = Batches(config.seed, len(labels), config.data.batch, groups, config.data.sampling, parts=parts)
    mine = None if parts is None else [parts[group] for group in groups]
    return batches, Skew.of(split, labels, mine, dataset.classes)
