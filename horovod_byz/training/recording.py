"""The ledger's file of a run: what an operator, who does not know who is Byzantine, would have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from horovod_byz.ledger.endings import first_line
from horovod_byz.ledger.journal import Journal
from horovod_byz.ledger.slow import SlowRanks
from horovod_byz.optimizer.recording import introduce, recorded
from horovod_byz.training.trainer import Trainer

__all__ = ["recording"]


@contextmanager
def recording(folder: Path, trainer: Trainer) -> Iterator[None]:
    """Inside, the operator's ledger is written to a folder, as that of `DistributedOptimizer` is.

    All ranks enter it, after a checkpoint is loaded: a resumed run appends to its file. The file says how the
    block ended. No culprit is logged: those of a simulation are known.

    Raises:
        OSError: when this rank cannot write to the folder.
    """
    ledger = trainer.ledger.whole
    with trainer.ranks.together("ledger"):
        ledger.listeners[:] = [SlowRanks(), Journal(folder)]
    introduce(ledger, trainer.session, trainer.rule)
    try:
        with recorded(ledger, lambda: trainer.step):
            yield
    except BaseException as error:
        ledger.end(first_line(error))
        raise
    else:
        ledger.end()
    finally:
        ledger.listeners.clear()  # its file is closed
