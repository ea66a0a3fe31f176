"""Redundancy in training runs: one liar or one flipped bit changes nothing; two colluders win their vote."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.training import config as configs
from horovod_byz.training.data import load_dataset
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.trainer import Trainer
from thread_ranks import on_ranks, succeeded

COMMON = {
    "workers": 15,
    "redundancy": {"r": 3, "compute": "every"},
    "steps": 12,
    "data": {"name": "digits", "batch": 12},
}


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def trained(dataset, wire=None, **options):
    """A run whose every replica computes; `wire` takes the place of the configured attack."""
    trainer = Trainer(configs.make({**COMMON, **options}), dataset, Ranks())
    while trainer.step < trainer.config.steps:
        trainer.compute()
        trainer.apply(trainer.collect(wire))
    return trainer


@pytest.mark.parametrize("attack", ["a-little-is-enough", "reversed-gradient", "not-a-number", "constant"])
@pytest.mark.parametrize("rule", ["detox-median", "detox-multi-krum", "detox-bulyan", "draco"])
def test_q_of_one_is_q_of_zero_to_the_bit(digits, rule, attack):
    """The rule has f = 1 in both runs: it is the same rule, and q_hat is 0 for certain."""
    rule = f"{rule}:f=1"
    clean = trained(digits, rule=rule)
    attacked = trained(digits, rule=rule, byzantine=1, attack=attack)
    assert clean.digest() == attacked.digest()
    (guilty,) = attacked.wire.workers(0)
    reasons = [
        account["outvoted_steps"] + account["nonfinite_steps"]
        for account in attacked.ledger.summary()["workers"]
    ]
    # ALIE with one liar and a small z may send the honest row: then there is nothing to see.
    assert reasons[guilty] == 12 or attack == "a-little-is-enough"
    assert sum(reasons) == reasons[guilty]


@pytest.mark.parametrize("rule", ["detox-median:f=2", "detox-multi-krum:f=1", "draco:f=1"])
def test_one_flipped_mantissa_bit_is_reported_with_worker_group_and_step(digits, rule):
    def flip(block, offset, d, step):
        if step == 7:
            block.view(np.uint32)[4, 1000] ^= 1

    clean, flipped = trained(digits, rule=rule), trained(digits, flip, rule=rule)
    assert clean.digest() == flipped.digest()
    records = flipped.ledger.summary()["workers"]
    assert [account["worker"] for account in records if account["outvoted_steps"]] == [4]
    faulty = records[4]
    assert (faulty["outvoted_steps"], faulty["last_suspect_step"]) == (1, 7)
    assert faulty["group"] == hb.Redundancy(3).group_of(4, 15)
    assert all(account["outvoted_steps"] == 0 for account in clean.ledger.summary()["workers"])


def test_the_optimizers_ledger_says_the_same(monkeypatch):
    """Six ranks, two groups; rank 2's memory flips one bit at step 3."""
    here, redundancy = threading.local(), hb.Redundancy(3, seed=2)
    monkeypatch.setattr("horovod_byz.collect.transport.connect", lambda name, timeout: here.transport)
    monkeypatch.setattr("horovod_byz.optimizer.distributed.ranks", lambda: (here.transport.rank, 6))
    torch.manual_seed(0)
    nets = [nn.Linear(5, 2) for _ in range(6)]

    def train(faulty):
        for net in nets:
            with torch.no_grad():
                for p in net.parameters():
                    p.fill_(0.1)

        def work(transport):
            here.transport = transport
            net, worker = nets[transport.rank], transport.rank
            rule = hb.Detox(redundancy, hb.Mean(), hb.Mean())
            inner = torch.optim.SGD(net.parameters(), lr=0.1)
            with hb.DistributedOptimizer(inner, net.named_parameters(), rule=rule) as optimizer:
                for step in range(5):
                    group = redundancy.group_of(worker, 6)
                    generator = torch.Generator().manual_seed(10 * step + group)
                    optimizer.zero_grad()
                    net(torch.randn(4, 5, generator=generator)).square().mean().backward()
                    if worker == faulty and step == 3:
                        net.weight.grad.numpy().view(np.uint32)[1, 2] ^= 1
                    optimizer.step()
                return net.weight.detach().clone(), optimizer.ledger.report()["workers"]

        return succeeded(on_ranks(6, work))

    clean, flipped = train(None), train(2)
    for (want, _), (weight, report) in zip(clean, flipped, strict=True):
        assert torch.equal(want, weight)
        named = [account for account in report if account["suspect"]]
        assert [account["worker"] for account in named] == [2]
        assert named[0]["reasons"] == {"outvoted": 1}
        assert named[0]["last_suspect_step"] == 3
        assert named[0]["group"] == redundancy.group_of(2, 6)


def collusion(groups):
    """Two replicas of the first group send the same wrong row, -100 times the third one's."""
    a, b, honest = groups[0]

    def wire(block, offset, d, step):
        block[a] = block[b] = -100 * block[honest]

    return wire, honest


def test_two_colluding_replicas_are_elected_and_a_robust_rule_behind_the_vote_survives(digits):
    """As the theory says: no vote can see them; f of the rule is the worst case after the vote."""
    wire, honest = collusion(hb.Redundancy(3).groups_of(15))
    steps = {"steps": 30}
    clean = trained(digits, rule="detox:inner=mean,outer=mean", **steps).evaluate()
    for rule in ("detox:inner=multi-krum:f=1,outer=mean", "detox:inner=median,outer=mean"):
        robust = trained(digits, wire, rule=rule, **steps)
        outvoted = [account["outvoted_steps"] for account in robust.ledger.summary()["workers"]]
        assert outvoted[honest] == 30  # the odd one out is the honest one
        assert sum(outvoted) == 30
        assert robust.evaluate()["accuracy"] > clean["accuracy"] - 0.05
    ruined = trained(digits, wire, rule="detox:inner=mean,outer=mean", **steps).evaluate()
    assert ruined["accuracy"] < clean["accuracy"] / 2


def test_draco_tolerates_any_f_workers_where_three_replicas_tolerate_one(digits):
    """f = 2 means five replicas: no two of them are a majority anywhere."""
    options = {"rule": "draco:f=2", "redundancy": {"r": 5, "compute": "every"}}
    a, b = hb.Redundancy(5).groups_of(15)[0][:2]

    def wire(block, offset, d, step):
        block[a] = block[b] = 7.0

    attacked = trained(digits, wire, **options)
    assert trained(digits, **options).digest() == attacked.digest()
    outvoted = [
        account["worker"]
        for account in attacked.ledger.summary()["workers"]
        if account["outvoted_steps"] == 12
    ]
    assert outvoted == sorted([a, b])
