"""Rank 1 of a job is stopped; what the others do then is up to the test. Horovod only, no launcher's help."""

import os
import signal

import horovod.torch as hvd
import numpy as np

import horovod_byz as hb
from horovod_byz.collect import bind, departure

departure.EXIT_SECONDS = 3.0

hvd.init()
session = bind("sharded", 1000, np.float32, 1, timeout=60)
row = np.ones((1, 1000), np.float32)
session.step(row, hb.Mean())
session.transport.watchdog.timeout = 2.0
if hvd.rank() == 1:
    os.kill(os.getpid(), signal.SIGSTOP)
session.step(row, hb.Mean())
