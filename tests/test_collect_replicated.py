"""Sharded collection whose shards are aggregated by several ranks each, some of them wrong."""

from __future__ import annotations

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.collect import (
    EquivocationError,
    Sharded,
    bind,
)
from horovod_byz.collect.session import Job
from thread_ranks import matrix, on_ranks_that_fail, value

RULES = [hb.Mean(), hb.Median(), hb.TrimmedMean(f=1), hb.Krum(f=1), hb.Bulyan(f=1), hb.GeometricMedian()]


def spoil(block, offset, d, step):
    block[:3] = 7.0  # so the statistics and the results of the aggregator are wrong


class TestReplicas:
    """Sharded(replicas=3) on four ranks, one of which aggregates wrongly."""

    ROWS = matrix(7, 30_000)

    def collect(self, liar, rule=hb.Krum(f=1), prepare=None, replicas=3):  # noqa: B008 - a frozen value
        def work(transport):
            if prepare is not None:
                prepare(transport)
            job = Job(transport, 30_000, self.ROWS.dtype, (2, 2, 2, 1))
            session = Sharded(replicas=replicas).session(job)
            mine = self.ROWS[session.workers.start : session.workers.stop]
            return session.step(mine, rule, liar if transport.rank == 1 else None)

        return on_ranks_that_fail(4, work)

    @pytest.mark.parametrize("replicas", [2, 3, 4])
    @pytest.mark.parametrize("rule", RULES, ids=repr)
    def test_the_same_bits_as_the_whole_matrix(self, rule, replicas):
        for result in self.collect(None, rule, replicas=replicas):
            np.testing.assert_array_equal(value(result), rule(self.ROWS))
            assert result.outvoted_ranks == ()

    @pytest.mark.parametrize("rule", RULES, ids=repr)
    def test_a_wrong_aggregator_is_outvoted_and_named_on_every_rank(self, rule):
        for result in self.collect(spoil, rule):
            np.testing.assert_array_equal(value(result), rule(self.ROWS))
            assert result.outvoted_ranks == (1,)

    def test_rewritten_results_are_fetched_from_another_aggregator(self):
        def prepare(transport):
            if transport.rank == 2:
                transport.tamper = lambda out: out[:20_000].fill(666.0)

        for result in self.collect(None, prepare=prepare):
            np.testing.assert_array_equal(value(result), hb.Krum(f=1)(self.ROWS))

    def test_two_replicas_detect_only(self):
        errors = self.collect(spoil, replicas=2)
        assert all(isinstance(error, EquivocationError) and 1 in error.ranks for error in errors), errors
        assert "no majority for the statistics of shard" in str(errors[0])

    def test_statistics_that_are_nonsense_lose_the_vote(self):
        def prepare(transport):
            if transport.rank == 1:
                transport.lie = nonsense

        def nonsense(phase, message, to):
            return message[: 5 * to] if phase == "exchange of statistics" else message

        for result in self.collect(None, prepare=prepare):
            np.testing.assert_array_equal(value(result), hb.Krum(f=1)(self.ROWS))
            assert result.outvoted_ranks == (1,)

    def test_needs_as_many_ranks(self):
        with pytest.raises(ValueError, match=r"replicas=3\) needs at least 3 ranks, got 1"):
            bind(Sharded(replicas=3), 10, np.float32)
        for wrong in (0, -1, 1.5):
            with pytest.raises(ValueError, match="whole number >= 1"):
                Sharded(replicas=wrong)
