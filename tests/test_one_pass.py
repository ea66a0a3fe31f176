"""DETOX in one pass: the bits, weights and outvoted rows of the general way, whatever the replicas do."""

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.aggregation import engine
from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.shard import Shard
from horovod_byz.aggregation.source import Whole
from horovod_byz.kernels import vote
from horovod_byz.kernels.rows import TILE, Rows

D = 2 * TILE + 77
REDUNDANCY = hb.Redundancy(r=3)
PIPELINES = [
    (hb.Median(), hb.Mean(), 1),
    (hb.Mean(), hb.Median(), 5),
    (hb.TrimmedMean(f=1), hb.Mean(), 3),
    (hb.MeanAroundMedian(f=2), hb.Median(), 1),
    (hb.Phocas(f=2), hb.Median(), 1),
    (hb.SignMajority(), hb.SignMajority(), 5),
    (hb.Median(), hb.TrimmedMean(f=1), 5),
]


pytestmark = pytest.mark.usefixtures("level")


def honest(groups, n, dtype=np.float32, d=D):
    rng = np.random.default_rng(5)
    rows = np.empty((n, d), dtype)
    for group in groups:
        rows[list(group)] = rng.standard_normal(d).astype(dtype)
    return rows


def one_early(rows, groups):
    rows[groups[0][0], 3] += 1


def third_replica(rows, groups):
    rows[groups[1][2], D - 1] = np.nan


def another_row_of_each(rows, groups):
    for k, group in enumerate(groups):
        rows[group[k % 3], 500 * k] = -rows[group[k % 3], 500 * k] - 1


def no_majority(rows, groups):
    """Each block has a majority, and the whole rows have none."""
    rows[groups[2][0], 10] = 7
    rows[groups[2][1], 5000] = 7


def elected_nonfinite(rows, groups):
    rows[list(groups[3]), 40] = np.nan


FAULTS = [
    lambda rows, groups: None,
    one_early,
    third_replica,
    another_row_of_each,
    no_majority,
    elected_nonfinite,
]


def general(rule, rows, monkeypatch):
    out = np.empty(rows.shape[1], rows.dtype)
    with monkeypatch.context() as patch:
        patch.setattr(type(rule), "stages", lambda self, n, step: None)
        return out, engine.run(rule, Whole(Rows(rows)), out)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("pipeline", PIPELINES, ids=str)
def test_one_pass_gives_the_general_ways_bits(pipeline, fault, monkeypatch):
    inner, outer, count = pipeline
    rule = hb.Detox(REDUNDANCY, inner=inner, outer=outer, groups=count)
    groups = REDUNDANCY.groups_of(45)
    rows = honest(groups, 45)
    fault(rows, groups)
    wanted, whole = general(rule, rows, monkeypatch)
    for threads in (1, 2, 7):
        out = np.empty(D, np.float32)
        outcome = engine.run(rule, Whole(Rows(rows)), out, Shard(D, threads=threads))
        np.testing.assert_array_equal(out, wanted)
        np.testing.assert_array_equal(outcome.weights, whole.weights)
        np.testing.assert_array_equal(outcome.outvoted, whole.outvoted)
        np.testing.assert_array_equal(outcome.nonfinite, whole.nonfinite)
        engine.into(out, Whole(Rows(rows)), rule, Shard(D, threads=threads))  # lazily
        np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_vote_alone(dtype, monkeypatch):
    rule = hb.MajorityVote()
    rows = np.repeat(honest([(0,)], 1, dtype), 5, axis=0)
    rows[1, 4] = 3
    rows[4, 9000:] = np.inf
    rows[0, 100] = rows[2, 100] = rows[3, 100] = np.nan
    wanted, whole = general(rule, rows, monkeypatch)
    out = np.empty(D, dtype)
    outcome = engine.run(rule, Whole(Rows(rows)), out)
    np.testing.assert_array_equal(out, wanted)
    assert out[100] == 0
    assert list(outcome.outvoted) == list(whole.outvoted) == [1, 4]


def test_one_pass_is_taken(monkeypatch):
    """Otherwise the tests above would compare the general way with itself."""
    rule = hb.Detox(REDUNDANCY, inner=hb.Mean(), outer=hb.Median(), groups=5)
    rows = honest(REDUNDANCY.groups_of(45), 45)
    monkeypatch.setattr(hb.Detox, "decide", lambda self, statistics: pytest.fail("took the general way"))
    out = np.empty(D, np.float32)
    engine.run(rule, Whole(Rows(rows)), out)
    np.testing.assert_array_equal(out, rule(rows))


def test_a_rule_that_decides_anew_is_not_fused_as_its_parent():
    """A class derived from MajorityVote or Detox ran its parent's single pass, and never its `decide`.

    horovod_byz 0.1.0. Symptom: another `decide` changed nothing for rows in memory. Cause: the single pass
    was a method of its own, which the class inherited.
    """

    class Nothing(hb.MajorityVote):
        def decide(self, statistics):
            return Weighted.uniform(statistics.n, [])

    class Ours(hb.Detox):
        def decide(self, statistics):
            return Weighted.uniform(statistics.n, [7])

    class Younger(Ours):
        pass

    rows = honest(REDUNDANCY.groups_of(45), 45)
    assert not Nothing()(rows).any()
    for kind in (Ours, Younger):
        np.testing.assert_array_equal(
            kind(REDUNDANCY, inner=hb.Mean(), outer=hb.Median(), groups=5)(rows), rows[7]
        )


def test_a_lazy_vote_does_not_read_the_third_replica():
    rows = np.ones((6, 600), np.float32)
    rows[2] = 5  # never looked at: 0 and 1 agree
    rows[4, 599] = 5  # 3 and 4 do not: 5 is read
    groups = ((0, 1, 2), (3, 4, 5))
    assert list(vote.equal(Rows(rows), groups, lazy=True)) == [0, 0, -1, 3, 4, 3]
    assert list(vote.equal(Rows(rows), groups)) == [0, 0, 2, 3, 4, 3]


def test_groups_that_overlap_or_leave_rows_out_are_refused():
    rows, out, alone = Rows(np.ones((4, 8), np.float32)), np.empty(8, np.float32), ("median", 0)
    for groups in [((0, 1), (1, 2)), ((0, 1, 2, 3), ())]:
        with pytest.raises(ValueError, match="at most once"):
            vote.equal(rows, groups)
    with pytest.raises(IndexError, match=r"in \[0, 4\)"):
        vote.equal(rows, ((0, 4),))
    with pytest.raises(ValueError, match="hold each of 0"):
        vote.voted(rows, ((0, 1, 2),), alone, ((0,),), alone, out)
    assert list(vote.equal(rows, ((1, 3),))) == [-1, 1, -1, 1]


def test_rules_are_checked_before_anything_is_written():
    rows, out = Rows(np.ones((4, 8), np.float32)), np.full(8, 9, np.float32)
    pairs = ((0, 1), (2, 3))
    with pytest.raises(ValueError, match="0 <= f <= 0, got f = 1"):
        vote.voted(rows, pairs, ("trimmed_mean", 1), ((0, 1),), ("median", 0), out)
    with pytest.raises(ValueError, match="outer must be one of"):
        vote.voted(rows, pairs, ("median", 0), ((0, 1),), ("krum", 0), out)
    assert (out == 9).all()
