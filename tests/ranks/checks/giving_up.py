"""Ranks that gave up a wait, and go on as if nothing had happened. The checks run in the order written."""

import _thread
import os
import pathlib
import threading
import time

import horovod.torch as hvd
import numpy as np
import torch
from common import fingerprint, flat, loss, model, raised

import horovod_byz as hb
from horovod_byz.collect import bind

LATE = 2


class _Training:
    """An optimizer with buffers, so with two sessions that share the name of the header exchange."""

    def __init__(self):
        self.net = model()
        self.optimizer = hb.DistributedOptimizer(
            torch.optim.SGD(self.net.parameters(), lr=0.1),
            self.net.named_parameters(),
            rule=hb.Median(),
            buffers=self.net.named_buffers(),
        )

    def step(self):
        self.optimizer.zero_grad()
        loss(self.net, 0).backward()
        self.optimizer.step()

    def be_impatient(self, seconds):
        """Not from the start: on a loaded machine ranks are that late to bind."""
        self.optimizer._session.transport.watchdog.timeout = seconds


_first, _second = _Training(), _Training()


def check_going_on_without_a_new_start():
    """Rank 2 comes when the others gave up; they catch the error and step, with this optimizer and others."""
    _first.step()
    _second.step()
    _first.be_impatient(4)
    if hvd.rank() == LATE:
        hvd.barrier()  # the others gave up before they come here
        errors = {"late": raised(_first.step)}
    else:
        errors = {"late": raised(_first.step)}
        hvd.barrier()
    errors["again"] = raised(_first.step)
    errors["other optimizer"] = raised(_second.step)
    errors["binding"] = raised(lambda: bind("sharded", 10, np.float32))
    errors["join"] = raised(hvd.join)
    hvd.barrier()
    return errors


def _start_anew(name):
    """No rank starts before all have shut down: it would read the addresses of those that have not."""
    rank, size = hvd.rank(), hvd.size()
    hvd.shutdown()
    folder = pathlib.Path(os.environ["RANK_RESULTS"])
    (folder / f"{name}.shut.{rank}").touch()
    while not all((folder / f"{name}.shut.{other}").exists() for other in range(size)):
        time.sleep(0.01)  # the job's time limit ends a rank that waits in vain
    hvd.init()
    for training in (_first, _second):
        training.optimizer.rebind()


def check_going_on_after_a_new_start():
    """As the error says. Under MPI a process cannot."""
    if hvd.mpi_enabled():
        return None
    _start_anew("going on")
    _first.step()
    _second.step()
    return [fingerprint(flat(training.net)) for training in (_first, _second)]


def check_interrupt():
    """Rank 1 is interrupted while it waits for rank 2, as by Ctrl-C, and steps once more."""
    if hvd.mpi_enabled():
        return None
    errors = {}
    if hvd.rank() == 1:
        threading.Timer(1.5, _thread.interrupt_main).start()
    if hvd.rank() != LATE:
        _first.be_impatient(4)
        try:
            errors["wait"] = raised(_first.step)
        except KeyboardInterrupt:
            errors["wait"] = {"kind": "KeyboardInterrupt"}
    hvd.barrier()
    if hvd.rank() != LATE:
        errors["again"] = raised(_first.step)
    hvd.barrier()
    _start_anew("interrupt")
    _first.step()
    return {**errors, "after": fingerprint(flat(_first.net))}
