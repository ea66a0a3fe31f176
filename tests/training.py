"""A short training run in this process, and what a run leaves in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from horovod_byz.training import config as configs
from horovod_byz.training.data import load_dataset
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.runs import RunFolder
from horovod_byz.training.trainer import Trainer

# What a run with the same seed writes again, byte for byte, as well as the record but for its environment.
FILES = ("metrics.jsonl", "config.toml")


def trained(**settings: Any) -> Trainer:
    """The trainer after all steps of a configuration on the digits."""
    trainer = Trainer(configs.make(settings), load_dataset("digits"), Ranks())
    for _ in range(trainer.config.steps):
        trainer.compute()
        trainer.apply(trainer.collect())
    return trainer


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes that two equal runs share."""
    record = RunFolder(folder).record
    results = json.dumps([record["summary"], record["verdicts"]]).encode()
    return {**{name: (folder / name).read_bytes() for name in FILES}, "results": results}


def as_of_0_2(folder: Path) -> None:
    """Makes a complete run what 0.2.0 wrote: a file for each part of the record, and no ledger."""
    for name, part in RunFolder(folder).record.items():
        (folder / f"{name}.json").write_text(json.dumps(part))
    for name in ("run.json", "ledger.jsonl"):
        (folder / name).unlink()


def unfinish(folder: Path) -> None:
    """Takes from a complete run what its end wrote into the record, as if it had been killed before."""
    environment = RunFolder(folder).environment
    (folder / "run.json").write_text(json.dumps({"environment": environment}))
