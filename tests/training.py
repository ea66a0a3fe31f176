"""A short training run in this process, and what a run leaves in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from horovod_byz.training import config as configs
from horovod_byz.training.data import load_dataset
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.trainer import Trainer

# What a run with the same seed writes again, byte for byte.
FILES = ("metrics.jsonl", "verdicts.json", "summary.json", "config.toml")


def trained(**settings: Any) -> Trainer:
    """The trainer after all steps of a configuration on the digits."""
    trainer = Trainer(configs.make(settings), load_dataset("digits"), Ranks())
    for _ in range(trainer.config.steps):
        trainer.compute()
        trainer.apply(trainer.collect())
    return trainer


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of the files that two equal runs share."""
    return {name: (folder / name).read_bytes() for name in FILES}
