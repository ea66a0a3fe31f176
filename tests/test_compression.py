"""One sign bit per coordinate on the wire: the same bits as rows of signs, in every mode."""

from __future__ import annotations

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
import torch

import horovod_byz as hb
import thread_ranks
from horovod_byz.aggregation.packed_signs import SignRows
from horovod_byz.attacks import Constant, Fixed, ReversedGradient, Wire
from horovod_byz.collect import HeaderMismatchError, Root, Sharded, SignCompression, Symmetric, bind
from horovod_byz.collect.compression import Uncompressed
from horovod_byz.collect.session import Job
from thread_ranks import on_ranks_that_fail, succeeded

SIGNS = SignCompression()
COLLECTORS = [Symmetric(), Root(), Sharded(), Sharded(replicas=3)]
LAYOUTS = [(7,), (3, 0, 4), (2, 2, 2, 1)]
JOBS = [(c, ranks) for c in COLLECTORS for ranks in LAYOUTS if len(ranks) >= getattr(c, "replicas", 1)]
RULES = [
    hb.SignMajority(),
    hb.Mean(),
    hb.Median(),
    hb.TrimmedMean(f=1),
    hb.Krum(f=1),
    hb.Bulyan(f=1),
    hb.GeometricMedian(),
    hb.BrSGD(),
    hb.MajorityVote(),
    hb.Hierarchical(hb.Mean(), hb.Median(), groups=3),
    hb.Detox(hb.Redundancy(3, groups=((0, 1, 2), (3, 4, 5, 6))), hb.SignMajority(), hb.SignMajority()),
]


def matrix(n, d, dtype=np.float32, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)
    special = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf], dtype)
    rows[0, : len(special)] = special[:d]
    return rows


def replicated(groups, d, seed=0):
    """Rows that are equal within each redundancy group."""
    rows = np.empty((sum(map(len, groups)), d), np.float32)
    for group, row in zip(groups, matrix(len(groups), d, seed=seed), strict=True):
        rows[list(group)] = row
    return rows


def collect(*args, **more):
    return thread_ranks.collect(*args, compression=SIGNS, **more)


def check(results, want):
    for result in succeeded(results):
        np.testing.assert_array_equal(result.value, want.value)
        np.testing.assert_array_equal(result.weights, want.weights)
        assert [v.reason for v in result.verdicts] == [v.reason for v in want.verdicts]


def test_the_bit_of_every_kind_of_value():
    row = np.array([[0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -1e-45, 3.0]], np.float32)
    packed = SIGNS.pack(row)
    assert packed.tolist() == [[0b01010101, 0b00000000]]
    np.testing.assert_array_equal(SignRows(packed, 9, row.dtype).values(0, 9), np.copysign(1, row))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [0, 1, 7, 8, 9, 4096, 4097, 70_000])
def test_pack_and_unpack_are_inverse_on_signs(d, dtype):
    rows = matrix(3, d, dtype)
    packed = SIGNS.pack(rows)
    assert (packed.dtype, packed.shape) == (np.uint8, (3, -(-d // 8)))
    source = SIGNS.read(packed, d, np.dtype(dtype), None)
    values = source.values(0, d)
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, np.copysign(1, rows))
    taken = source.take([2, 0])
    np.testing.assert_array_equal(taken.values(0, d), np.copysign(1, rows)[[2, 0]])
    np.testing.assert_array_equal(SIGNS.pack(values), packed)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize(("collector", "layout"), JOBS, ids=str)
def test_every_mode_gives_the_bits_of_rows_of_signs(collector, rule, layout):
    rows = matrix(7, 9001)
    before = rows.copy()
    check(collect(collector, rule, rows, layout), hb.aggregate(np.copysign(1, rows), rule))
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("rule", [hb.Krum(f=1), hb.GeometricMedian(), hb.SignMajority()], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_longer_than_a_block(rule, dtype):
    rows = matrix(5, 3 * 65_536 + 4097, dtype)
    want = hb.aggregate(np.copysign(1, rows), rule)
    for collector in COLLECTORS[:3]:
        check(collect(collector, rule, rows, (3, 2)), want)


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_detox_pairs_sign_majorities(collector):
    redundancy = hb.Redundancy(3, seed=4)
    rule = hb.Detox.preset("sign", redundancy, n=15, f=1)
    rows = replicated(redundancy.groups_of(15), 9001)
    liar = redundancy.groups_of(15)[2][1]
    wire = Wire(Fixed((liar,)), Constant(-1.0))
    honest = hb.aggregate(np.copysign(1, rows), rule)
    for result in collect(collector, rule, rows, (5, 5, 5), wire):
        np.testing.assert_array_equal(result.value, honest.value)  # the vote took out the liar
        assert result.outcome.outvoted.tolist() == [liar]
        assert set(np.unique(result.value)) <= {-1.0, 0.0, 1.0}


def test_a_tie_of_the_majority_is_0():
    rows = np.array([[1.0, -1.0, 0.0], [-1.0, -1.0, -0.0]], np.float32)
    session = bind("root", 3, np.float32, 2, compression=SIGNS)
    np.testing.assert_array_equal(session.step(rows, hb.SignMajority()).value, [0, -1, 0])


@pytest.mark.parametrize("attack", [Constant(-1.0), Constant(-100.0), ReversedGradient(100.0)], ids=repr)
@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_an_attack_sees_the_received_signs_and_has_room_for_a_bit(collector, attack):
    rows = matrix(7, 70_000)
    signs = np.copysign(1, rows)
    attack(signs, (1, 4), seed=3, step=0)
    want = hb.aggregate(np.copysign(1, signs), hb.Mean())
    check(collect(collector, hb.Mean(), rows, (3, 2, 2), Wire(Fixed((1, 4)), attack, seed=3)), want)


def test_an_attack_is_shown_each_coordinate_once_on_every_aggregator():
    seen = []

    def wire(block, offset, d, step):
        assert set(np.unique(block)) == {-1.0, 1.0}
        seen.append((offset, block.shape[1]))

    rows = matrix(3, 150_000)
    collect(Sharded(), hb.Krum(f=0), rows, (2, 1), wire)
    assert sum(width for _, width in seen) == 150_000
    assert len({offset for offset, _ in seen}) == len(seen)


def test_a_message_is_an_eighth_of_a_byte_per_coordinate():
    sent = []

    def prepare(transport):
        gather = transport.gather

        def counting(rows, out, layout):
            sent.append(rows.nbytes)
            gather(rows, out, layout)

        transport.gather = counting

    collect(Root(), hb.SignMajority(), matrix(4, 10_001), (1, 1, 1, 1), prepare=prepare)
    assert sent == [1251] * 4


def test_a_rewritten_row_is_detected_by_its_digest_and_corrected():
    rows = matrix(6, 5000)

    def prepare(transport):
        if transport.rank == 2:
            transport.tamper = lambda out: out[:3].fill(0xFF)

    results = collect(Symmetric(), hb.SignMajority(), rows, (2, 2, 2), prepare=prepare)
    check(results, hb.aggregate(np.copysign(1, rows), hb.SignMajority()))
    assert all(result.rewritten == (0, 1) for result in results)


@pytest.mark.parametrize("collector", [Symmetric(), Root(), Sharded()], ids=repr)
def test_a_rank_with_another_compression_is_named(collector):
    def work(transport):
        compression = Uncompressed() if transport.rank == 1 else SIGNS
        return collector.session(Job(transport, 100, np.float32, compression=compression))

    for error in on_ranks_that_fail(3, work):
        assert isinstance(error, HeaderMismatchError)
        assert "rank 1: dtype float32 where most have sign32" in str(error)
        assert error.ranks == (1,)


def test_aggregating_keeps_the_rows_packed():
    """Rows of 4 n d bytes would be 64 MB; packed they are 2 MB, and a block is unpacked at a time."""
    n, d = 16, 2**20
    rows = np.ones((n, d), np.float32)
    session = bind("root", d, np.float32, n, compression=SIGNS)
    session.step(rows, hb.SignMajority())
    tracemalloc.start()
    session.step(rows, hb.SignMajority())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * d // 8 + 3 * n * 65_536 * 4


class TestOptimizer:
    def make(self, **options):
        torch.manual_seed(0)
        net = torch.nn.Linear(9, 3)
        inner = torch.optim.SGD(net.parameters(), lr=0.125)
        return net, hb.DistributedOptimizer(inner, net.named_parameters(), **options)

    @pytest.mark.parametrize("collector", ["symmetric", "root", "sharded"])
    def test_the_step_is_lr_times_the_majority_sign(self, collector):
        net, optimizer = self.make(rule=hb.SignMajority(), compression=SIGNS, collect=collector)
        before = net.weight.detach().clone()
        net(torch.randn(4, 9)).square().sum().backward()
        sign = net.weight.grad.sign()
        optimizer.step()
        assert torch.equal(net.weight, before - 0.125 * sign)

    def test_is_kept_by_copies(self):
        net, optimizer = self.make(compression=SIGNS)
        assert copy.deepcopy((net, optimizer))[1].compression == SIGNS
        assert pickle.loads(pickle.dumps((net, optimizer)))[1].compression == SIGNS

    def test_refuses_other_compressions(self):
        with pytest.raises(ValueError, match=r"compression='fp16' is not supported.*hb\.HalfCompression"):
            self.make(compression="fp16")
        with pytest.raises(ValueError, match=r"compression=16 is not supported.*hb\.SignCompression"):
            bind("root", 3, np.float32, 1, compression=16)
        with pytest.raises(ValueError, match="bfloat16 or float16, got 'float8'"):
            hb.HalfCompression("float8")

    @pytest.mark.parametrize("given", ["bfloat16", hb.HalfCompression()], ids=repr)
    def test_sixteen_bits_by_name(self, given):
        net, optimizer = self.make(rule=hb.Mean(), compression=given)
        before = net.weight.detach().clone()
        net(torch.randn(4, 9)).square().sum().backward()
        rounded = net.weight.grad.bfloat16().float()
        optimizer.step()
        assert torch.equal(net.weight, before - 0.125 * rounded)
        assert copy.deepcopy((net, optimizer))[1].compression == hb.HalfCompression("bfloat16")


def rounded(rows, name):
    """Rows as 16 bits hold them, by torch, with finite values kept finite."""
    dtype = getattr(torch, name)
    limit = torch.finfo(dtype).max
    values = torch.from_numpy(rows)
    halves = torch.where(values.isfinite(), values.clamp(-limit, limit), values).to(dtype)
    return halves.to(values.dtype).numpy()


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
class TestSixteenBits:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("d", [0, 1, 9, 4097, 70_000])
    def test_values_are_rounded_and_stay_finite(self, name, dtype, d):
        half = hb.HalfCompression(name)
        rows = matrix(3, d, dtype)
        rows[1, :8] = [np.finfo(dtype).max, -3.4e38, 1e5, -65_519, 65_504, 1e-8, 1e-45, 2e-41][:d]
        packed = half.pack(rows)
        assert (packed.dtype, packed.shape) == (np.uint8, (3, 2 * d))
        source = half.read(packed, d, np.dtype(dtype), None)
        values = source.values(0, d)
        assert values.dtype == dtype
        np.testing.assert_array_equal(values, rounded(rows, name))
        np.testing.assert_array_equal(np.isfinite(values), np.isfinite(rows))
        np.testing.assert_array_equal(source.take([2, 0]).values(0, d), values[[2, 0]])
        np.testing.assert_array_equal(half.pack(values), packed)

    def test_the_stated_error(self, name):
        small, large, relative, absolute = {
            "bfloat16": (1.2e-38, 3e38, 2.0**-8, 0.0),
            "float16": (6.2e-5, 65_504.0, 2.0**-11, 2.0**-25),
        }[name]
        rng = np.random.default_rng(1)
        size = np.exp(rng.uniform(np.log(small), np.log(large), (1, 100_000)))
        rows = (size * rng.choice([-1, 1], size.shape)).astype(np.float32)
        half = hb.HalfCompression(name)
        values = half.read(half.pack(rows), rows.shape[1], rows.dtype, None).values(0, rows.shape[1])
        error = np.abs(values.astype(np.float64) - rows)
        assert (error <= relative * np.abs(rows.astype(np.float64))).all()
        assert error.max() > 0  # it does round
        tiny = np.full((1, 50), 3e-6, np.float32) * np.arange(50, dtype=np.float32)
        got = half.read(half.pack(tiny), 50, tiny.dtype, None).values(0, 50)
        assert (np.abs(got - tiny) <= np.maximum(absolute, relative * tiny)).all()

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
    @pytest.mark.parametrize("collector", COLLECTORS, ids=str)
    def test_every_mode_gives_the_bits_of_rounded_rows(self, name, rule, collector):
        half, rows = hb.HalfCompression(name), matrix(7, 9001)
        want = hb.aggregate(rounded(rows, name), rule)
        check(thread_ranks.collect(collector, rule, rows, (2, 2, 3), compression=half), want)

    @pytest.mark.parametrize("collector", COLLECTORS, ids=str)
    def test_a_replica_that_lies_by_one_bit_is_outvoted(self, name, collector):
        redundancy = hb.Redundancy(3, seed=4)
        rule = hb.Detox(redundancy, hb.Mean(), hb.Median())
        rows = replicated(redundancy.groups_of(15), 9001)
        liar = redundancy.groups_of(15)[2][1]
        rows[liar, 17] += 1.0
        half = hb.HalfCompression(name)
        for result in succeeded(thread_ranks.collect(collector, rule, rows, (5, 5, 5), compression=half)):
            assert result.outcome.outvoted.tolist() == [liar]

    def test_an_attack_sees_rounded_values_and_is_rounded(self, name):
        half, rows = hb.HalfCompression(name), matrix(7, 70_000)
        received = rounded(rows, name)
        ReversedGradient(100.3)(received, (1, 4), seed=3, step=0)
        want = hb.aggregate(rounded(received, name), hb.Median())
        wire = Wire(Fixed((1, 4)), ReversedGradient(100.3), seed=3)
        for collector in COLLECTORS:
            check(thread_ranks.collect(collector, hb.Median(), rows, (3, 2, 2), wire, compression=half), want)

    def test_memory_is_used_again_and_rows_are_not_written(self, name):
        half, rows = hb.HalfCompression(name), matrix(2, 5000)
        before = rows.copy()
        session = bind("root", 5000, np.float32, 2, compression=half)
        first = session.step(rows, hb.Mean()).value.copy()
        packed = session._packed
        second = session.step(rows[::-1], hb.Mean())
        assert session._packed is packed
        np.testing.assert_array_equal(second.value, first)  # the mean of the same rows in another order
        np.testing.assert_array_equal(rows, before)


def test_names_of_compressions_are_those_of_the_configuration():
    from horovod_byz.collect.compression import COMPRESSIONS, as_compression
    from horovod_byz.training.config import RunConfig

    for name, compression in COMPRESSIONS.items():
        assert RunConfig(compression=name).make_compression() == as_compression(name) == compression
    dtypes = [np.dtype(np.float32), np.dtype(np.float64)]
    labels = {each.label(dtype) for each in COMPRESSIONS.values() for dtype in dtypes}
    assert len(labels) == 2 * len(COMPRESSIONS)
    assert max(map(len, labels)) <= 8


def test_compressions_are_values():
    assert eval(repr(SIGNS)) == SIGNS
    assert {SIGNS, SignCompression(), Uncompressed()} == {SIGNS, Uncompressed()}
    half = hb.HalfCompression("float16")
    assert eval(repr(half), {"HalfCompression": hb.HalfCompression}) == half != hb.HalfCompression()
