"""The vote per tensor: each tensor elects for itself, in every way to collect, with the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import horovod_byz as hb
from horovod_byz.aggregation.tiles import overlaps
from horovod_byz.collect import Root, Sharded, Symmetric
from horovod_byz.kernels.rows import TILE
from horovod_byz.optimizer.rows import WorkerRows
from horovod_byz.training import config as configs
from sharding import run_sharded
from thread_ranks import collect, succeeded

EXACT = hb.MajorityVote(scope="tensor")
NEAR = hb.MajorityVote(tolerance=1e-5, scope="tensor")
# Tensors that end inside tiles, at a tile's end, and that are longer than a shard of three.
ENDS = (3, 64, TILE, TILE + 1, 9000, 9001, 40_000)
D = ENDS[-1]


def replicas(r=3, d=D, seed=0, dtype=np.float32):
    return np.tile(np.random.default_rng(seed).normal(size=d).astype(dtype), (r, 1))


def by_tensor(rows, ends):
    """Algorithm 1's vote on each tensor, in plain NumPy."""
    out, begin = np.zeros(rows.shape[1], rows.dtype), 0
    for end in ends:
        parts = [row[begin:end] for row in rows]
        for part in parts:
            if 2 * sum(part.tobytes() == other.tobytes() for other in parts) > len(parts):
                out[begin:end] = part
                break
        begin = end
    return out


def test_overlaps():
    assert overlaps((3, 5, 9), 4, 3) == [(0, 0), (0, 1), (1, 3)]
    assert overlaps((3, 5, 9), 0, 9) == [(0, 3), (3, 5), (5, 9)]


def test_faults_in_different_tensors_leave_a_majority_in_each():
    rows = replicas()
    honest = rows[0].copy()
    for row, at in ((0, 1), (1, 70), (2, 39_999)):
        rows.view(np.uint32)[row, at] ^= 1
    np.testing.assert_array_equal(hb.MajorityVote()(rows), np.zeros(D))
    result = hb.aggregate(rows, EXACT, segments=ENDS)
    np.testing.assert_array_equal(result.value, honest)
    assert [v.reason for v in result.verdicts] == ["outvoted"] * 3
    assert result.weights.sum() == pytest.approx(1)


def test_a_tensor_without_a_majority_is_zero_and_the_others_are_not():
    rows = replicas()
    rows[:, 10] = [1, 2, 3]
    result = hb.aggregate(rows, EXACT, segments=ENDS)
    np.testing.assert_array_equal(result.value[3:64], np.zeros(61))
    np.testing.assert_array_equal(result.value[64:], rows[0, 64:])


def test_two_liars_need_to_agree_in_one_tensor_only():
    """What the public code gives up: each liar differs elsewhere too, and the whole vote elects nobody."""
    rows = replicas()
    rows[:2, 64:TILE] = 9.0
    rows[0, 0], rows[1, 1] = 5.0, 6.0
    np.testing.assert_array_equal(hb.MajorityVote()(rows), np.zeros(D))
    assert (hb.aggregate(rows, EXACT, segments=ENDS).value[64:TILE] == 9.0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_equals_the_vote_on_each_tensor(seed):
    rng = np.random.default_rng(seed)
    d, r = int(rng.integers(1, 12_000)), int(rng.integers(1, 6))
    ends = sorted({*rng.integers(1, d + 1, size=rng.integers(0, 6)).tolist(), d})
    rows = replicas(r, d, seed)
    for _ in range(rng.integers(0, 6)):
        rows[rng.integers(r), rng.integers(d)] = rng.choice([0.5, np.nan, 7.0])
    want = by_tensor(rows, ends)
    value = hb.aggregate(rows, EXACT, segments=ends).value
    np.testing.assert_array_equal(value, np.where(np.isfinite(want), want, 0))
    for count in (2, 3):
        sharded, _ = run_sharded(EXACT, rows, count, segments=ends)
        np.testing.assert_array_equal(sharded, value)


def test_tolerance_by_tensor():
    """Rounding differs in every replica; one lies in a tensor, another sends NaN in another."""
    rows = replicas()
    rows *= 1 + 1e-7 * np.arange(3, dtype=np.float32)[:, None]
    honest = rows.copy()
    rows[0, 5] += 1
    rows[1, TILE] = np.nan
    result = hb.aggregate(rows, NEAR, segments=ENDS)
    begin = 0
    for end in ENDS:
        assert any(np.array_equal(result.value[begin:end], row[begin:end]) for row in honest)
        begin = end
    assert [v.reason for v in result.verdicts] == ["outvoted", "non-finite", ""]
    for count in (2, 3, 5):
        value, outcomes = run_sharded(NEAR, rows, count, segments=ENDS)
        np.testing.assert_array_equal(value, result.value)
        for outcome in outcomes:
            np.testing.assert_array_equal(outcome.weights, result.weights)


@pytest.mark.parametrize("vote", [EXACT, NEAR], ids=repr)
@pytest.mark.parametrize(
    "collector", [Symmetric(), Root(), Root(dedicated=True), Sharded(), Sharded(replicas=3)], ids=repr
)
def test_every_way_to_collect_gives_the_same_bits(collector, vote):
    redundancy = hb.Redundancy(3, seed=5)
    rule = hb.Detox(redundancy, hb.Mean(), hb.Median(), groups=3, vote=vote)
    rows = np.empty((9, D), np.float32)
    for group, seed in zip(redundancy.groups_of(9), range(3), strict=True):
        rows[list(group)] = replicas(3, D, seed)
    rows[0, 2], rows[1, TILE], rows[2, 20_000], rows[3] = 7.0, np.nan, -1.0, -rows[3]
    want = hb.aggregate(rows, rule, segments=ENDS)
    counts = (0, 3, 3, 3) if collector == Root(dedicated=True) else (3, 2, 2, 2)
    for result in succeeded(collect(collector, rule, rows, counts, segments=ENDS)):
        np.testing.assert_array_equal(result.value, want.value)
        np.testing.assert_array_equal(result.weights, want.weights)
        assert [v.reason for v in result.verdicts] == [v.reason for v in want.verdicts]
        assert {0, 1, 2, 3} <= set(result.outcome.outvoted.tolist())


def test_the_optimizer_says_where_tensors_end():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    flat = WorkerRows(list(net.parameters()), [name for name, _ in net.named_parameters()])
    assert flat.segments == (12, 15, 21, 23)
    rule = hb.Detox(hb.Redundancy(1), hb.Mean(), hb.Mean(), vote=EXACT)
    with hb.DistributedOptimizer(
        torch.optim.SGD(net.parameters(), lr=0.1), net.named_parameters(), rule=rule
    ) as optimizer:
        net(torch.ones(2, 4)).sum().backward()
        want = [p.grad.clone() for p in net.parameters()]
        optimizer.synchronize()
        assert optimizer._session.segments == flat.segments
        assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), want, strict=True))


def test_the_command_line_takes_it():
    config = configs.make(
        {"workers": 9, "redundancy": 3, "rule": "detox:inner=mean,outer=median,groups=3,scope=tensor"}
    )
    assert config.make_rule().vote == EXACT


def test_errors():
    with pytest.raises(ValueError, match=r"must know where tensors end.*segments="):
        EXACT(replicas())
    with pytest.raises(ValueError, match="scope must be"):
        hb.MajorityVote(scope="layer")
    for ends in ((3, 4), (5, 3, 6), (-1, 6), ()):
        with pytest.raises(ValueError, match="ascending up to d = 6"):
            hb.aggregate(np.zeros((3, 6)), EXACT, segments=ends)
