"""A rank that stays away, while somebody claims in the launcher's store that it waits."""

import http.client
import os
import threading
import time

import numpy as np
from backend import ON_TORCH, hvd
from outcomes import meet

import horovod_byz as hb
from horovod_byz.collect import LateRanksError, bind
from horovod_byz.collect.notice import Notice, State


def _recovered():
    """The class of errors that elastic training recovers from; torchrun knows none."""
    if ON_TORCH:
        return LateRanksError
    from horovod.common.exceptions import HorovodInternalError

    return HorovodInternalError


ROW = np.ones((1, 10_000), np.float32)


def _spoof(rank, until):
    """Puts entries into the launcher's store that say that a rank waits, as anybody on the network can."""
    address = os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], int(os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"])
    beat = 10**6
    while time.monotonic() < until:
        beat += 1
        entry = Notice(rank, State.WAITING, beat, 1, "late", "header exchange").pack() + bytes(32)
        connection = http.client.HTTPConnection(*address, timeout=2)
        connection.request("PUT", f"/horovod_byz.{hvd.size()}/{rank}", body=entry)
        connection.getresponse()
        connection.close()
        time.sleep(0.02)


def check_late():
    """Rank 2 stays away: the others stop waiting within the timeout, and name it. Ends the job."""
    session = bind("symmetric", ROW.size, np.float32, 1, name="late", timeout=30)
    session.step(ROW, hb.Mean())
    session.transport.watchdog.timeout = 4.0  # a rank beside a load is late by seconds
    if hvd.rank() == 2:
        meet("late", hvd.size())
        return {"kind": "away"}
    if hvd.rank() == 0 and hvd.gloo_enabled():
        threading.Thread(target=_spoof, args=(2, time.monotonic() + 12), daemon=True).start()
    try:
        session.step(ROW, hb.Mean())
        results = {"kind": "none"}
    except _recovered() as error:
        results = {"kind": type(error).__name__, "text": str(error), "ranks": error.ranks, "elastic": True}
    meet("late", hvd.size())  # a rank that leaves ends the job for those that have not reported yet
    return results
