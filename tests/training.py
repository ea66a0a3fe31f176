"""A short training run in this process, for tests of what a rule does to a model."""

from __future__ import annotations

from typing import Any

from horovod_byz.training import config as configs
from horovod_byz.training.data import load_dataset
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.trainer import Trainer


def trained(**settings: Any) -> Trainer:
    """The trainer after all steps of a configuration on the digits."""
    trainer = Trainer(configs.make(settings), load_dataset("digits"), Ranks())
    for _ in range(trainer.config.steps):
        trainer.compute()
        trainer.apply(trainer.collect())
    return trainer
