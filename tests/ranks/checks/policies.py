"""What a policy does on real ranks: the same on all, in every way to collect."""

import horovod.torch as hvd
import numpy as np
import torch
from common import batch, fingerprint

import horovod_byz as hb
from horovod_byz.collect.transport import connect

FAULTY, AT, STEPS = 2, 1, 7
COLLECTORS = {"symmetric": "symmetric", "root": "root", "sharded": "sharded", "voted": hb.Sharded(replicas=3)}


def _run(policy, collect, steps=STEPS):
    """Steps in which one rank sends NaN once; who is excluded after each, and the parameters."""
    torch.manual_seed(3)
    net = torch.nn.Linear(20, 3)
    inner = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    options = {"rule": hb.Median(), "collect": collect, "policy": policy, "timeout": 60}
    excluded, stopped = [], None
    with hb.DistributedOptimizer(inner, net.named_parameters(), **options) as optimizer:
        for step in range(steps):
            optimizer.zero_grad()
            x, y = batch(step, hvd.rank())
            torch.nn.functional.cross_entropy(net(x), y).backward()
            if hvd.rank() == FAULTY and step == AT:
                net.weight.grad[0, 0] = float("nan")
            try:
                optimizer.step()
            except hb.PolicyStopError as error:
                stopped = [error.step, list(error.workers), str(error)]
                break
            excluded.append(list(optimizer.excluded))
    bits = fingerprint(torch.nn.utils.parameters_to_vector(net.parameters()).detach())
    return {"excluded": excluded, "stopped": stopped, "bits": bits}


def check_exclusion():
    policy = hb.Policy("exclude", probation=3)
    return {name: _run(policy, collect) for name, collect in COLLECTORS.items()}


def check_stop():
    return {"stopped": _run(hb.Policy("stop"), "sharded"), "before": _run(None, "sharded", steps=AT)}


def check_lengths():
    """A rank sends messages of another length than the others expect, and an exchange after them works."""
    transport, seen = connect("lengths", 30.0), []
    for length in (0, 1, 1000):
        liar = hvd.rank() == 1
        message = np.full(length if liar else 100, hvd.rank(), np.uint8)
        try:
            transport.exchange(message, "digests of the results")
            seen.append("nothing")
        except hb.collect.HeaderMismatchError as error:
            seen.append([list(error.ranks), str(error)])
        seen.append(transport.exchange(np.full(8, hvd.rank(), np.uint8), "check of the digests").tolist())
    return seen
