"""What scripts do with an optimizer between its steps: other parameters, skipped and failed steps."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.collect import LateRanksError
from parameters import same
from thread_ranks import on_ranks, succeeded


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 3))


def loss(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return model(torch.randn(16, 4, generator=generator)).square().mean()


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def thaw(model, optimizer):
    model[3].requires_grad_(True)


def add_group(model, optimizer):
    optimizer.add_param_group({"params": list(model[3].parameters())})


def add_to_the_wrapped(model, optimizer):
    getattr(optimizer, "optimizer", optimizer).add_param_group({"params": list(model[3].parameters())})


def append_group(model, optimizer):
    group = {**optimizer.param_groups[0], "params": list(model[3].parameters())}
    optimizer.param_groups.append(group)


def replace_layer(model, optimizer):
    model[0] = net(seed=5)[0]
    optimizer.param_groups[0]["params"] = list(model.parameters())


def trained(change, wrap, scaler):
    """Values after a step, a change of the parameters and another step."""
    model = net()
    if change is thaw:
        model[3].requires_grad_(False)
    whole = change in (thaw, replace_layer)
    optimizer = wrap(sgd(model.parameters() if whole else model[:3].parameters()))
    for between in (change, None):
        model.zero_grad()
        optimizer.zero_grad()
        scaler.scale(loss(model)).backward()
        scaler.step(optimizer)
        scaler.update()
        if between:
            between(model, optimizer)
    return values(model), optimizer


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("change", [thaw, add_group, add_to_the_wrapped, append_group, replace_layer])
def test_parameters_that_are_new_step_as_without_the_wrapper(change, scaled):
    """Version 0.1 raised a KeyError where the group was not added by the wrapper. Later the gradients of new
    parameters kept the scale of a GradScaler for a step, which was 65536 times too long: the scale was taken
    off the parameters of the last row."""
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    (want, _), (got, optimizer) = (
        trained(change, wrap, scaler) for wrap in (lambda o: o, hb.DistributedOptimizer)
    )
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(want, got, strict=True))
    copy.deepcopy(optimizer)


class OwnZeroGrad(torch.optim.SGD):
    def zero_grad(self):
        super().zero_grad(set_to_none=False)


def test_zero_grad_takes_what_the_wrapped_optimizers_takes():
    """Version 0.1 passed `set_to_none` on, which not every optimizer knows."""
    model = net()
    optimizer = hb.DistributedOptimizer(OwnZeroGrad(model.parameters(), lr=0.1))
    loss(model).backward()
    optimizer.zero_grad()
    assert not model[0].weight.grad.any()
    with pytest.raises(TypeError, match="set_to_none"):
        optimizer.zero_grad(set_to_none=True)


class TestGradientsOfThisRankAlone:
    """Version 0.1 stepped by them in silence inside `skip_synchronize()`."""

    def test_a_step(self):
        model = net()
        before, optimizer = values(model), hb.DistributedOptimizer(sgd(model.parameters()))
        loss(model).backward()
        with (
            optimizer.skip_synchronize(),
            pytest.raises(RuntimeError, match=r"call optimizer.synchronize\(\)"),
        ):
            optimizer.step()
        assert same(values(model), before)

    def test_a_closure(self):
        model = net()
        before, optimizer = values(model), hb.DistributedOptimizer(sgd(model.parameters()))

        def closure(synchronized):
            optimizer.zero_grad()
            value = loss(model)
            value.backward()
            if synchronized:
                optimizer.synchronize()
            return value

        with optimizer.skip_synchronize():
            with pytest.raises(RuntimeError, match=r"call optimizer.synchronize\(\)"):
                optimizer.step(lambda: closure(False))
            assert same(values(model), before)
            optimizer.step(lambda: closure(True))
        assert optimizer.ledger.steps == 1


@pytest.mark.parametrize("before", [True, False], ids=["gradients before", "gradients in the closure"])
@pytest.mark.parametrize("make", [sgd, torch.optim.Adam, torch.optim.LBFGS])
def test_an_overflow_leaves_out_a_step_by_a_closure(make, before):
    """Without closures it was left out; with one, momentum and weight decay moved the parameters, and where a
    majority overflowed, the minority's rows stepped alone."""
    model = net()
    optimizer = hb.DistributedOptimizer(make(model.parameters()))

    def closure(factor=1.0):
        optimizer.zero_grad()
        value = loss(model) * factor
        value.backward()
        return value

    optimizer.step(closure)
    moved = values(model)
    if before:
        closure(float("nan"))
    with pytest.warns(UserWarning, match="step left out"):
        assert optimizer.step(lambda: closure(float("nan"))) is None
    assert same(values(model), moved)
    optimizer.step(closure)
    assert not same(values(model), moved)


class Bowl(torch.nn.Module):
    """A loss that overflows, with its gradient, beyond `edge`."""

    def __init__(self, edge, gradient=True, value=True):
        super().__init__()
        self.at = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        self.edge, self.gradient, self.value = edge, gradient, value

    def backward(self):
        here = (self.at * torch.tensor([1.0, 2.0])).square().mean()
        beyond = float(self.at.detach().norm()) > self.edge
        here.backward()
        if beyond and self.gradient:
            self.at.grad.fill_(float("nan"))
        return here * float("inf") if beyond and self.value else here


@pytest.mark.parametrize("overflow", [{}, {"gradient": False}, {"value": False}], ids=str)
@pytest.mark.parametrize("rate", [1.0, 50.0, 1e3])
def test_a_line_search_backs_off_where_most_workers_overflow(overflow, rate):
    """Version 0.2.0: IndexError from torch's strong-Wolfe search, since NaN is neither above nor below."""
    bowl = Bowl(4.0, **overflow)
    optimizer = hb.DistributedOptimizer(
        torch.optim.LBFGS(bowl.parameters(), lr=rate, max_iter=8, line_search_fn="strong_wolfe")
    )

    def closure():
        optimizer.zero_grad()
        return bowl.backward()

    before = float(optimizer.step(closure).detach())
    for _ in range(4):
        optimizer.step(closure)
    assert torch.isfinite(bowl.at).all()
    assert float(closure().detach()) < 1e-3 * before


def test_a_line_search_without_any_finite_loss_ends_with_the_remedy():
    bowl = Bowl(0.0, gradient=False)
    optimizer = hb.DistributedOptimizer(torch.optim.LBFGS(bowl.parameters(), line_search_fn="strong_wolfe"))

    def closure():
        optimizer.zero_grad()
        return bowl.backward()

    before = values(bowl)
    with pytest.raises(RuntimeError, match=r"losses were NaN or infinite .* check the closure's loss"):
        optimizer.step(closure)
    assert same(values(bowl), before)


def test_ranks_search_alike_where_most_of_them_overflow(job):
    """Three of four ranks overflow beyond the edge; the fourth does not, and must not go there alone."""

    def work(transport, model):
        bowl = Bowl(4.0 if transport.rank else 1e9)
        inner = torch.optim.LBFGS(bowl.parameters(), lr=50, max_iter=8, line_search_fn="strong_wolfe")
        optimizer = hb.DistributedOptimizer(inner, rule=hb.Median(), collect="sharded")

        def closure():
            optimizer.zero_grad()
            return bowl.backward()

        for _ in range(3):
            optimizer.step(closure)
        return values(bowl), optimizer.last.step

    results = job.run(4, work)
    assert all(step == results[0][1] and same(got, results[0][0]) for got, step in results)


class Job:
    """Optimizers on ranks that are threads."""

    def __init__(self, monkeypatch):
        self.here = threading.local()
        monkeypatch.setattr(
            "horovod_byz.collect.transport.connect", lambda name, timeout: self.here.transport
        )
        monkeypatch.setattr(
            "horovod_byz.optimizer.distributed.ranks",
            lambda: (self.here.transport.rank, self.here.transport.size),
        )

    def run(self, size, work):
        models = [net() for _ in range(size)]  # one after another: the seed is the process's

        def start(transport):
            self.here.transport = transport
            return work(transport, models[transport.rank])

        return succeeded(on_ranks(size, start))


@pytest.fixture
def job(monkeypatch):
    return Job(monkeypatch)


def train(optimizer, model, rank, steps):
    for step in steps:
        optimizer.zero_grad()
        loss(model, seed=10 * step + rank).backward()
        optimizer.step()


def test_a_new_rank_beside_those_whose_step_failed(job):
    """The others' failed step counted as one that they had skipped, so the new rank's number was not theirs
    and it was accused, by an error from which Elastic does not recover."""
    new = 2

    def work(transport, model):
        optimizer = hb.DistributedOptimizer(sgd(model.parameters()), rule=hb.Median())
        train(optimizer, model, transport.rank, range(2))
        exchange = transport.exchange

        def fail(message, phase):
            transport.exchange = exchange
            raise LateRanksError("rank 2 did not arrive", [new])

        transport.exchange = fail
        with pytest.raises(LateRanksError):
            train(optimizer, model, transport.rank, [2])
        if transport.rank == new:
            state = optimizer.state_dict()
            optimizer.remove_hooks()
            optimizer = hb.DistributedOptimizer(sgd(model.parameters()), rule=hb.Median())
            optimizer.load_state_dict(state)
        train(optimizer, model, transport.rank, range(2, 4))
        return values(model), optimizer.last.step

    results = job.run(3, work)
    assert all(step == 1 and same(got, results[0][0]) for got, step in results)


@pytest.mark.parametrize("before", ["step", "skip"])
def test_a_new_rank_beside_those_that_thaw_a_layer(job, before):
    """Version 0.2.0: a layer thawed on all ranks, in the step in which a new process took rank 2's place: the
    others bound with their number of steps and the new one with 0, so it was accused. Likewise where they had
    skipped a step."""
    new = 2

    def work(transport, model):
        def wrapped():
            return hb.DistributedOptimizer(sgd(model.parameters()), rule=hb.Median(), collect="sharded")

        frozen = next(model.parameters()).requires_grad_(False)
        optimizer = wrapped()
        train(optimizer, model, transport.rank, range(2))
        if transport.rank == new:
            state = optimizer.state_dict()
            optimizer.remove_hooks()
            frozen.requires_grad_(True)
            optimizer = wrapped()
            optimizer.load_state_dict(state)
        else:
            if before == "skip":
                optimizer.zero_grad()
                loss(model, seed=transport.rank).backward()
            frozen.requires_grad_(True)
        train(optimizer, model, transport.rank, range(2, 4))
        return values(model), optimizer.last.step

    results = job.run(3, work)
    assert all(step == 1 and same(got, results[0][0]) for got, step in results)


@pytest.mark.parametrize("collect", ["symmetric", hb.Sharded(overlap=True)], ids=str)
@pytest.mark.parametrize("passes", [1, 2])
def test_a_layer_that_is_frozen_when_its_gradient_is_there_is_aggregated(job, passes, collect):
    """Its gradient stayed the rank's own, and the models drifted apart without a word."""

    def trained(early):
        def work(transport, model):
            optimizer = hb.DistributedOptimizer(
                sgd(model.parameters()), rule=hb.Median(), backward_passes_per_step=passes, collect=collect
            )
            for step in range(4):
                optimizer.zero_grad()
                for i in range(passes):
                    loss(model, seed=100 * step + 10 * i + transport.rank).backward()
                    if early and step == 2 and i == 0:
                        model[3].requires_grad_(False)
                optimizer.step()
                if step == 2:
                    model[3].requires_grad_(False)
            return values(model)

        return job.run(3, work)

    froze = trained(early=True)
    assert all(same(got, froze[0]) for got in froze)
    if passes == 1:
        assert same(froze[0], trained(early=False)[0])


def test_ranks_that_thaw_a_layer_together_count_on(job):
    def work(transport, model):
        frozen = next(model.parameters()).requires_grad_(False)
        optimizer = hb.DistributedOptimizer(sgd(model.parameters()), rule=hb.Median())
        train(optimizer, model, transport.rank, range(2))
        frozen.requires_grad_(True)
        train(optimizer, model, transport.rank, [2])
        return optimizer.last.step

    assert job.run(3, work) == [2, 2, 2]


@pytest.mark.parametrize("skipped", [[1], [0, 2]])
def test_workers_of_a_dedicated_root_may_skip_a_step_together(job, skipped):
    """The root computes nothing, so it did not count the step that its workers left out, and was accused."""

    def work(transport, model):
        optimizer = hb.DistributedOptimizer(sgd(model.parameters()), collect=hb.Root(dedicated=True))
        for step in range(4):
            optimizer.zero_grad()
            if transport.rank:
                loss(model, seed=transport.rank).backward()
            if step not in skipped:
                optimizer.step()
        return values(model)

    results = job.run(3, work)
    assert all(same(got, results[0]) for got in results)


def in_one_job(monkeypatch, size, work):
    """What each rank returned, or the error that it raised."""
    job = Job(monkeypatch)
    models = [net() for _ in range(size)]

    def start(transport):
        job.here.transport = transport
        return work(transport, models[transport.rank])

    return on_ranks(size, start, aborting=False)


@pytest.mark.parametrize("clears", [False, True])
def test_a_rank_that_steps_twice_alone_is_named_at_the_next_exchange(monkeypatch, clears):
    """Version 0.2.0: its second step met the others' next, with the aggregate sent as its own gradient; it
    was one step ahead to the end of the run, and accused of having left then. Cause: calls were counted."""

    def work(transport, model):
        optimizer = hb.DistributedOptimizer(sgd(model.parameters()), rule=hb.Median())
        for step in range(4):
            optimizer.zero_grad()
            loss(model, seed=10 * step + transport.rank).backward()
            optimizer.step()
            if transport.rank == 2 and step == 1:
                if clears:
                    optimizer.zero_grad()  # a rank that has no data sends zeros on purpose
                optimizer.step()
            if clears and transport.rank != 2 and step == 1:
                optimizer.zero_grad()
                loss(model).backward()
                optimizer.step()
        return optimizer.last.step

    results = in_one_job(monkeypatch, 3, work)
    if clears:
        assert results == [4, 4, 4]
        return
    assert {type(error).__name__ for error in results} == {"HeaderMismatchError"}
    assert {error.ranks for error in results} == {(2,)}
    assert "rank 2: step 1 where most have 2" in str(results[0])


def test_ranks_may_step_twice_together(job):
    def work(transport, model):
        optimizer = hb.DistributedOptimizer(sgd(model.parameters()), rule=hb.Median())
        train(optimizer, model, transport.rank, range(2))
        optimizer.step()
        again = optimizer.last.step
        train(optimizer, model, transport.rank, range(2, 4))
        return again, optimizer.last.step, values(model)

    results = job.run(3, work)
    assert all(result[:2] == (1, 3) and same(result[2], results[0][2]) for result in results)


@pytest.mark.parametrize("session", ["statistics", "counters", "loss"])
def test_sessions_that_failed_a_step_apart_bind_anew(job, session):
    """Only a failure while gradients were collected made the sessions bind anew: after another one the ranks
    went on with different numbers of steps, and Elastic did not recover from the error."""

    def work(transport, model):
        optimizer = hb.DistributedOptimizer(
            sgd(model.parameters()), rule=hb.Median(), buffers=model.named_buffers()
        )

        def step(number):
            def closure():
                optimizer.zero_grad()
                value = loss(model, seed=10 * number + transport.rank)
                value.backward()
                return value

            optimizer.step(closure)

        step(0)
        failing = {**optimizer._buffers._sessions, "loss": optimizer._loss._session}[session]
        original = failing.step

        def fail(*arguments, **options):
            before = failing.next_step
            original(*arguments, **options)
            failing.next_step = before + (transport.rank == 0)  # rank 0 noticed after the step
            raise LateRanksError("rank 2 did not arrive", [2])

        failing.step = fail
        with pytest.raises(LateRanksError):
            step(1)
        absent = {account["worker"]: account["absent"] for account in optimizer.ledger.report()["workers"]}
        assert absent[2] == 1
        step(1)
        return values(model)

    results = job.run(3, work)
    assert all(same(got, results[0]) for got in results)
