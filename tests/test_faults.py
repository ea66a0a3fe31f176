"""`hb.Faults`: each fault does exactly what it says, to the bit; its text makes it again."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import signal
import threading

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.faults import bits, ranks, rows, silent
from horovod_byz.faults.faults import KINDS
from thread_ranks import on_ranks, succeeded

D = 200
NOTHING: tuple[np.ndarray, ...] = ()


def row(dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(D).astype(dtype)


def struck(fault, dtype=np.float32, step=0, earlier=NOTHING):
    """A row before and after a fault."""
    before = row(dtype)
    after = before.copy()
    fault.strike(after, step, earlier)
    return before, after


def changed(before, after):
    """Where two rows differ in a bit."""
    whole = np.dtype(f"u{before.itemsize}")
    return np.flatnonzero(before.view(whole) != after.view(whole))


def flipped(before, after):
    """The bits that differ, per value that differs, counted as in a float32."""
    whole = np.dtype(f"u{before.itemsize}")
    shift = 8 * before.itemsize - 32
    patterns = [int(a ^ b) for a, b in zip(before.view(whole), after.view(whole), strict=True) if a != b]
    return [[bit - shift for bit in range(64) if pattern >> bit & 1] for pattern in patterns]


class TestSteps:
    @pytest.mark.parametrize(
        ("when", "steps"),
        [
            ({}, range(12)),
            ({"at": 3}, [3]),
            ({"at": (3, 5)}, [3, 5]),
            ({"every": 5}, [0, 5, 10]),
            ({"every": 5, "start": 1}, [1, 6, 11]),
            ({"start": 4, "until": 6}, [4, 5]),
            ({"every": 2, "start": 4, "until": 9}, [4, 6, 8]),
        ],
    )
    def test_a_fault_takes_place_at_its_steps(self, when, steps):
        fault = rows.Nan(worker=1, **when)
        assert [step for step in range(12) if fault.active(step)] == list(steps)

    @pytest.mark.parametrize(
        "when", [{"at": -1}, {"at": ()}, {"every": 0}, {"until": 3, "start": 3}, {"at": 3, "every": 2}]
    )
    def test_steps_that_cannot_be_are_refused(self, when):
        with pytest.raises(ValueError, match="nan"):
            hb.Faults().nan(worker=1, **when)

    @pytest.mark.parametrize("when", [{"at": 1.5}, {"at": True}, {"every": "2"}])
    def test_steps_that_are_no_whole_numbers_are_refused(self, when):
        with pytest.raises(TypeError, match=r"nan: .* must be a whole number"):
            hb.Faults().nan(worker=1, **when)


class TestText:
    ALL = (
        hb.Faults()
        .nan(worker=3, at=10)
        .infinite(worker=3, count=2, at=(1, 2))
        .zero(worker=0, until=4)
        .constant(worker=1, value=-1.0)
        .scale(worker=1, factor=0.5)
        .flip_sign(worker=2, start=2)
        .perturb(worker=2, scale=0.01, seed=4)
        .stale(worker=4, age=3)
        .bitflip(worker=5, bit=30, every=7)
        .bitflip(worker=5, bit=(0, 31), count=3, coordinate=8)
        .burst(worker=2, length=8, period=4, highest=22)
        .corrupt(worker=2, every=3, seed=1)
        .attack(worker=1, attack="gaussian:std=10")
        .slow(rank=1, seconds=2)
        .stall(rank=2, at=20)
        .freeze(rank=2, at=20)
        .kill(rank=1, signal="SEGV", at=30)
        .leave(rank=1, code=3, at=30)
        .fail(rank=1, at=30)
        .flip_parameter(rank=2, bit=0, tensor=1, element=2, at=40)
        .flip_state(rank=2, at=40)
        .lie_as_aggregator(rank=2, factor=-1)
        .tamper_as_relay(rank=1, victim=0)
    )

    def test_every_kind_has_a_method_of_its_name_and_stands_in_the_script_above(self):
        assert {fault.name for fault in self.ALL.faults} == set(KINDS)
        assert all(callable(getattr(hb.Faults, name)) for name in KINDS)

    def test_repr_round_trips(self):
        assert hb.Faults.parse(repr(self.ALL)) == self.ALL
        assert hb.Faults.parse("; ".join(str(fault) for fault in self.ALL.faults)) == self.ALL
        assert pickle.loads(pickle.dumps(self.ALL)) == self.ALL

    def test_defaults_are_left_out_and_each_call_returns_another_value(self):
        first = hb.Faults()
        second = first.bitflip(worker=5, bit=30, every=7)
        assert repr(first) == "Faults()"
        assert repr(second) == "Faults().bitflip(worker=5, bit=30, every=7)"
        assert not first
        assert second

    @pytest.mark.parametrize("text", ["", " \n", "Faults()"])
    def test_no_faults(self, text):
        assert hb.Faults.parse(text) == hb.Faults()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("nan(worker=3", "cannot be read"),
            ("nam(worker=3)", "did you mean 'nan'"),
            ("nan(3)", "name its arguments"),
            ("nan(**{'worker': 3})", "name its arguments"),
            ("nan(worker=3, ta=1)", "no argument ta: it takes worker, count, at, every"),
            ("nan()", "needs worker"),
            ("nan(worker=__import__('os').getpid())", "must be numbers, tuples or quoted text"),
            ("nan(worker=n)", "must be numbers"),
            ("import os", "is no fault"),
            ("nan", "is no fault"),
            ("x = nan(worker=3)", "is no fault"),
            ("Faults(1).nan(worker=3)", "unknown fault 'Faults'"),
            ("(lambda: nan)(worker=3)", "is no fault"),
            ("kill(rank=1)", "needs the step"),
            ("kill(rank=1, at=3, signal='HUP')", "signal must be one of KILL"),
            ("nan(worker=-1)", "worker must be >= 0"),
            ("bitflip(worker=1, bit=32)", "bit must be in 0..31"),
            ("bitflip(worker=1, bit=(1, 1))", "bit must be in 0..31"),
            ("burst(worker=1, length=0)", "length must be >= 1"),
            ("slow(rank=1, seconds=-1)", "seconds must be finite and >= 0"),
            ("scale(worker=1, factor='2')", "factor must be a number"),
            ("constant(worker=1, value=1e999)", "value must be finite"),
            ("tamper_as_relay(rank=1, victim=1)", "victim must be another rank"),
            ("attack(worker=1, attack='gausian')", "did you mean 'gaussian'"),
            ("attack(worker=1, attack='omniscient')", "needs more than a worker's own row"),
            ("\0", "cannot be read"),
        ],
    )
    def test_other_text_is_refused(self, text, message):
        with pytest.raises(ValueError, match="fault") as caught:
            hb.Faults.parse(text)
        assert message in str(caught.value)

    def test_bad_arguments_of_a_call_are_refused(self):
        with pytest.raises(TypeError, match="nan has no argument step: it takes worker, count, at"):
            hb.Faults().nan(worker=3, step=4)
        with pytest.raises(TypeError, match="build them by calls"):
            hb.Faults(("nan",))


class TestRows:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(
        ("kind", "value"), [(rows.Nan, np.nan), (rows.Infinite, np.inf), (rows.Zero, 0.0)]
    )
    def test_written_values(self, kind, value, dtype):
        _, after = struck(kind(worker=0), dtype)
        np.testing.assert_array_equal(after, np.full(D, value, dtype))
        before, after = struck(kind(worker=0, count=3), dtype)
        where = changed(before, after)
        assert len(where) == 3
        np.testing.assert_array_equal(after[where], np.full(3, value, dtype))

    def test_arithmetic(self):
        before, after = struck(rows.Constant(worker=0, value=-1))
        np.testing.assert_array_equal(after, np.full(D, -1, np.float32))
        before, after = struck(rows.Scale(worker=0, factor=0.5))
        np.testing.assert_array_equal(after, before / 2)
        before, after = struck(rows.FlipSign(worker=0))
        np.testing.assert_array_equal(after, -before)
        before, after = struck(rows.Perturb(worker=0, scale=1e-3))
        relative = after / before - 1
        assert 0.5e-3 < relative.std() < 2e-3

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("bit", [0, 22, 30, 31, (0, 23, 31)])
    def test_a_bit_of_one_value(self, dtype, bit):
        before, after = struck(silent.Bitflip(worker=0, bit=bit), dtype)
        (several,) = flipped(before, after)
        assert several == list(bit if isinstance(bit, tuple) else [bit])
        if bit == 31:
            where = changed(before, after)
            assert after[where] == -before[where]

    def test_a_broken_cell_is_hit_at_every_step_and_others_move(self):
        fixed = silent.Bitflip(worker=0, bit=3, coordinate=D - 2, count=5)
        assert [list(changed(*struck(fixed, step=s))) for s in (0, 1)] == [[D - 2, D - 1]] * 2
        drawn = silent.Bitflip(worker=0, bit=3, count=4)
        assert list(changed(*struck(drawn, step=0))) != list(changed(*struck(drawn, step=1)))
        assert list(changed(*struck(drawn, step=1))) == list(changed(*struck(drawn, step=1)))
        with pytest.raises(ValueError, match=f"d = {D} values"):
            struck(silent.Bitflip(worker=0, bit=3, coordinate=D))

    @pytest.mark.parametrize("period", [1, 7])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_burst(self, period, dtype):
        before, after = struck(silent.Burst(worker=0, length=16, period=period, highest=22), dtype)
        where = changed(before, after)
        assert len(where) == 16
        assert set(np.diff(where)) == {period}
        several = flipped(before, after)
        assert {len(bits) for bits in several} - {1}
        assert all(1 <= len(bits) <= 8 and max(bits) <= 22 for bits in several)

    def test_a_burst_longer_than_the_row_hits_all_of_it(self):
        assert len(changed(*struck(silent.Burst(worker=0, length=10 * D)))) == D

    def test_under_half_of_a_bursts_values_have_one_bit_flipped(self):
        several = [f for s in range(40) for f in flipped(*struck(silent.Burst(worker=0, length=64), step=s))]
        share = np.mean([len(bits) == 1 for bits in several])
        assert 0.36 < share < 0.44  # 2,560 values: three standard deviations are 0.03

    def test_corruption_as_published(self):
        outcomes = [struck(silent.Corrupt(worker=0), step=step) for step in range(400)]
        hit = [len(changed(*outcome)) for outcome in outcomes]
        assert min(hit) >= 1
        single = [outcome for outcome, n in zip(outcomes, hit, strict=True) if n == 1]
        one_bit = sum(len(flipped(*outcome)[0]) == 1 for outcome in single)
        assert 0.31 < one_bit / 400 < 0.47
        assert 0.2 < 1 - len(single) / 400 < 0.4

    def test_a_stale_row(self):
        earlier = [row(seed=k) for k in (1, 2, 3)]
        for age, want in ((1, 3), (2, 2), (9, 1)):
            _, after = struck(rows.Stale(worker=0, age=age), earlier=earlier)
            np.testing.assert_array_equal(after, row(seed=want))
        before, after = struck(rows.Stale(worker=0))
        np.testing.assert_array_equal(before, after)

    def test_an_attack_by_name(self):
        _, after = struck(rows.Attack(worker=0, attack="constant:value=-2"))
        np.testing.assert_array_equal(after, np.full(D, -2, np.float32))
        first, second = (struck(rows.Attack(worker=0, attack="gaussian", seed=s))[1] for s in (0, 1))
        assert not np.array_equal(first, second)


class TestBits:
    @pytest.mark.parametrize(
        ("size", "bit", "want"), [(4, 0, 1), (8, 0, 1 << 32), (2, 16, 1), (2, 31, 1 << 15)]
    )
    def test_bits_count_from_the_sign(self, size, bit, want):
        assert bits.mask([bit], size) == want

    def test_half_precision_has_no_low_bits(self):
        with pytest.raises(ValueError, match=r"no bit 15: its bits are 16\.\.31"):
            bits.mask([15], 2)


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


def batch(step):
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(step))


def train(optimizer, net, steps=3):
    for step in range(steps):
        optimizer.zero_grad()
        net(batch(step)).square().mean().backward()
        optimizer.step()


def wrapped(net, **options):
    return hb.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), **options)


def flat(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


class TestMemory:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_one_bit_of_one_element_of_one_parameter(self, dtype):
        net = model().to(dtype)
        before = [p.detach().clone() for p in net.parameters()]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        where = ranks.FlipParameter(rank=0, bit=31, tensor=2, element=5, at=0).flip(optimizer, 0)
        assert where == (2, 5)
        for i, (old, new) in enumerate(zip(before, net.parameters(), strict=True)):
            old.reshape(-1)[5 if i == 2 else slice(0, 0)] *= -1
            assert torch.equal(old, new), i

    def test_twice_is_never(self):
        net = model()
        optimizer, before = torch.optim.SGD(net.parameters()), flat(net)
        fault = ranks.FlipParameter(rank=0, bit=(0, 30), at=0)
        assert fault.flip(optimizer, 7) == fault.flip(optimizer, 7)
        assert torch.equal(flat(net), before)

    def test_the_optimizers_state(self):
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        fault = ranks.FlipState(rank=0, bit=31, tensor=1, element=0, at=0)
        with pytest.raises(ValueError, match="there is no tensor at this step"):
            fault.flip(optimizer, 0)
        train(optimizer, net, 1)
        momentum = optimizer.state[net[0].bias]["momentum_buffer"]
        before = momentum.clone()
        fault.flip(optimizer, 1)
        before[0] *= -1
        assert torch.equal(momentum, before)

    @pytest.mark.parametrize("which", [{"tensor": 9}, {"tensor": 0, "element": 99}])
    def test_memory_that_is_not_there_is_refused(self, which):
        fault = ranks.FlipParameter(rank=0, at=0, **which)
        with pytest.raises(ValueError, match="must be below"):
            fault.flip(torch.optim.SGD(model().parameters()), 0)


class TestInARun:
    def test_around_returns_the_optimizer_and_an_empty_script_ends_the_rehearsal(self):
        net, plain = model(), model()
        optimizer = wrapped(net)
        assert hb.Faults().scale(worker=0, factor=2).around(optimizer) is optimizer
        hb.Faults().around(optimizer)
        train(optimizer, net)
        train(torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9), plain)
        assert torch.equal(flat(net), flat(plain))

    def test_faults_take_place_at_their_step_in_the_order_written(self):
        net = model()
        optimizer = wrapped(net)
        hb.Faults().constant(worker=0, value=3, at=1).scale(worker=0, factor=2, at=1).around(optimizer)
        values = []
        for _ in range(3):
            train(optimizer, net, 1)
            values.append(optimizer.last.value.copy())
        np.testing.assert_array_equal(values[1], np.full_like(values[1], 6))
        assert np.std(values[0]) > 0
        assert np.std(values[2]) > 0

    def test_the_environment_variable_does_it_without_a_change_to_the_script(self, monkeypatch, caplog):
        monkeypatch.setenv("HOROVOD_BYZ_FAULTS", "nan(worker=0, at=1)")
        net = model()
        optimizer = wrapped(net)
        with pytest.warns(UserWarning, match="step left out"):
            train(optimizer, net)
        assert optimizer.ledger.account(0).reasons == {"non-finite": 1}
        assert torch.isfinite(flat(net)).all()
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert any(
            "faults are injected into this run on purpose: Faults().nan(worker=0, at=1)" in s for s in said
        )
        assert any("step 1: injected nan(worker=0, at=1)" in s for s in said)

    def test_a_fault_is_announced_loudly_once(self, caplog):
        net = model()
        optimizer = hb.Faults().scale(worker=0, factor=2).around(wrapped(net))
        train(optimizer, net, 4)
        assert sum("injected scale" in record.getMessage() for record in caplog.records) == 1

    def test_text_of_the_environment_that_cannot_be_read_is_refused(self, monkeypatch):
        monkeypatch.setenv("HOROVOD_BYZ_FAULTS", "nan(worker=0")
        with pytest.raises(ValueError, match=r"HOROVOD_BYZ_FAULTS: faults .* cannot be read"):
            wrapped(model())

    @pytest.mark.parametrize("faults", [hb.Faults().nan(worker=1), hb.Faults().kill(rank=1, at=9)])
    def test_a_worker_or_rank_that_does_not_exist_is_refused(self, faults):
        net = model()
        optimizer = faults.around(wrapped(net))
        with pytest.raises(ValueError, match=r"this job has the (worker|rank)s 0\.\.0"):
            train(optimizer, net)

    def test_another_optimizer_is_refused_with_the_remedy(self):
        with pytest.raises(TypeError, match="wrap the optimizer first"):
            hb.Faults().nan(worker=0).around(torch.optim.SGD(model().parameters()))

    def test_copies_keep_the_faults(self):
        optimizer = hb.Faults().scale(worker=0, factor=2).around(wrapped(model()))
        for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
            assert copied._faults == optimizer._faults
            assert copied._rehearsal is not None

    def test_a_stale_worker_sends_its_own_earlier_row(self):
        def sent(faults):
            net = model()
            optimizer = faults.around(wrapped(net))
            values = []
            for step in range(3):
                optimizer.zero_grad()
                net(batch(step)).square().mean().backward()
                optimizer.synchronize()
                values.append(optimizer.last.value.copy())  # no step: the model stays, only batches differ
                optimizer._hooks.reset()
            return values

        honest = sent(hb.Faults())
        stale = sent(hb.Faults().stale(worker=0))
        for got, want in zip(stale, [honest[0], honest[0], honest[1]], strict=True):
            np.testing.assert_array_equal(got, want)

    @pytest.mark.parametrize(("fault", "error"), [("fail", RuntimeError), ("leave", SystemExit)])
    def test_a_script_that_fails_or_ends(self, fault, error):
        net = model()
        optimizer = getattr(hb.Faults(), fault)(rank=0, at=1).around(wrapped(net))
        with pytest.raises(error):
            train(optimizer, net)
        assert optimizer.ledger.steps == 1

    @pytest.mark.parametrize("name", ["KILL", "TERM"])
    def test_a_process_that_is_killed(self, name):
        pid = os.fork()
        if pid == 0:
            try:
                ranks.Kill(rank=0, at=0, signal=name).happen()
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.Signals[f"SIG{name}"]

    def test_a_process_that_is_frozen(self):
        pid = os.fork()
        if pid == 0:
            try:
                ranks.Freeze(rank=0, at=0).happen()
            finally:
                os._exit(7)
        _, status = os.waitpid(pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, 0)
        assert os.WEXITSTATUS(status) == 7


def job(size, faults, monkeypatch, steps=4, **options):
    """Each rank's optimizer and model after a few steps of ranks in threads, all on the same batches."""
    here = threading.local()
    monkeypatch.setattr("horovod_byz.collect.transport.connect", lambda name, timeout: here.transport)
    monkeypatch.setattr("horovod_byz.optimizer.distributed.ranks", lambda: (here.transport.rank, size))
    models = [model() for _ in range(size)]  # torch's generator is shared by the threads

    def work(transport):
        here.transport = transport
        net = models[transport.rank]
        optimizer = faults.around(wrapped(net, check_state_every=1, **options))
        train(optimizer, net, steps)
        return optimizer, flat(net)

    return on_ranks(size, work, aborting=False)


class TestOnRanks:
    def test_the_vote_sees_what_a_broken_worker_sends(self, monkeypatch):
        """The row is hit before it is digested: nobody says that it was rewritten on its way."""
        rule = hb.Detox(hb.Redundancy(3), hb.Mean(), hb.Mean())
        clean = succeeded(job(3, hb.Faults(), monkeypatch, rule=rule))
        faulty = succeeded(job(3, hb.Faults().bitflip(worker=1, bit=0, at=2), monkeypatch, rule=rule))
        for optimizer, parameters in faulty:
            assert torch.equal(parameters, clean[0][1])
            assert [(e.step, e.reason, e.worker) for e in optimizer.ledger.evidence] == [(2, "outvoted", 1)]

    def test_a_lying_aggregator_is_outvoted(self, monkeypatch):
        faults = hb.Faults().lie_as_aggregator(rank=2, at=1)
        for optimizer, _ in succeeded(job(3, faults, monkeypatch, rule=hb.Median(), collect=hb.Sharded(3))):
            assert [(e.step, e.reason, e.rank) for e in optimizer.ledger.evidence] == [(1, "aggregate", 2)]

    def test_a_rank_that_lies_to_itself_has_another_model(self, monkeypatch):
        options = {"rule": hb.Median(), "on_state_mismatch": "stop"}
        results = job(3, hb.Faults().lie_as_aggregator(rank=2, at=1), monkeypatch, **options)
        assert {type(error).__name__ for error in results} == {"StateMismatchError"}
        assert {error.ranks for error in results} == {(2,)}

    @pytest.mark.parametrize("collect", ["symmetric", "sharded"])
    def test_a_tampering_relay_changes_nothing(self, monkeypatch, collect):
        faults = hb.Faults().tamper_as_relay(rank=1, victim=0, at=1)
        clean = succeeded(job(4, hb.Faults(), monkeypatch, rule=hb.Median(), collect=collect))
        results = succeeded(job(4, faults, monkeypatch, rule=hb.Median(), collect=collect))
        for optimizer, parameters in results:
            assert torch.equal(parameters, clean[0][1])
            kinds = {(e.step, e.kind, e.reason) for e in optimizer.ledger.evidence}
            if collect == "symmetric":
                assert kinds == {(1, "notice", "altered in transit")}

    def test_a_relay_relays_to_the_ranks_behind_it(self):
        assert ranks.TamperAsRelay(rank=1, victim=0).behind(4) == (2, 3)
        assert ranks.TamperAsRelay(rank=0, victim=2).behind(4) == (1,)
        with pytest.raises(ValueError, match="relays nothing of rank 0"):
            ranks.TamperAsRelay(rank=3, victim=0).behind(4)

    @pytest.mark.parametrize("fault", ["flip_parameter", "flip_state"])
    def test_a_flipped_bit_of_the_state_is_noticed(self, monkeypatch, fault):
        faults = getattr(hb.Faults(), fault)(rank=1, at=2)
        results = job(3, faults, monkeypatch, on_state_mismatch="stop")
        assert {type(error).__name__ for error in results} == {"StateMismatchError"}
        assert {error.ranks for error in results} == {(1,)}

    @pytest.mark.parametrize("fault", ["flip_parameter", "flip_state"])
    def test_a_flipped_bit_of_the_state_is_repaired(self, monkeypatch, fault):
        results = succeeded(job(3, getattr(hb.Faults(), fault)(rank=1, at=2), monkeypatch))
        for optimizer, parameters in results:
            assert torch.equal(parameters, results[0][1])
            assert {(e.reason, e.rank) for e in optimizer.ledger.evidence} == {("state", 1)}
