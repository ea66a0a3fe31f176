"""Notes: numbers stored beside a run because a claim's condition depends on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from horovod_byz.attacks import Gambler
from horovod_byz.theory import Gamble
from horovod_byz.training import models
from horovod_byz.training.config import RunConfig
from horovod_byz.training.data import Dataset, augment
from horovod_byz.training.gradients import take
from horovod_byz.training.sampling import sampled

__all__ = ["of"]


def of(config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    """The notes of a run, computed from its configuration and data alone; empty for most.

    For the gambler: the attacked range of coordinates, the fraction of its values that are not exactly zero
    in the workers' first gradients (a hit on zero is harmless), and from it the predicted probabilities that
    a rule which selects a row crashes in some step, and that more than 0, 1, 2 and 3 hits ever meet in a
    column. For redundancy under a fixed schedule: how many votes the Byzantine workers hold.
    """
    notes: dict[str, Any] = {}
    attack = config.make_attack()
    if isinstance(attack, Gambler):
        notes |= _gambler(attack, config, dataset)
    wire, redundancy = config.make_wire(), config.make_redundancy()
    if redundancy.r > 1 and config.schedule != "redrawn":
        who = set(wire.workers(config.attack_start)) if wire is not None else set()
        groups = redundancy.groups_of(config.workers)
        notes["byzantine_votes"] = sum(2 * len(who & set(group)) > len(group) for group in groups)
    return notes


def _gambler(attack: Gambler, config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    model = _model(config, dataset)
    d = sum(parameter.numel() for parameter in model.parameters())
    begin, end = attack.attacked(d, config.seed)
    values = _first_gradients(model, config, dataset, begin, end)
    nonzero = float(np.count_nonzero(values) / values.size)
    gamble = Gamble(d, config.workers, attack.servers, attack.probability, config.steps, nonzero)
    exceeds = [gamble.coordinate_crash(f) for f in range(4)]
    return {
        "attacked": [begin, end],
        "nonzero": round(nonzero, 4),
        "crash": round(gamble.selection_crash, 6),
        "more_hits_than": [round(chance, 6) for chance in exceeds],
    }


def _model(config: RunConfig, dataset: Dataset) -> nn.Module:
    """The run's first model, in training mode, where the data are."""
    name, options = config.model.name, config.model.options
    model = models.build(name, dataset.shape, dataset.classes, seed=config.seed, **options)
    return model.to(dataset.train_x.device).train()


def _first_gradients(
    model: nn.Module, config: RunConfig, dataset: Dataset, begin: int, end: int
) -> NDArray[np.float32]:
    """The coordinates [begin, end) of every worker's gradient at step 0, (workers, end - begin)."""
    workers, data = range(config.workers), config.data
    batches, _ = sampled(config, dataset)
    images, labels = take(dataset.train_x, dataset.train_y, batches.indices(0, workers))
    rows = np.empty((config.workers, end - begin), np.float32)
    with torch.random.fork_rng(devices=[]):
        for worker in workers:
            batch = (
                augment(images[worker], batches.augmentation(0, worker)) if data.augment else images[worker]
            )
            torch.manual_seed(batches.model_seed(0, worker))  # for dropout
            loss = nn.functional.cross_entropy(model(batch), labels[worker])
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            rows[worker] = torch.cat([part.reshape(-1) for part in gradients])[begin:end].cpu().numpy()
    return rows
