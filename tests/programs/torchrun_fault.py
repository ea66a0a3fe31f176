"""One rank of a torchrun job: rank 1 dies at the first attempt, and is stopped at the second."""

import os
import signal
import sys
import time

import numpy as np
import torch.distributed as dist

import horovod_byz as hb
from horovod_byz.collect import bind


def main():
    dist.init_process_group("gloo")
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    session = bind("sharded", 10_000, np.float32, 1, timeout=60)
    row = np.ones((1, 10_000), np.float32)
    session.step(row, hb.Mean())
    session.transport.watchdog.timeout = 2.0  # only now: on a loaded machine ranks are that late to bind
    if dist.get_rank() == 1:
        print(f"attempt {attempt}: pid {os.getpid()}", flush=True)
        os.kill(os.getpid(), (signal.SIGKILL, signal.SIGSTOP)[attempt])
    if dist.get_rank() == 2 and attempt == 0:
        time.sleep(1.0)  # computes, and is ended by torchrun meanwhile
    try:
        session.step(row, hb.Mean())
    except hb.collect.LateRanksError as error:
        print(f"attempt {attempt}: rank {dist.get_rank()} names {error.ranks}: {error}", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
