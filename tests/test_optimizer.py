"""`hb.DistributedOptimizer` in one process: it must be as good as absent, and guard its parameters."""

from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.collect import LateRanksError, Layout

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
}


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def train(net, optimizer, steps=5, schedule=None):
    for step in range(steps):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("collect", ["symmetric", "root", "sharded"])
def test_transparency(name, collect):
    make, plain, wrapped = OPTIMIZERS[name], model(), model()
    want = train(plain, make(plain.parameters()))
    got = train(wrapped, hb.DistributedOptimizer(make(wrapped.parameters()), collect=collect))
    assert torch.equal(want, got)


def test_schedulers_see_a_torch_optimizer_and_move_its_learning_rate():
    net = model()
    inner = OPTIMIZERS["sgd"](net.parameters())
    optimizer = hb.DistributedOptimizer(inner)
    assert isinstance(optimizer, torch.optim.Optimizer)
    train(net, optimizer, 4, torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5))
    assert inner.param_groups[0]["lr"] == 0.1 * 0.25
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=9)
    assert optimizer.param_groups is inner.param_groups


@pytest.mark.parametrize("rule", [hb.Mean(), hb.Median()], ids=repr)
def test_scaled_losses_give_the_steps_of_unscaled_ones(rule):
    """By powers of two: bit for bit. Too large a scale shows in `overflowed`, and moves nothing."""
    plain, scaled = model(), model()
    inner = torch.optim.SGD(plain.parameters(), lr=0.1)
    optimizer = hb.DistributedOptimizer(torch.optim.SGD(scaled.parameters(), lr=0.1), rule=rule)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    x, halved = torch.randn(6, 4), 0
    while not optimizer.last or optimizer.last.overflowed:
        before = copy.deepcopy(scaled.state_dict())
        optimizer.zero_grad()
        scaler.scale(1e4 * scaled(x).square().mean()).backward()
        optimizer.synchronize()
        with optimizer.skip_synchronize():
            scaler.step(optimizer)
        scaler.update(scaler.get_scale() / 2 if optimizer.last.overflowed else None)
        if optimizer.last.overflowed:
            halved += 1
            assert all(torch.equal(p, before[name]) for name, p in scaled.named_parameters())
    assert 0 < halved < 60
    (1e4 * plain(x).square().mean()).backward()
    inner.step()
    for ours, theirs in zip(scaled.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_defaults_state_and_hooks_are_the_wrapped_optimizers():
    net = model()
    inner = OPTIMIZERS["adam"](net.parameters())
    optimizer = hb.DistributedOptimizer(inner, named_parameters=net.named_parameters())
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(optimizer.last is not None))
    train(net, optimizer, 1)
    assert calls == [True]  # after aggregation, which Horovod's wrapper does not promise
    assert optimizer.defaults is inner.defaults
    assert optimizer.defaults["lr"] == 0.01
    assert optimizer.state is inner.state
    assert optimizer.state_dict()["state"].keys() == inner.state_dict()["state"].keys()
    assert "Median" not in repr(optimizer)
    assert "lr: 0.01" in repr(optimizer)


@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad(to_none):
    net = model()
    optimizer = hb.DistributedOptimizer(OPTIMIZERS["sgd"](net.parameters()))
    net(torch.ones(2, 4)).sum().backward()
    optimizer.zero_grad(set_to_none=to_none)
    assert all((p.grad is None) if to_none else not p.grad.any() for p in net.parameters())


def test_no_nonfinite_gradient_reaches_the_parameters():
    net = model()
    optimizer = hb.DistributedOptimizer(OPTIMIZERS["sgd"](net.parameters()), rule=hb.Median())
    net(torch.ones(2, 4)).sum().backward()
    net[0].weight.grad[0, 0] = float("inf")
    optimizer.step()
    assert all(p.isfinite().all() for p in net.parameters())
    assert optimizer.last.verdicts[0].reason == "non-finite"


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_are_independent_and_go_on_alike(copier):
    net = model()
    optimizer = hb.DistributedOptimizer(
        OPTIMIZERS["adam"](net.parameters()), rule=hb.Median(), buffers=net.named_buffers()
    )
    torch.optim.lr_scheduler.StepLR(optimizer, 2)
    train(net, optimizer, 2)
    twin_net, twin = copier((net, optimizer))
    assert twin.rule == hb.Median()
    assert twin.ledger.steps == 2
    assert torch.equal(train(net, optimizer), train(twin_net, twin))
    assert twin_net[0].weight is not net[0].weight


def test_a_parameter_belongs_to_one_wrapper_at_a_time():
    net = model()
    with hb.DistributedOptimizer(OPTIMIZERS["sgd"](net.parameters()), net.named_parameters()) as optimizer:
        with pytest.raises(ValueError, match=r"parameter 0\.weight already belongs.*remove_hooks"):
            hb.DistributedOptimizer(OPTIMIZERS["sgd"](net.parameters()), net.named_parameters())
        with pytest.raises(ValueError, match="DistributedOptimizer already"):
            hb.DistributedOptimizer(optimizer)
    again = hb.DistributedOptimizer(OPTIMIZERS["sgd"](net.parameters()))
    train(net, again)
    del again, optimizer
    gc.collect()
    train(net, hb.DistributedOptimizer(OPTIMIZERS["sgd"](net.parameters())))


def test_removed_hooks_count_no_more():
    net = model()
    optimizer = hb.DistributedOptimizer(OPTIMIZERS["sgd"](net.parameters()))
    optimizer.remove_hooks()
    for _ in range(3):
        net(torch.ones(2, 4)).sum().backward()


def test_backward_passes_add_up():
    nets = model(), model()
    passes = hb.DistributedOptimizer(OPTIMIZERS["sgd"](nets[1].parameters()), backward_passes_per_step=2)
    for net, optimizer in zip(nets, (OPTIMIZERS["sgd"](nets[0].parameters()), passes), strict=True):
        for seed in range(2):
            net(torch.full((2, 4), float(seed))).sum().backward()
        optimizer.step()
    assert torch.equal(nets[0][3].weight, nets[1][3].weight)
    for _ in range(2):
        nets[1](torch.ones(2, 4)).sum().backward()
    with pytest.raises(RuntimeError, match="more than backward_passes_per_step = 2"):
        nets[1](torch.ones(2, 4)).sum().backward()


def test_step_after_synchronize_does_not_aggregate_twice():
    net = model()
    optimizer = hb.DistributedOptimizer(OPTIMIZERS["sgd"](net.parameters()))
    net(torch.ones(2, 4)).sum().backward()
    optimizer.synchronize()
    with pytest.warns(UserWarning, match="skip_synchronize"):
        optimizer.step()
    assert optimizer.ledger.steps == 1
    net(torch.ones(2, 4)).sum().backward()
    optimizer.synchronize()
    with optimizer.skip_synchronize():
        optimizer.step()
    assert optimizer.ledger.steps == 2


@pytest.mark.parametrize("sparse_as_dense", [False, True])
def test_sparse_gradients_come_back_sparse(sparse_as_dense):
    """0.1.0 refused them, which Horovod's optimizer takes, though its row was dense anyway."""
    table = nn.Embedding(10, 3, sparse=True)
    optimizer = hb.DistributedOptimizer(
        torch.optim.SparseAdam(table.parameters()), table.named_parameters(), sparse_as_dense=sparse_as_dense
    )
    table(torch.tensor([1, 4])).sum().backward()
    optimizer.step()
    assert table.weight.grad.is_sparse
    assert sorted(table.weight.grad.coalesce().indices()[0].tolist()) == [1, 4]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"named_parameters": [("a", nn.Parameter(torch.ones(1)))]},
            ValueError,
            "lacks 6 of the optimizer's",
        ),
        ({"named_parameters": ["a"]}, ValueError, r"\(name, parameter\) pairs"),
        ({"backward_passes_per_step": 0}, ValueError, "must be >= 1, got 0"),
        ({"op": 1}, ValueError, "op=1 is not supported"),
        ({"process_set": object()}, ValueError, "process_set is not supported"),
        ({"collect": "ring"}, ValueError, "got 'ring'"),
        ({"rule": hb.Krum(f=1)}, ValueError, "n = 1"),
        ({"timeout": -1}, ValueError, "positive number of seconds"),
        ({"buffers": [(1, 2)]}, TypeError, r"\(name, tensor\) pairs"),
    ],
)
def test_refused_arguments(options, error, words):
    net = model()
    if "collect" not in options:
        options = {"collect": "root", **options}
    with pytest.raises(error, match=words):
        hb.DistributedOptimizer(OPTIMIZERS["sgd"](net.parameters()), **options)
    train(net, hb.DistributedOptimizer(OPTIMIZERS["sgd"](net.parameters())))  # nothing was left behind


def test_refuses_what_is_no_optimizer_or_has_other_parameters():
    with pytest.raises(TypeError, match=r"must be a torch.optim.Optimizer, got Sequential"):
        hb.DistributedOptimizer(model())
    weird = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match="complex64"):
        hb.DistributedOptimizer(torch.optim.SGD([weird], lr=0.1))


def test_buffers_are_aggregated():
    net = model()
    net[1].running_var[0] = -2.0
    net[1].running_mean[1] = float("nan")
    net[1].num_batches_tracked += 4
    hb.aggregate_buffers(net)
    assert net[1].running_var.min() == 0.0
    assert net[1].running_mean[1] == 0.0
    assert net[1].num_batches_tracked == 4


def test_workers_that_do_not_arrive_are_absent_in_the_ledger(monkeypatch):
    optimizer = hb.DistributedOptimizer(torch.optim.SGD(model().parameters(), lr=0.1))
    session = optimizer._bind()
    monkeypatch.setattr(session, "layout", Layout((2, 1, 2)))

    def step(*arguments, **options):
        raise LateRanksError("rank 2 did not arrive", [2])

    monkeypatch.setattr(session, "step", step)
    with pytest.raises(LateRanksError):
        optimizer.synchronize()
    absent = {account["worker"]: account["absent"] for account in optimizer.ledger.report()["workers"]}
    assert absent == {3: 1, 4: 1}


class TestLedger:
    def rows(self):
        rows = np.ones((4, 3)) + 0.01 * np.arange(12).reshape(4, 3)
        rows[2, 0] = np.nan
        return rows

    def test_adds_up_what_each_worker_did(self):
        ledger = hb.Ledger()
        for _ in range(3):
            ledger.add(hb.aggregate(self.rows(), hb.Mean()))
        ledger.absent([3], step=9)
        report = ledger.report()
        assert report["steps"] == 3
        assert report["suspects"] == [2, 3]  # one proof names: non-finite values, and being late
        worker = report["workers"][2]
        assert worker["proofs"] == {"non-finite": 3}
        assert worker["first_suspect_step"] == 0
        assert worker["reasons"] == {"non-finite": 3}
        assert worker["nonfinite_values"] == 3
        assert worker["mean_weight"] == 0.0
        assert worker["mean_distance"] is None
        assert worker["last_suspect_step"] == 2
        assert report["workers"][3]["absent"] == 1
        assert report["workers"][3]["last_suspect_step"] == 9
        assert report["workers"][0]["mean_weight"] == pytest.approx(1 / 3)

    def test_a_resumed_ledger_counts_on(self, tmp_path):
        whole, first, second = hb.Ledger(), hb.Ledger(), hb.Ledger()
        result = hb.aggregate(self.rows(), hb.Mean())
        steps = [(whole, 0), (first, 0), (whole, 7)]
        for ledger, step in steps:
            ledger.add(result, step, groups=((0, 1), (2, 3)))
            ledger.absent([1], step)
        torch.save(first.state_dict(), tmp_path / "ledger.pt")
        first.add(result)  # what was saved does not change
        second.add(result)  # replaced
        second.load_state_dict(torch.load(tmp_path / "ledger.pt", weights_only=True))
        second.add(result, 7, groups=((0, 1), (2, 3)))
        second.absent([1], 7)
        assert second.report() == whole.report()
        assert second.state_dict() == whole.state_dict()

    def test_is_json_and_a_table(self):
        import json

        ledger = hb.Ledger()
        ledger.add(hb.aggregate(self.rows(), hb.Median()))
        ledger.add(hb.aggregate(np.array([[1e308], [-1e308], [1.0], [2.0]]), hb.Median()))
        assert json.loads(ledger.to_json()) == ledger.report()
        assert len(str(ledger).splitlines()) == 5
        assert "non-finite 1" in str(ledger).splitlines()[3]
        assert len(str(hb.Ledger()).splitlines()) == 1
