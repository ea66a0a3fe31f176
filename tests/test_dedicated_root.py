"""1 + n: a dedicated parameter server and n workers train what few ranks with logical workers train."""

from __future__ import annotations

import pathlib
import threading

import numpy as np
import pytest
import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.training import config as configs
from horovod_byz.training import trainer as training
from horovod_byz.training.data import load_dataset
from horovod_byz.training.ranks import Ranks
from thread_ranks import on_ranks, succeeded

STEPS = 10
RULES = ["median", "multi-krum", "bulyan", "geometric-median", "detox-multi-krum", "detox-median"]


@pytest.fixture
def here(monkeypatch):
    """Sessions are bound over the `ThreadRank` that a thread puts into `here.transport`."""
    local, lock, build = threading.local(), threading.Lock(), training.models.build

    def locked(*args, **options):
        with lock:  # it seeds torch's random numbers, which threads share
            return build(*args, **options)

    monkeypatch.setattr("horovod_byz.collect.transport.connect", lambda name, timeout: local.transport)
    monkeypatch.setattr(training.models, "build", locked)
    return local


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def groups(rule):
    return {"redundancy": 3} if rule.startswith("detox") else {}


class ThreadRanks(Ranks):
    def __init__(self, transport):
        self._transport, self.rank, self.size = transport, transport.rank, transport.size


def train(here, dataset, size, collect, **changes):
    """Every rank's model after its steps, and what the root's tally says."""
    config = configs.make({"steps": STEPS, "model": "mlp:width=48", "collect": collect, **changes})

    def work(transport):
        here.transport = transport
        trainer = training.Trainer(config, dataset, ThreadRanks(transport))
        while trainer.step < config.steps:
            trainer.compute()
            trainer.apply(trainer.collect())
        return trainer.digest(), trainer.theta, trainer.ledger.summary()

    results = succeeded(on_ranks(size, work))
    assert all(torch.isfinite(theta).all() for _, theta, _ in results)
    return {digest for digest, _, _ in results}, results[0][2]


@pytest.mark.parametrize("rule", RULES)
def test_one_root_and_nine_workers(here, digits, rule):
    # Bulyan needs n >= 4f + 3; two Byzantine workers may turn one of 3 votes, too many for MultiKrum.
    byzantine = {"bulyan": 1, "detox-multi-krum": 1}.get(rule, 2)
    same = {
        "rule": rule,
        "workers": 9,
        "byzantine": byzantine,
        "attack": "a-little-is-enough",
        **groups(rule),
    }
    want = train(here, digits, 1, "root", **same)
    assert len(want[0]) == 1
    assert train(here, digits, 10, "root:dedicated=true", **same) == want
    assert train(here, digits, 3, "root:dedicated=true", **same) == want
    assert train(here, digits, 3, "sharded", **same) == want
    assert train(here, digits, 2, "symmetric", **same) == want


@pytest.mark.parametrize("rule", ["detox-multi-krum", "multi-krum"])
def test_one_root_and_45_workers(here, digits, rule):
    batch = 24 if rule.startswith("detox") else 8  # 360 images per step
    same = {
        "steps": 3,  # 46 threads take turns, several times a step
        "rule": rule,
        "workers": 45,
        "byzantine": 5,
        "attack": "a-little-is-enough",
        **groups(rule),
        "data": {"name": "digits", "batch": batch},
    }
    want = train(here, digits, 1, "root", **same)
    assert train(here, digits, 46, "root:dedicated=true", **same) == want
    assert train(here, digits, 3, "root", **same) == want


@pytest.mark.source
@pytest.mark.parametrize("rule", ["detox-multi-krum", "detox-median", "detox-bulyan", "bulyan"])
def test_the_named_configuration(here, digits, rule):
    """launch/experiments/detox-p45.toml as it stands, but for the data, the network and few steps."""
    path = pathlib.Path(__file__).parent.parent / "launch" / "experiments" / "detox-p45.toml"
    named = {**configs.read(path), "rule": rule, "evaluate_every": STEPS}
    assert (named["workers"], named["byzantine"], named["data"]["batch"]) == (45, 5, 96)
    named["data"] = {"name": "digits", "batch": 96 if rule.startswith("detox") else 32}
    if not rule.startswith("detox"):
        named["redundancy"] = 1
    same = {key: value for key, value in named.items() if key not in ("steps", "model", "collect")}
    want = train(here, digits, 1, "root", **same)
    assert train(here, digits, 4, "root:dedicated=true", **same) == want
    assert train(here, digits, 2, "sharded", **same) == want


def test_signs_with_a_dedicated_root(here, digits):
    same = {
        "rule": "detox-sign",
        **groups("detox-sign"),
        "workers": 9,
        "byzantine": 2,
        "attack": "constant",
        "compression": "sign",
        "optimizer": {"lr": 0.01},
    }
    want = train(here, digits, 1, "root", **same)
    assert train(here, digits, 10, "root:dedicated=true", **same) == want
    assert train(here, digits, 3, "sharded", **same) == want


class TestDistributedOptimizer:
    """The same script on all ranks; rank 0 is dedicated, and its own batch is nonsense."""

    def train(self, here, size, collect, workers, skip_root=False):
        torch.manual_seed(1)
        nets = [
            nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 2)) for _ in range(size)
        ]
        for net in nets:
            net.load_state_dict(nets[0].state_dict())

        def work(transport):
            here.transport = transport
            net = nets[transport.rank]
            inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
            optimizer = hb.DistributedOptimizer(
                inner, net.named_parameters(), rule=hb.Median(), collect=collect, buffers=net.named_buffers()
            )
            assert list(optimizer.workers) == workers[transport.rank]
            for step in range(STEPS):
                optimizer.zero_grad()
                for worker in optimizer.workers or ([] if skip_root else [None]):
                    self.batch(net, step, worker).backward()
                optimizer.step()
            assert optimizer.ledger.steps == STEPS
            everything = [*net.parameters(), net[1].running_mean, net[1].running_var]
            return torch.cat([p.detach().reshape(-1) for p in everything])

        results = succeeded(on_ranks(size, work))
        for result in results:
            assert torch.equal(result, results[0])
        return results[0]

    @staticmethod
    def batch(net, step, worker):
        if worker is None:
            return net(torch.full((5, 6), 1e6)).sum()
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(100 * step + worker))
        return net(x).square().mean()

    def test_its_own_batch_is_ignored(self, here):
        want = self.train(here, 3, "root", [[0], [1], [2]])
        dedicated = hb.Root(dedicated=True)
        assert torch.equal(want, self.train(here, 4, dedicated, [[], [0], [1], [2]]))

    def test_it_may_compute_nothing(self, here):
        want = self.train(here, 3, "sharded", [[0], [1], [2]])
        dedicated = hb.Root(dedicated=True)
        assert torch.equal(want, self.train(here, 4, dedicated, [[], [0], [1], [2]], skip_root=True))


def test_without_workers_nothing_starts():
    with pytest.raises(ValueError, match=r"Root\(dedicated=True\) needs at least 2 ranks"):
        hb.Root(dedicated=True).bind(3, np.float32)
