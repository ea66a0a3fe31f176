"""Collection on ranks that are threads: layouts, pieces, liars, and what a session refuses."""

from __future__ import annotations

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.collect import (
    EquivocationError,
    Layout,
    Root,
    Sharded,
    Symmetric,
    TransportError,
    bind,
    partials,
    resolve,
    split,
)
from horovod_byz.collect.protocol import pieces
from horovod_byz.collect.session import Job
from thread_ranks import collect, matrix, on_ranks_that_fail, value

COLLECTORS = [Symmetric(), Root(), Sharded()]
RULES = [hb.Mean(), hb.Median(), hb.TrimmedMean(f=1), hb.Krum(f=1), hb.Bulyan(f=1), hb.GeometricMedian()]
LAYOUTS = [(7,), (4, 3), (0, 7), (1, 5, 1), (2, 2, 0, 2, 1)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_any_layout_gives_the_bits_of_the_whole_matrix(collector, rule, layout):
    rows = matrix(7, 9001)
    before = rows.copy()
    want = hb.aggregate(rows, rule)
    for result in collect(collector, rule, rows, layout):
        np.testing.assert_array_equal(value(result), want.value)
        np.testing.assert_array_equal(result.weights, want.weights)
        assert [v.reason for v in result.verdicts] == [v.reason for v in want.verdicts]
        # Distances, norms and cosines, too, to the bit: the ledgers of all ranks name the same workers.
        assert repr(result.verdicts) == repr(want.verdicts)
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [0, 1, 4096, 4097, 12345])
@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_any_length(collector, d, dtype):
    rows = matrix(5, d, dtype)
    for result in collect(collector, hb.Median(), rows, (2, 1, 2)):
        np.testing.assert_array_equal(value(result), hb.Median()(rows))
        assert value(result).dtype == dtype


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_large_operations_are_split(collector):
    def narrow(transport):
        transport.most = 9_000

    rows = matrix(5, 20_000)
    for result in collect(collector, hb.Krum(f=1), rows, (2, 1, 2), prepare=narrow):
        np.testing.assert_array_equal(value(result), hb.Krum(f=1)(rows))


def test_pieces_cover_the_columns_once():
    assert list(pieces(10, 3, 30)) == [(0, 10)]
    assert list(pieces(10, 3, 12)) == [(0, 4), (4, 8), (8, 10)]
    assert list(pieces(3, 100, 12)) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_the_wire_acts_on_every_aggregator_alike_and_not_on_the_callers_rows(collector):
    rows = matrix(5, 9000, seed=1)
    attacked = rows.copy()
    attacked[1] += np.arange(9000, dtype=np.float32) + 1

    def wire(block, offset, d, step):
        assert d == 9000
        block[1] += np.arange(offset, offset + block.shape[1], dtype=np.float32) + (step - 1)

    for result in collect(collector, hb.Mean(), rows, (3, 2), wire, steps=3):
        np.testing.assert_array_equal(value(result), hb.Mean()(attacked))


def test_a_rewritten_row_is_fetched_directly_and_reported_on_every_rank():
    rows = matrix(6, 5000)

    def prepare(transport):
        if transport.rank == 2:  # the relay wrote into what this rank received as rank 0's rows
            transport.tamper = lambda out: out[:3].fill(666.0)

    for result in collect(Symmetric(), hb.Median(), rows, (2, 2, 2), prepare=prepare):
        np.testing.assert_array_equal(value(result), hb.Median()(rows))
        assert result.rewritten == (0, 1)


def test_a_rewritten_result_is_fetched_directly():
    rows = matrix(6, 50_000)

    def prepare(transport):
        if transport.rank == 1:
            transport.tamper = lambda out: out[-10:].fill(666.0)

    for result in collect(Sharded(), hb.Median(), rows, (2, 2, 2), prepare=prepare):
        np.testing.assert_array_equal(value(result), hb.Median()(rows))


def test_a_rank_that_gives_different_digests_is_named():
    def other_digest_for_rank_2(phase, message, to):
        if phase == "header exchange" and to == 2:
            message[-1] ^= 1
        return message

    errors = on_liars(other_digest_for_rank_2)
    assert all(isinstance(error, EquivocationError) for error in errors), errors
    assert all(1 in error.ranks for error in errors)


def on_liars(lie, rank=1):
    """What each of three ranks raises or returns when one of them lies."""
    rows = matrix(6, 100)

    def work(transport):
        session = Symmetric().session(Job(transport, rows.shape[1], rows.dtype, 2))
        if transport.rank == rank:
            transport.lie = lie
        return session.step(rows[session.workers.start : session.workers.stop], hb.Median())

    return on_ranks_that_fail(3, work)


def test_a_row_that_does_not_have_its_digest_is_named():
    def wrong_digest(phase, message, to):
        if phase == "header exchange":
            message[-1] ^= 1
        return message

    errors = on_liars(wrong_digest)
    assert all(isinstance(error, EquivocationError) and error.ranks == (1,) for error in errors), errors


def test_statistics_that_cannot_be_read_name_their_sender():
    mine = np.zeros((2, 3))
    good = partials.pack(np.ones((5, 3)))
    np.testing.assert_array_equal(partials.unpack(good, mine, 4), np.ones((5, 3)))
    assert partials.unpack(partials.pack(np.ones((0, 3))), mine, 4).shape == (0, 3)
    for bad in (good[:-1], np.append(good, np.uint8(0)), good[:0], np.full(64, 255, np.uint8)):
        with pytest.raises(TransportError, match="rank 4") as error:
            partials.unpack(bad, mine, 4)
        assert error.value.ranks == (4,)


class TestOneProcess:
    """Without a launcher a single process collects from its own workers."""

    @pytest.mark.parametrize("collector", [*COLLECTORS, "symmetric", "root", "sharded"], ids=str)
    def test_works_by_value_and_by_name(self, collector):
        rows = matrix(5, 5000)
        session = bind(collector, 5000, np.float32, 5)
        np.testing.assert_array_equal(session.step(rows, hb.Median()).value, hb.Median()(rows))
        assert (session.n, session.workers) == (5, range(5))

    def test_takes_read_only_and_strided_rows(self):
        rows = matrix(5, 6000)
        rows.flags.writeable = False
        session = bind("symmetric", 3000, np.float32, 5)
        np.testing.assert_array_equal(session.step(rows[:, ::2], hb.Mean()).value, hb.Mean()(rows[:, ::2]))

    def test_refuses_other_rows_than_were_bound(self):
        session = bind("root", 10, np.float32, 2)
        with pytest.raises(TypeError, match="dtype float32, got float64"):
            session.step(np.zeros((2, 10)), hb.Mean())
        with pytest.raises(TypeError, match="got list"):
            session.step([[0.0] * 10] * 2, hb.Mean())
        with pytest.raises(ValueError, match=r"shape \(2, 10\), got \(3, 10\)"):
            session.step(np.zeros((3, 10), np.float32), hb.Mean())
        with pytest.raises(ValueError, match="Krum"):
            session.step(np.zeros((2, 10), np.float32), hb.Krum(f=1))

    def test_refuses_what_does_not_fit_the_job(self):
        with pytest.raises(ValueError, match=r"dedicated=True. needs at least 2 ranks"):
            bind(Root(dedicated=True), 10, np.float32)
        with pytest.raises(ValueError, match="no rank holds a worker"):
            bind("root", 10, np.float32, 0)
        with pytest.raises(ValueError, match="float32 or float64"):
            bind("root", 10, np.float16)
        with pytest.raises(ValueError, match="'symmetric', 'root', 'sharded'"):
            resolve("ring")

    def test_refuses_ranks_without_horovod(self, monkeypatch):
        monkeypatch.setenv("HOROVOD_SIZE", "4")
        with pytest.raises(RuntimeError, match=r"one of 4 ranks.*hvd.init"):
            bind("root", 10, np.float32)


def test_workers_are_spread_evenly_and_counted_rank_by_rank():
    assert split(45, 4) == (12, 11, 11, 11)
    layout = Layout(split(45, 4))
    assert [layout.workers(r) for r in range(4)] == [range(12), range(12, 23), range(23, 34), range(34, 45)]


def test_collectors_are_values():
    assert Root(dedicated=True) == eval("Root(dedicated=True)")
    assert {Symmetric(), Symmetric(), Sharded()} == {Symmetric(), Sharded()}
