"""DETOX's vote over collected rows: Byzantine replicas neither stop nor poison it, and memory stays O(d)."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

import horovod_byz as hb
import thread_ranks
from horovod_byz.attacks import Fixed, NotANumber, Wire, Zero
from horovod_byz.collect import HeaderMismatchError, Layout, Root, Sharded, Symmetric, header
from horovod_byz.collect.session import Job
from thread_ranks import on_ranks, on_ranks_that_fail, succeeded

COLLECTORS = [Symmetric(), Root(), Root(dedicated=True), Sharded(), Sharded(replicas=3)]
REDUNDANCY = hb.Redundancy(3, seed=5)
GROUPS = REDUNDANCY.groups_of(15)
PAIRINGS = {
    "median": hb.Detox.preset("median", REDUNDANCY, 15, 2),
    "multi-krum": hb.Detox(REDUNDANCY, hb.MultiKrum(f=1), hb.Mean()),
    "sign": hb.Detox.preset("sign", REDUNDANCY, 15, 2),
    "theory": hb.Detox.preset("theory-geometric-median", REDUNDANCY, 15, 2),
}
LIARS = (GROUPS[0][1], GROUPS[3][2])


def honest(d=9001, seed=0):
    """Rows of 15 workers, equal within each group."""
    rows = np.empty((15, d), np.float32)
    for group, row in zip(GROUPS, np.random.default_rng(seed).standard_normal((5, d)), strict=True):
        rows[list(group)] = row
    return rows


def collect(collector, rule, rows, wire=None):
    counts = (0, 5, 5, 5) if collector == Root(dedicated=True) else (4, 4, 4, 3)
    return succeeded(thread_ranks.collect(collector, rule, rows, counts, wire))


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("attack", [NotANumber(), Zero()], ids=repr)
def test_nan_and_useless_rows_change_nothing_and_are_named(collector, pairing, attack):
    rows, rule = honest(), PAIRINGS[pairing]
    want = rule(rows)
    for result in collect(collector, rule, rows, Wire(Fixed(LIARS), attack)):
        np.testing.assert_array_equal(result.value, want)
        assert result.outcome.outvoted.tolist() == sorted(LIARS)
        reason = "non-finite" if attack == NotANumber() else "outvoted"
        assert {v.worker: v.reason for v in result.verdicts if v.suspect} == dict.fromkeys(LIARS, reason)


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
@pytest.mark.parametrize("pairing", ["median", "multi-krum", "theory"])
def test_colluding_nan_wins_one_vote_and_still_reaches_no_model(collector, pairing):
    """Two of three replicas elect NaN; that vote is non-finite, and the rule over the votes tolerates it."""
    rows, rule = honest(), PAIRINGS[pairing]
    for result in collect(collector, rule, rows, Wire(Fixed(GROUPS[2][:2]), NotANumber())):
        assert np.isfinite(result.value).all()
        assert result.outcome.outvoted.tolist() == [GROUPS[2][2]]  # as the theory says, the honest one
        assert np.abs(result.value).max() <= np.abs(rows).max()


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_without_a_majority_the_vote_is_zero_never_a_minoritys_row(collector):
    rows, rule = honest(), hb.Detox(REDUNDANCY, hb.Mean(), hb.Mean())
    rows[GROUPS[1][0]] = np.nan
    rows[GROUPS[1][1]] = 7.0
    want = honest()
    want[list(GROUPS[1])] = 0.0
    for result in collect(collector, rule, rows):
        np.testing.assert_array_equal(result.value, rule(want))
        assert set(result.outcome.outvoted.tolist()) == set(GROUPS[1])


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_a_gradient_of_another_batch_length_is_outvoted(collector):
    torch.manual_seed(0)
    net = torch.nn.Linear(20, 3)
    x, y = torch.randn(5, 12, 20), torch.randint(3, (5, 12))

    def row(group, length):
        loss = torch.nn.functional.cross_entropy(net(x[group, :length]), y[group, :length])
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(net.parameters()))]).numpy()

    rows = np.empty((15, 63), np.float32)
    for group, workers in enumerate(GROUPS):
        for worker in workers:
            rows[worker] = row(group, 12)
    want = PAIRINGS["median"](rows)
    for worker, length in zip(LIARS, (11, 1), strict=True):
        rows[worker] = row([GROUPS[0], GROUPS[3]].index(next(g for g in GROUPS if worker in g)) * 3, length)
    for result in collect(collector, PAIRINGS["median"], rows):
        np.testing.assert_array_equal(result.value, want)
        assert result.outcome.outvoted.tolist() == sorted(LIARS)


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_one_flipped_mantissa_bit_is_seen_and_changes_nothing(collector):
    rows = honest()
    want = PAIRINGS["multi-krum"](rows)
    rows[LIARS[1]].view(np.uint32)[8999] ^= 1
    for result in collect(collector, PAIRINGS["multi-krum"], rows):
        np.testing.assert_array_equal(result.value, want)
        assert result.outcome.outvoted.tolist() == [LIARS[1]]


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_a_rank_that_announces_a_row_of_another_length_is_named(collector):
    """Before anything large is sent, on every rank, while Horovod would shift the rows of later ranks."""

    def longer(phase, message, to):
        if phase != "header exchange":
            return message
        return replace(header.unpack(message), length=9002).pack()

    rows = honest()

    def work(transport):
        layout = Layout((0, 5, 5, 5))
        workers = layout.workers(transport.rank)
        session = collector.session(Job(transport, 9001, np.float32, layout))
        if transport.rank == 2:
            transport.lie = longer
        return session.step(rows[workers.start : workers.stop], PAIRINGS["median"])

    for error in on_ranks_that_fail(4, work):
        assert isinstance(error, HeaderMismatchError), error
        assert "rank 2: length 9002 where most have 9001" in str(error)
        assert error.ranks == (2,)


def test_a_rank_that_sends_less_than_it_announced_is_named():
    rows = honest()

    def work(transport):
        session = Sharded().session(Job(transport, 9001, np.float32, 5))
        if transport.rank == 1:
            whole = transport.start

            def less(send, splits, out, expected, phase):
                splits = [max(splits[0] - 3, 0), *splits[1:]]
                return whole(send[3:], splits, out, expected, phase)

            transport.start = less
        workers = session.workers
        return session.step(rows[workers.start : workers.stop], PAIRINGS["median"])

    errors = on_ranks(3, work)
    assert isinstance(errors[0], HeaderMismatchError), errors[0]
    assert errors[0].ranks == (1,)
    assert "sent another length in the exchange of shards" in str(errors[0])


@pytest.mark.parametrize("rule", [hb.Mean(), hb.Median()], ids=repr)
def test_memory_per_rank_of_sharded_detox_does_not_grow_with_the_workers(rule):
    """With three times the workers, one per rank, a rank needs no more; O(n d) would be three times."""

    def peak(size, d=200_000):
        row = np.ones((1, d), np.float32)
        detox = hb.Detox(hb.Redundancy(3), rule, hb.Median(), groups=2)
        held = [0] * size

        def work(transport):
            session = Sharded().session(Job(transport, d, np.float32))
            arrays = [a for a in vars(session).values() if isinstance(a, np.ndarray)]
            held[transport.rank] = sum(a.nbytes for a in arrays)
            return session.step(row, detox)

        tracemalloc.start()
        succeeded(on_ranks(size, work))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest / size, max(held) / row.nbytes

    few, _ = peak(6)
    many, held = peak(18)
    assert held < 2.3  # the row itself is the caller's
    assert many < 1.25 * few
