"""Ranks that misbehave: found and named, on Gloo and on MPI. The checks run in the order written."""

import numpy as np
import torch
from backend import ON_TORCH, hvd
from common import fingerprint, gap, loss, model, raised
from outcomes import meet

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
    results = {}
    for collect in ("symmetric", "root", "sharded"):
        for rule in (hb.Mean(), hb.Median(), hb.GeometricMedian()):
            net = model()
            optimizer = hb.DistributedOptimizer(
                torch.optim.SGD(net.parameters(), lr=0.3), rule=rule, collect=collect
            )
            losses = []
            for step in range(9):
                optimizer.zero_grad()
                value = loss(net, step % 3)
                value.backward()
                if hvd.rank() == 1:
                    net[0].weight.grad[0, 0] = float("nan")
                optimizer.step()
                losses.append(float(value.detach()))
            results[f"{collect} {type(rule).__name__}"] = {
                "losses": [losses[0], losses[-1]],
                "finite": all(bool(p.isfinite().all()) for p in net.parameters()),
                "suspects": optimizer.ledger.suspects,
                "reason": optimizer.last.verdicts[1].reason,
            }
            optimizer.remove_hooks()
    return results


class _Tampering:
    """Overwrites the victim's part of this rank's own output while the allgather relays it."""

    def __init__(self, victim):
        from horovod.torch import mpi_ops

        self.victim, self.original, self.ops = victim, mpi_ops._allgather_async, mpi_ops

    def __call__(self, tensor, output, name, process_set):
        handle = self.original(tensor, output, name, process_set)
        part = output.numel() // hvd.size()
        segment = output[self.victim * part : (self.victim + 1) * part]
        while not self.ops.poll(handle):
            segment.fill_(666.0)
        return handle

    def __enter__(self):
        self.ops._allgather_async = self

    def __exit__(self, *exception):
        self.ops._allgather_async = self.original


def check_tampering():
    """A relay rewrites an honest row on its way: the digests show it, the row is fetched directly."""
    if ON_TORCH:
        return None  # nothing is relayed
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
    results = {}
    for rule in (hb.Median(), hb.GeometricMedian()):
        session = _bound(Sharded(replicas=3), 20_000)
        for _ in range(3):
            collected = session.step(rows[hvd.rank()][None], rule, spoil)
        ledger = hb.Ledger()
        ledger.add(collected)
        results[repr(rule)] = {
            **gap(rule(rows), collected.value),
            "ranks": collected.outvoted_ranks,
            "ledger": ledger.report()["outvoted_ranks"],
        }
    return results


def check_headers():
    """One rank is about to send something else: all ranks say which one, and may go on afterwards."""
    odd = hvd.rank() == 2
    results = {}
    session = _bound("sharded")
    results["step"] = raised(lambda: session.step(_rows(), hb.Mean(), step=8 if odd else 7))
    results["rule"] = raised(lambda: session.step(_rows(), hb.TrimmedMean(f=1) if odd else hb.Mean(), step=9))
    results["length"] = raised(lambda: _bound("symmetric", 9_999 if odd else 10_000))
    results["mode"] = raised(lambda: _bound("root" if odd else "sharded"))
    results["dtype"] = raised(lambda: bind("root", 10, np.float64 if odd else np.float32, 1, timeout=30))
    optimizer = hb.DistributedOptimizer(torch.optim.SGD(torch.nn.Linear(6 if odd else 3, 5).parameters()))
    results["model"] = raised(optimizer.step)
    results["after"] = fingerprint(session.step(_rows(), hb.Mean(), step=10).value)
    return results


def check_skipped_step():
    """Rank 2 computes a step and does not take it: all ranks say so at the next exchange."""
    net = model()
    optimizer = hb.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1))

    def step(skip=False):
        optimizer.zero_grad()
        loss(net, 0).backward()
        if not skip:
            optimizer.step()

    step()
    if hvd.rank() == 2:
        step(skip=True)
    results = raised(step)
    optimizer.remove_hooks()
    return results


def check_one_skips():
    """Rank 2 leaves out the rest of a step: ranks that wait for it at different places all name it."""
    session = _bound("root", name="skipping")
    session.step(_rows(), hb.Mean())
    session.transport.watchdog.timeout = 4.0  # only now: on a loaded machine ranks are that late to bind
    transport, layout = session.transport, session.layout
    transport.watchdog.begin(7)
    if hvd.rank() == 2:
        meet("skipped", hvd.size())
        return {"kind": "elsewhere"}

    def rest():
        room = np.empty((layout.n, session.d), np.float32) if hvd.rank() == 0 else None
        transport.gather(_rows(), room, layout)
        transport.hand_out(np.empty(session.d, np.float32))

    result = raised(rest)
    meet("skipped", hvd.size())
    return result
