"""The trainer and `DistributedOptimizer` are one stack: the same job ends with the same bits in both.

They were two: the trainer aggregated the statistics of batches and `DistributedOptimizer` running statistics,
which differ in their last bits, from models, ledgers and samplers of their own.
"""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.redundancy.batches import Batches
from horovod_byz.training import config as configs
from horovod_byz.training import models
from horovod_byz.training import trainer as training
from horovod_byz.training.data import load_dataset
from horovod_byz.training.ranks import Ranks
from thread_ranks import on_ranks

N, STEPS, SEED = 6, 20, 3
MODEL = {"width": 2, "hidden": 8, "dropout": 0.0}  # threads share the generator that dropout draws from
RULES = {
    "median": ({"rule": "median"}, hb.Median()),
    "multi-krum": ({"rule": "multi-krum:f=1"}, hb.MultiKrum(f=1)),
    "detox": (
        {"rule": "detox:inner=mean,outer=median,groups=2", "redundancy": {"r": 3, "compute": "every"}},
        hb.Detox(hb.Redundancy(3), hb.Mean(), hb.Median(), groups=2),
    ),
}


class ThreadRanks(Ranks):
    def __init__(self, transport):
        self._transport, self.rank, self.size = transport, transport.rank, transport.size


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture
def on_threads(monkeypatch):
    """Runs `work(transport)` on N ranks that are threads."""
    here, lock, build = threading.local(), threading.Lock(), models.build

    def locked(*arguments, **options):
        with lock:  # it seeds torch's random numbers, which threads share
            return build(*arguments, **options)

    monkeypatch.setattr("horovod_byz.collect.transport.connect", lambda name, timeout: here.transport)
    monkeypatch.setattr(models, "build", locked)
    monkeypatch.setattr("horovod_byz.optimizer.distributed.ranks", lambda: (here.transport.rank, N))

    def run(work):
        def start(transport):
            here.transport = transport
            return work(transport)

        results = on_ranks(N, start)
        for result in results:
            assert not isinstance(result, Exception), result
        return results

    return run


@pytest.mark.parametrize(
    ("name", "collect", "beta"),
    [("median", "symmetric", 0.0), ("multi-krum", "sharded", 0.9), ("detox", "root", 0.9)],
)
def test_the_same_job_ends_with_the_same_bits(on_threads, digits, name, collect, beta):
    """Six workers, one of which lies for a while; batch normalisation; momentum."""
    settings, rule = RULES[name]
    config = configs.make(
        {
            "seed": SEED,
            "steps": STEPS,
            "workers": N,
            "model": {"name": "cnn-empires", **MODEL},
            "collect": collect,
            "script": [{"steps": [3, 9], "workers": [2], "attack": "reversed-gradient"}],
            "data": {"name": "digits", "batch": 4},
            "optimizer": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
            "worker_momentum": beta,
            **settings,
        }
    )

    def trained(transport):
        trainer = training.Trainer(config, digits, ThreadRanks(transport))
        assert len(trainer.gradients.rows) == 1
        while trainer.step < STEPS:
            trainer.compute()
            trainer.apply(trainer.collect())
        return trainer.model.state_dict(), trainer.optimizer.state_dict()["state"], trainer.ledger.summary()

    def looped(transport):
        """What a user writes, with the batches that the trainer's workers get."""
        net = models.build("cnn-empires", digits.shape, digits.classes, seed=SEED, **MODEL)
        inner = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        with hb.DistributedOptimizer(
            inner,
            net.named_parameters(),
            rule=rule,
            collect=collect,
            buffers=net.named_buffers(),
            wire=config.make_wire(),
            worker_momentum=beta,
        ) as optimizer:
            groups = [config.make_redundancy().group_of(worker, N) for worker in range(N)]
            batches = Batches(SEED, len(digits.train_y), 4, groups)
            for step in range(STEPS):
                chosen = torch.from_numpy(batches.indices(step, [transport.rank])[0])
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(net(digits.train_x[chosen]), digits.train_y[chosen])
                loss.backward()
                optimizer.step()
            return net.state_dict(), inner.state_dict()["state"], optimizer.ledger.report()

    ours, theirs = on_threads(trained), on_threads(looped)
    want, moments, summary = ours[0]
    assert [part for part in want if "running_var" in part]
    assert want["2.num_batches_tracked"] == STEPS
    for model, state, _ in (*ours, *theirs):
        for part, tensor in want.items():
            assert torch.equal(model[part], tensor), part
        for number, entries in moments.items():
            assert torch.equal(state[number]["momentum_buffer"], entries["momentum_buffer"])
    report = theirs[0][2]
    for mine, account in zip(summary["workers"], report["workers"], strict=True):
        assert mine["mean_weight"] == pytest.approx(account["mean_weight"], abs=1e-6)
        assert mine["last_suspect_step"] == account["last_suspect_step"]
        assert mine["outvoted_steps"] == account["reasons"].get("outvoted", 0)
