"""What the checks share in which a rank goes away in the middle of a job, each of which ends its job."""

import json
import os
import pathlib
import time

import horovod.torch as hvd
import numpy as np
from common import raised

import horovod_byz as hb
from horovod_byz.collect import bind

GONE = 3


def last_words(check):
    """Writes this rank's results before it goes."""
    path = pathlib.Path(os.environ["RANK_RESULTS"], f"{hvd.rank()}.json")
    path.write_text(json.dumps({check: {"kind": "gone"}}))


def step_without(go):
    """Rank 3 goes away by `go()` after a step; rank 1 computes for longer then than the others."""
    session = bind("sharded", 10_000, np.float32, 1, timeout=4)
    row = np.ones((1, 10_000), np.float32)
    session.step(row, hb.Mean())
    if session.transport.rank == GONE:
        go()
    if session.transport.rank == 1:
        time.sleep(2)
    return raised(lambda: session.step(row, hb.Mean()))
