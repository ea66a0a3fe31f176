"""The three ways to collect, with several workers per rank, must give the same parameters."""

from functools import cache
from unittest.mock import patch

import numpy as np
import torch
from backend import hvd
from common import batch, fingerprint, flat, gap, loss

import horovod_byz as hb
from horovod_byz.collect import Root, Sharded, Symmetric, bind, over_horovod, over_torch, split
from horovod_byz.collect import buckets as cutting
from horovod_byz.kernels.rows import TILE

WORKERS, HIDDEN = 12, 700
# What differs between jobs shows in a few steps, if at all. Longer runs, on two ranks: a rule without a
# statistic, a selection, the only rule whose small differences add up, and a vote.
SHORT, LONG = 6, 50
LONGER = (hb.Median, hb.MultiKrum, hb.GeometricMedian, hb.Detox)
RULES = [
    hb.Median(),
    hb.TrimmedMean(f=2),
    hb.MeanAroundMedian(f=2),
    hb.Phocas(f=2),
    hb.Krum(f=2),
    hb.MultiKrum(f=2),
    hb.Bulyan(f=2),
    hb.CAF(f=2),
    hb.Pipeline(hb.NNM(f=2), hb.TrimmedMean(f=2)),
    hb.Pipeline(hb.Bucketing(s=2), hb.Krum(f=1)),
    hb.GeometricMedian(),
    hb.Detox(hb.Redundancy(r=3), inner=hb.Mean(), outer=hb.Median(), groups=2),
]


def _model():
    torch.manual_seed(3)  # 16803 coordinates: five tiles, the last one partial
    return torch.nn.Sequential(torch.nn.Linear(20, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 3))


def _rows(net, step, workers, rule):
    rows = []
    for worker in workers:
        batches = rule.redundancy.group_of(worker, WORKERS) if isinstance(rule, hb.Detox) else worker
        x, y = batch(step, batches)
        gradients = torch.autograd.grad(torch.nn.functional.cross_entropy(net(x), y), list(net.parameters()))
        rows.append(torch.cat([g.reshape(-1) for g in gradients]).numpy())
    d = sum(p.numel() for p in net.parameters())
    return np.array(rows, np.float32).reshape(len(workers), d)


def _attack(block, offset, d, step):
    """Two Byzantine workers: one sends huge values, one sends NaN at a coordinate of its own."""
    block[1] *= -1e8
    if offset <= 5000 < offset + block.shape[1]:
        block[7, 5000 - offset] = np.nan


def _steps(rule):
    return LONG if hvd.size() == 2 and not hvd.mpi_enabled() and isinstance(rule, LONGER) else SHORT


@cache
def alone(rule, steps):
    """What a process without other ranks trains."""
    return fingerprint(_train(Symmetric(), rule, steps=steps)[0])


def _train(collector, rule, workers=WORKERS, wire=_attack, steps=None, compression=None):
    net = _model()
    parameters = list(net.parameters())
    d = sum(p.numel() for p in parameters)
    dedicated = collector == Root(dedicated=True)
    sizes = (0, *split(workers, hvd.size() - 1)) if dedicated else split(workers, hvd.size())
    session = bind(collector, d, np.float32, sizes, timeout=60, name="modes", compression=compression)
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    ledger = hb.Ledger()
    for step in range(_steps(rule) if steps is None else steps):
        collected = session.step(_rows(net, step, session.workers, rule), rule, wire)
        at = 0
        for p in parameters:
            p.grad = torch.from_numpy(collected.value[at : at + p.numel()].copy()).view_as(p)
            at += p.numel()
        optimizer.step()
        ledger.add(collected)
    return torch.nn.utils.parameters_to_vector(parameters).detach(), ledger


def check_modes():
    results = {}
    for rule in RULES:
        values = {c: _train(c, rule)[0] for c in (Symmetric(), Root(), Sharded())}
        first = values[Symmetric()]
        results[repr(rule)] = {
            "bits": {repr(c): fingerprint(value) for c, value in values.items()},
            "gaps": {repr(c): gap(first, value)["gap"] for c, value in values.items()},
            "finite": bool(first.isfinite().all()),
        }
    return results


def _rules(size):
    """One worker a rank."""
    rules = [hb.Median(), hb.GeometricMedian(), hb.Detox(hb.Redundancy(2), hb.Mean(), hb.Median(), groups=1)]
    return [*rules, hb.MultiKrum(f=0)] if size > 2 else rules


def _batch_of(rule, worker, size):
    return rule.redundancy.group_of(worker, size) if isinstance(rule, hb.Detox) else worker


def check_optimizers_in_every_mode():
    """With overlap, buckets of a tile, so that several leave in a backward pass."""
    cutting._WIDTH, early, size = TILE, 0, hvd.size()
    steps = optimized_steps(size)
    collectors = (Symmetric(), Root(), Sharded(), Sharded(overlap=True), *([Sharded(3)] if size > 2 else []))
    results = {}
    for rule in _rules(size):
        bits = {}
        for collect in collectors:
            net = _model()
            optimizer = hb.DistributedOptimizer(
                torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), rule=rule, collect=collect
            )
            for step in range(steps):
                optimizer.zero_grad()
                loss(net, step, _batch_of(rule, hvd.rank(), size)).backward()
                early += getattr(optimizer._session, "sent", 0)
                optimizer.step()
            bits[repr(collect)] = fingerprint(flat(net))
        results[repr(rule)] = bits
    return {"bits": results, "early": early, "steps": len(results) * (steps - 1)}


def optimized_steps(size):
    """50 on two ranks; four, which share two cores here, take four times as long for each."""
    return LONG if size == 2 else SHORT


@cache
def in_one_process(size):
    """What a process without other ranks trains from the batches of `size` workers; by rule."""
    bits = {}
    for rule in _rules(size):
        net = _model()
        parameters = list(net.parameters())
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        for step in range(optimized_steps(size)):
            losses = [loss(net, step, _batch_of(rule, worker, size)) for worker in range(size)]
            gradients = [torch.autograd.grad(each, parameters) for each in losses]
            rows = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in gradients])
            value = hb.aggregate(rows, rule, step=step).value
            for parameter, part in zip(parameters, value.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = part.view_as(parameter)
            optimizer.step()
        bits[repr(rule)] = fingerprint(flat(net))
    return bits


def packed_alone(name):
    """What a process without other ranks trains with packed rows."""
    return fingerprint(_train(Symmetric(), hb.MultiKrum(f=2), steps=SHORT, compression=name)[0])


def check_packed_rows():
    collectors = (Symmetric(), Root(), Sharded(), *([Sharded(replicas=3)] if hvd.size() > 2 else []))
    return {
        name: [
            fingerprint(_train(c, hb.MultiKrum(f=2), steps=SHORT, compression=name)[0]) for c in collectors
        ]
        for name in ("bfloat16", "float16", "sign")
    }


def check_dedicated_root():
    return fingerprint(_train(Root(dedicated=True), hb.Median())[0])


def check_accounts():
    ledger = _train(Sharded(), hb.MultiKrum(f=2), steps=5)[1]
    return {"suspects": ledger.suspects, "report": ledger.report(), "table": str(ledger)}


def check_pieces():
    """Operations that would exceed Horovod's counts are split; the value stays the same."""
    rng = np.random.default_rng(0)
    d = 80_000  # long enough for four ranks to gather a root's result in pieces
    rows = rng.standard_normal((WORKERS, d)).astype(np.float32)
    results = {}
    for collector in (Symmetric(), Root(), Sharded()):
        session = bind(collector, d, np.float32, split(WORKERS, hvd.size()), timeout=60)
        mine = rows[session.workers.start : session.workers.stop]
        whole = fingerprint(session.step(mine, hb.Median()).value)
        # How a session is cut, it learns when it is bound.
        with (
            patch.object(over_horovod, "MOST_ELEMENTS", 50_000),
            patch.object(over_torch, "MOST_ELEMENTS", 50_000),
        ):
            session = bind(collector, d, np.float32, split(WORKERS, hvd.size()), timeout=60, name="limited")
        assert session.transport.most == 50_000
        results[repr(collector)] = [whole, fingerprint(session.step(mine, hb.Median()).value)]
    return results
