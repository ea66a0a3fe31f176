"""A ledger with a file on every rank: one faulty rank every third step, and a rank with another rule."""

import logging
import os
import pathlib

import horovod.torch as hvd
import numpy as np
from common import loss, model, raised
from torch.optim import SGD

import horovod_byz as hb

FAULTY = 2


def _folder(name):
    return pathlib.Path(os.environ["RANK_RESULTS"]) / name


def _broken(block, offset, d, step):
    if step % 3 == 0 and offset == 0:
        block[FAULTY, 0] = np.nan


class _Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def _train(optimizer, net, steps):
    for step in range(steps):
        optimizer.zero_grad()
        loss(net, step).backward()
        optimizer.step()


def check_ledger():
    heard, screen, net = [], _Lines(), model()
    logging.getLogger("horovod_byz").addHandler(screen)
    with hb.DistributedOptimizer(
        SGD(net.parameters(), lr=0.1),
        net.named_parameters(),
        rule=hb.Median(),
        wire=_broken,
        ledger=_folder("faulty"),
        on_verdict=heard.append,
        timeout=60,
    ) as optimizer:
        _train(optimizer, net, 21)
        places = optimizer._session.places
    logging.getLogger("horovod_byz").removeHandler(screen)
    return {
        "heard": [[e.step, e.worker, e.rank, e.reason] for e in heard if e.kind == "proof"],
        "lines": screen.lines,
        "places": [[p.rank, list(p.workers), p.host, p.local_rank, p.device] for p in places],
        "paces": [[p.rank, p.compute > 0, p.apply > 0, p.wait >= 0] for p in optimizer.last.paces],
        "file": (_folder("faulty") / "ledger.jsonl").read_text() if hvd.rank() == 0 else "",
    }


def check_error():
    net = model()
    with hb.DistributedOptimizer(
        SGD(net.parameters(), lr=0.1),
        net.named_parameters(),
        rule=hb.Mean() if hvd.rank() == FAULTY else hb.Median(),
        ledger=_folder("error"),
        timeout=60,
    ) as optimizer:
        error = raised(lambda: _train(optimizer, net, 1))
        optimizer._session = None
    own = _folder("error") / f"ledger.rank{hvd.rank()}.jsonl"
    return {
        **error,
        "evidence": [[e.reason, e.rank] for e in optimizer.ledger.evidence],
        "own": own.read_text(),
    }
