"""What is noted beside a run because a claim's condition depends on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from horovod_byz.attacks import Gambler
from horovod_byz.theory import Gamble
from horovod_byz.training.config import RunConfig
from horovod_byz.training.data import Dataset
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.trainer import Trainer

__all__ = ["of"]


def of(config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    """The notes of a run; empty for most.

    For the gambler: the attacked range of coordinates, the share of its values that are not exactly zero in
    the workers' first gradients (a hit on zero is harmless), and from it the predicted probabilities that
    a rule which selects a row crashes in some step, and that more than 0, 1, 2 and 3 hits ever meet in a
    column.
    For redundancy under a fixed schedule: how many votes the Byzantine workers hold.
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
    trainer = Trainer(config, dataset, Ranks(), str(dataset.train_x.device))
    trainer.compute()
    d = trainer.gradients.memory.d
    begin, end = attack.attacked(d, config.seed)
    values = trainer.gradients.rows[:, begin:end].cpu().numpy()
    nonzero = float(np.count_nonzero(values) / values.size)
    gamble = Gamble(d, config.workers, attack.servers, attack.probability, config.steps, nonzero)
    exceeds = [gamble.coordinate_crash(f) for f in range(4)]
    return {
        "attacked": [begin, end],
        "nonzero": round(nonzero, 4),
        "crash": round(gamble.selection_crash, 6),
        "more_hits_than": [round(chance, 6) for chance in exceeds],
    }
