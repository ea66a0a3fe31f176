"""Ranks that misbehave: found and named, on Gloo and on MPI. The checks run in the order written."""

import time

import horovod.torch as hvd
import numpy as np
import torch
from common import fingerprint, gap, loss, model, raised
from horovod.common.exceptions import HorovodInternalError
from horovod.torch import mpi_ops

import horovod_byz as hb
from horovod_byz.collect import Sharded, bind

LENGTH = 1_000_000  # long enough for a relay to write into it while it passes


def _bound(collect, d=10_000, **options):
    return bind(collect, d, np.float32, 1, **{"timeout": 30, **options})


def _rows(d=10_000, seed=None):
    rng = np.random.default_rng(hvd.rank() if seed is None else seed)
    return rng.standard_normal((1, d)).astype(np.float32)


def check_nan_worker():
    """Rank 1 sends NaN at every step: training goes on, and the verdicts name it."""
    found = {}
    for collect in ("symmetric", "root", "sharded"):
        for rule in (hb.Mean(), hb.Median(), hb.GeometricMedian()):
            net = model()
            optimizer = hb.DistributedOptimizer(
                torch.optim.SGD(net.parameters(), lr=0.3), rule=rule, collect=collect
            )
            losses = []
            for step in range(15):
                optimizer.zero_grad()
                value = loss(net, step % 3)
                value.backward()
                if hvd.rank() == 1:
                    net[0].weight.grad[0, 0] = float("nan")
                optimizer.step()
                losses.append(float(value.detach()))
            found[f"{collect} {type(rule).__name__}"] = {
                "losses": [losses[0], losses[-1]],
                "finite": all(bool(p.isfinite().all()) for p in net.parameters()),
                "suspects": optimizer.ledger.suspects,
                "reason": optimizer.last.verdicts[1].reason,
            }
            optimizer.remove_hooks()
    return found


class _Tampering:
    """Overwrites the victim's part of this rank's own output while the allgather relays it."""

    def __init__(self, victim):
        self.victim, self.original = victim, mpi_ops._allgather_async

    def __call__(self, tensor, output, name, process_set):
        handle = self.original(tensor, output, name, process_set)
        part = output.numel() // hvd.size()
        segment = output[self.victim * part : (self.victim + 1) * part]
        while not mpi_ops.poll(handle):
            segment.fill_(666.0)
        return handle

    def __enter__(self):
        mpi_ops._allgather_async = self

    def __exit__(self, *exception):
        mpi_ops._allgather_async = self.original


def check_tampering():
    """A relay rewrites an honest row on its way: the digests show it, the row is fetched directly."""
    relay, victim = (1, 0)
    session = _bound("symmetric", LENGTH, timeout=120)
    row, seen = _rows(LENGTH), []
    want = np.median(np.concatenate([_rows(LENGTH, rank) for rank in range(hvd.size())]), axis=0)
    for _ in range(3):
        if hvd.rank() == relay:
            with _Tampering(victim):
                collected = session.step(row, hb.Median())
        else:
            collected = session.step(row, hb.Median())
        seen.append(collected.rewritten)
    return {"rewritten": seen, **gap(want.astype(np.float32), collected.value)}


def check_wrong_aggregator():
    """Rank 1 aggregates wrongly: with three replicas of each shard it is outvoted, and named."""

    def spoil(block, offset, d, step):
        if hvd.rank() == 1:
            block *= 3

    rows = np.concatenate([_rows(20_000, rank) for rank in range(hvd.size())])
    found = {}
    for rule in (hb.Median(), hb.GeometricMedian()):
        session = _bound(Sharded(replicas=3), 20_000)
        for _ in range(3):
            collected = session.step(rows[hvd.rank()][None], rule, spoil)
        ledger = hb.Ledger()
        ledger.add(collected)
        found[repr(rule)] = {
            **gap(rule(rows), collected.value),
            "ranks": collected.outvoted_ranks,
            "ledger": ledger.report()["outvoted_ranks"],
        }
    return found


def check_headers():
    """One rank is about to send something else: all ranks say which one, and may go on afterwards."""
    odd = hvd.rank() == 2
    found = {}
    session = _bound("sharded")
    found["step"] = raised(lambda: session.step(_rows(), hb.Mean(), step=8 if odd else 7))
    found["rule"] = raised(lambda: session.step(_rows(), hb.TrimmedMean(f=1) if odd else hb.Mean(), step=9))
    found["length"] = raised(lambda: _bound("symmetric", 9_999 if odd else 10_000))
    found["mode"] = raised(lambda: _bound("root" if odd else "sharded"))
    found["dtype"] = raised(lambda: bind("root", 10, np.float64 if odd else np.float32, 1, timeout=30))
    found["model"] = raised(
        lambda: hb.DistributedOptimizer(torch.optim.SGD(torch.nn.Linear(6 if odd else 3, 5).parameters()))
    )
    found["after"] = fingerprint(session.step(_rows(), hb.Mean(), step=10).value)
    return found


def check_late():
    """Rank 2 stays away: the others stop waiting within the timeout, and name it. Ends the job."""
    session = _bound("symmetric", timeout=1.5, name="late")
    session.step(_rows(), hb.Mean())
    if hvd.rank() == 2:
        time.sleep(8)
        return {"kind": "asleep"}
    start = time.monotonic()
    try:
        session.step(_rows(), hb.Mean())
        found = {"kind": "none"}
    except HorovodInternalError as error:  # what hvd.elastic.run recovers from
        found = {"kind": type(error).__name__, "text": str(error), "ranks": error.ranks, "elastic": True}
    seconds = time.monotonic() - start
    time.sleep(4)  # a rank that leaves ends the job for those that have not reported yet
    return {**found, "seconds": seconds}
