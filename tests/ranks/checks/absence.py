"""What the checks share in which a rank goes away in the middle of a job, each of which ends its job."""

import time

import numpy as np
from common import raised
from outcomes import record

import horovod_byz as hb
from horovod_byz.collect import bind


def last_words(check):
    """Writes this rank's result before it goes."""
    record(check, {"kind": "gone"})


def step_without(go):
    """The last rank goes away by `go()` after a step; rank 1 computes for longer then than the others."""
    session = bind("sharded", 10_000, np.float32, 1, timeout=4)
    row = np.ones((1, 10_000), np.float32)
    session.step(row, hb.Mean())
    rank, size = session.transport.rank, session.transport.size
    if rank == size - 1:
        go()
    if rank == 1:
        time.sleep(2)
    return raised(lambda: session.step(row, hb.Mean()))
