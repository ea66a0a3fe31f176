"""A rank that leaves right after the last step, while another is slow to read. Ends the job."""

import time

import horovod.torch as hvd
import numpy as np
from common import fingerprint

import horovod_byz as hb
from horovod_byz.collect import bind


def check_slow_reader():
    session = bind("sharded", 10_000, np.float32, 1, timeout=30)
    row = np.random.default_rng(hvd.rank()).standard_normal((1, 10_000)).astype(np.float32)
    if hvd.rank() == 0:
        wait = session.transport.watchdog.wait

        def late(ready, phase):
            time.sleep(0.5)  # the others have long been through this phase, and leave after the last
            wait(ready, phase)

        session.transport.watchdog.wait = late
    return fingerprint(session.step(row, hb.Median()).value)
