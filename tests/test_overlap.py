"""`Sharded(overlap=True)`: gradients leave while others are computed, and nothing else changes."""

from __future__ import annotations

import itertools
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.collect import buckets as cutting
from horovod_byz.collect.buckets import Buckets
from horovod_byz.collect.sharded import ShardedSession
from horovod_byz.kernels.rows import TILE
from thread_ranks import on_ranks, succeeded

OVERLAP = hb.Sharded(overlap=True)
BUCKETS = 5  # of the gradient of `Net`


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    monkeypatch.setattr(cutting, "_WIDTH", TILE)


class TestBuckets:
    @pytest.mark.parametrize("d", [0, 1, TILE, 5 * TILE + 3, 100 * TILE + 1])
    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    @pytest.mark.parametrize("count", [1, 2, 5, 16])
    def test_the_ranges_cover_all_coordinates_once_and_begin_at_tiles(self, d, size, count):
        buckets = Buckets(d, size, count)
        flat = [r for ranges in buckets.ranges for r in ranges]
        assert len(flat) == size * count
        assert flat[0][0] == 0
        assert flat[-1][1] == d
        assert all(a[1] == b[0] for a, b in itertools.pairwise(flat))
        assert all(begin % TILE == 0 or begin == d for begin, _ in flat)
        assert [span[0] for span in buckets.spans] == [ranges[0][0] for ranges in buckets.ranges]
        assert sorted(r for rank in range(size) for r in buckets.held_by(rank)) == sorted(flat)

    def test_without_overlap_there_is_one_bucket_unless_an_operation_cannot_hold_it(self):
        assert Buckets.of(10**7, 4, 4, 2**31 - 1, overlap=False).count == 1
        for d, n, most in [(20_000, 5, 9_000), (10**6, 3, 50_000), (10**6, 40, 200_000)]:
            buckets = Buckets.of(d, 3, n, most, overlap=False)
            widest = max(end - begin for ranges in buckets.ranges for begin, end in ranges)
            assert n * widest <= most or widest <= TILE  # a tile is the least that a rank can be given
            assert buckets.count > 1

    def test_overlap_cuts_a_row_in_at_most_16(self):
        assert Buckets.of(3 * TILE, 4, 4, 2**31 - 1, overlap=True).count == 3
        assert Buckets.of(10**9, 4, 4, 2**31 - 1, overlap=True).count == 16

    def test_statistics_are_put_in_the_order_of_the_ranges(self):
        buckets = Buckets(11 * TILE, 2, 3)
        partials = [np.arange(length) + 100 * rank for rank, length in enumerate(buckets.lengths)]
        cut = buckets.in_order(partials)
        assert len(cut) == 6
        for rank, partial in enumerate(partials):
            assert np.concatenate(cut[rank::2]).tolist() == partial.tolist()

    def test_it_needs_one_aggregator_per_range(self):
        with pytest.raises(ValueError, match=r"Sharded\(replicas=3, overlap=True\) is not supported"):
            hb.Sharded(replicas=3, overlap=True)
        with pytest.raises(TypeError, match="overlap"):
            hb.Sharded(overlap="yes")
        assert repr(OVERLAP) == "Sharded(replicas=1, overlap=True)"


class Net(nn.Module):
    """A little under six tiles of coordinates, with a layer that a batch may leave out."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(24, 160), nn.BatchNorm1d(160)
        self.spare, self.last = nn.Linear(160, 100), nn.Linear(160, 24)

    def forward(self, x, spare=True):
        x = torch.tanh(self.norm(self.first(x)))
        return self.last(x).square().mean() + (self.spare(x).square().mean() if spare else 0)


def net():
    torch.manual_seed(0)
    return Net()


def batch(step, rank):
    return torch.randn(5, 24, generator=torch.Generator().manual_seed(100 * step + rank))


def wrapped(model, collect=OVERLAP, **options):
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = {"rule": hb.Median(), "buffers": model.named_buffers(), **options}
    return hb.DistributedOptimizer(inner, model.named_parameters(), collect=collect, **options)


def bits(model):
    return torch.cat([t.detach().double().reshape(-1) for t in model.state_dict().values()]).numpy().tobytes()


@pytest.fixture
def early(monkeypatch):
    """Counts the buckets that leave during a backward pass, and those that leave in a step."""
    counts, own = Counter(), ShardedSession._send

    def send(session, rows):
        counts["during backward" if session.is_open else "in the step"] += 1
        own(session, rows)

    monkeypatch.setattr(ShardedSession, "_send", send)
    return counts


@pytest.fixture
def ranks(monkeypatch):
    """Runs `work(rank, model)` on ranks that are threads; returns what each gives."""
    here = threading.local()
    monkeypatch.setattr("horovod_byz.collect.transport.connect", lambda name, timeout: here.transport)

    def run(size, work):
        monkeypatch.setattr("horovod_byz.optimizer.distributed.ranks", lambda: (here.transport.rank, size))
        models = [net() for _ in range(size)]  # torch's generator is shared by the threads

        def start(transport):
            here.transport = transport
            return work(transport.rank, models[transport.rank])

        return succeeded(on_ranks(size, start))

    return run


def trained(rank, model, collect=OVERLAP, steps=6, **options):
    with wrapped(model, collect, **options) as optimizer:
        for step in range(steps):
            optimizer.zero_grad()
            model(batch(step, rank)).backward()
            optimizer.step()
        return bits(model), optimizer.ledger.report()


RULES = [
    hb.Median(),
    hb.MultiKrum(f=1),
    hb.GeometricMedian(),
    hb.BrSGD(),
    hb.Bulyan(f=0),
    hb.Detox(hb.Redundancy(1), hb.Mean(), hb.Median(), groups=2),
    hb.MajorityVote(scope="tensor"),
]


class TestBits:
    @pytest.mark.parametrize("rule", RULES, ids=repr)
    def test_every_rule_gives_the_bits_of_other_modes_with_the_same_ledger(self, ranks, early, rule):
        want = ranks(5, lambda rank, model: trained(rank, model, "symmetric", 3, rule=rule))
        seen = ranks(5, lambda rank, model: trained(rank, model, OVERLAP, 3, rule=rule))
        assert len({model for model, _ in (*want, *seen)}) == 1
        for (_, account), (_, other) in zip(want, seen, strict=True):
            assert account["workers"] == other["workers"]
        # Not at step 0, which binds and compares the ranks' states.
        assert early["during backward"] == 5 * 2 * BUCKETS

    @pytest.mark.parametrize("compression", ["bfloat16", "sign"])
    def test_packed_rows(self, ranks, early, compression):
        def work(collect):
            return lambda rank, model: trained(rank, model, collect, 3, compression=compression)

        assert ranks(3, work("symmetric"))[0][0] == ranks(3, work(OVERLAP))[0][0]
        assert early["during backward"]

    @pytest.mark.parametrize("every", [0, 1, 2])
    def test_a_step_that_compares_states_begins_after_its_backward_pass(self, ranks, early, every):
        ranks(2, lambda rank, model: trained(rank, model, check_state_every=every))
        steps = {0: 5, 1: 0, 2: 3}[every]
        assert early["during backward"] == 2 * BUCKETS * steps

    def test_a_lying_worker_is_judged_alike(self, ranks):
        def wire(block, offset, d, step):
            if step >= 2:
                block[1] = np.nan if step % 2 else 1e20

        for rule in (hb.Median(), hb.MultiKrum(f=1)):
            both = [
                ranks(5, lambda rank, model, c=c, r=rule: trained(rank, model, c, wire=wire, rule=r))
                for c in ("root", OVERLAP)
            ]
            assert both[0][0][0] == both[1][0][0]
            assert both[0][0][1]["workers"] == both[1][0][1]["workers"]


class TestLoops:
    """What scripts do between backward() and step()."""

    def both(self, ranks, work):
        want = ranks(2, lambda rank, model: work(rank, model, "sharded"))
        seen = ranks(2, lambda rank, model: work(rank, model, OVERLAP))
        assert len(set(want + seen)) == 1

    def test_accumulation(self, ranks, early):
        def work(rank, model, collect):
            optimizer = wrapped(model, collect, backward_passes_per_step=3)
            for step in range(3):
                optimizer.zero_grad()
                for i in range(3):
                    model(batch(3 * step + i, rank)).backward()
                optimizer.step()
            return bits(model)

        self.both(ranks, work)
        assert early["during backward"] == 2 * 2 * BUCKETS

    def test_a_parameter_that_one_rank_does_not_use(self, ranks, early):
        def work(rank, model, collect):
            optimizer = wrapped(model, collect)
            for step in range(4):
                optimizer.zero_grad()
                model(batch(step, rank), spare=rank == 0 or step == 3).backward()
                optimizer.step()
            return bits(model)

        self.both(ranks, work)
        assert early["during backward"]
        assert early["in the step"] > 2 * BUCKETS

    def test_layers_that_thaw(self, ranks):
        def work(rank, model, collect):
            model.first.requires_grad_(False)
            optimizer = wrapped(model, collect)
            for step in range(5):
                if step == 3:
                    model.first.requires_grad_(True)
                optimizer.zero_grad()
                model(batch(step, rank)).backward()
                optimizer.step()
            return bits(model)

        self.both(ranks, work)

    def test_clipping_after_synchronize(self, ranks):
        def work(rank, model, collect):
            optimizer = wrapped(model, collect)
            for step in range(4):
                optimizer.zero_grad()
                model(batch(step, rank)).backward()
                optimizer.synchronize()
                nn.utils.clip_grad_norm_(model.parameters(), 0.01)
                with optimizer.skip_synchronize():
                    optimizer.step()
            return bits(model)

        self.both(ranks, work)

    def test_a_scaled_loss(self, ranks):
        def work(rank, model, collect):
            optimizer, scaler = wrapped(model, collect), torch.amp.GradScaler("cpu", init_scale=1024.0)
            for step in range(4):
                optimizer.zero_grad()
                scaler.scale(model(batch(step, rank))).backward()
                optimizer.synchronize()
                with optimizer.skip_synchronize():
                    scaler.step(optimizer)
                scaler.update()
            return bits(model)

        self.both(ranks, work)

    def test_a_closure_that_is_called_several_times(self, ranks):
        def work(rank, model, collect):
            model.norm.eval()
            inner = torch.optim.LBFGS(model.parameters(), max_iter=3, line_search_fn="strong_wolfe")
            optimizer = hb.DistributedOptimizer(inner, rule=hb.Median(), collect=collect)

            def closure():
                optimizer.zero_grad()
                loss = model(batch(0, rank))
                loss.backward()
                return loss

            for _ in range(2):
                optimizer.step(closure)
            return bits(model)

        self.both(ranks, work)

    def test_a_dropped_wrapper_frees_its_parameters(self):
        model = net()
        optimizer = wrapped(model)
        model(batch(0, 0)).backward()
        optimizer.step()
        del optimizer
        wrapped(model)


class TestRefused:
    """In one process, which is a job of one rank."""

    def after_one_step(self, **options):
        model = net()
        optimizer = wrapped(model, check_state_every=0, **options)
        for step in range(2):
            optimizer.zero_grad()
            model(batch(step, 0)).backward()
            if step == 0:
                optimizer.step()
        return model, optimizer

    def test_a_gradient_that_was_changed_after_it_had_left(self, early):
        model, optimizer = self.after_one_step()
        assert early["during backward"]
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        with pytest.raises(RuntimeError, match=r"gradient of first\.weight was changed .*skip_synchronize"):
            optimizer.step()

    def test_a_gradient_that_was_replaced(self):
        model, optimizer = self.after_one_step()
        model.last.bias.grad = torch.ones(24)
        with pytest.raises(RuntimeError, match=r"gradient of last\.bias was changed"):
            optimizer.step()

    def test_gradients_unscaled_by_the_step(self):
        _, optimizer = self.after_one_step()
        optimizer.grad_scale = torch.tensor(2.0)
        optimizer.found_inf = torch.tensor(0.0)
        with pytest.raises(RuntimeError, match=r"optimizer.synchronize\(\) \(clip, unscale\)"):
            optimizer.step()

    def test_a_changed_gradient_that_has_not_left_is_read_again(self, early):
        want = []
        for collect in ("sharded", OVERLAP):
            model = net()
            optimizer = wrapped(model, collect, check_state_every=1)  # every step begins after backward
            for step in range(2):
                optimizer.zero_grad()
                model(batch(step, 0)).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.01)
                optimizer.step()
            want.append(bits(model))
        assert want[0] == want[1]
        assert not early["during backward"]

    def test_gradients_that_are_dropped(self):
        _, optimizer = self.after_one_step()
        for drop in (optimizer.zero_grad, lambda: optimizer.load_state_dict(optimizer.state_dict())):
            with pytest.raises(RuntimeError, match=r"would drop gradients of step 1.*after each backward"):
                drop()

    def test_what_was_on_its_way_when_the_ranks_started_anew_is_forgotten(self, monkeypatch):
        model, optimizer = self.after_one_step()
        monkeypatch.setattr("horovod_byz.collect.protocol.Arrived.over", True)
        optimizer.zero_grad()
        monkeypatch.undo()
        for step in range(2):
            model(batch(step, 0)).backward()
            optimizer.step()
            optimizer.zero_grad()
        want = net()
        other = wrapped(want, "sharded", check_state_every=0)
        for step in (0, 0, 1):
            other.zero_grad()
            want(batch(step, 0)).backward()
            other.step()
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), want.parameters(), strict=True))

    def test_another_rule_between_backward_and_step(self):
        _, optimizer = self.after_one_step()
        optimizer.rule = hb.Mean()
        with pytest.raises(ValueError, match=r"step 1 was opened with Median\(\)"):
            optimizer.step()
