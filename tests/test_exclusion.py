"""Excluding workers equals the rule on the other rows, bit for bit: whole, sharded, streamed and packed."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import horovod_byz as hb
from cases import every_rule
from horovod_byz.aggregation import engine
from horovod_byz.aggregation import rows as reading
from horovod_byz.collect import HeaderMismatchError, Root, Sharded, SignCompression, Symmetric
from horovod_byz.collect.session import Job
from horovod_byz.kernels.rows import TILE
from horovod_byz.rules import Without, excluding, whole
from thread_ranks import collect, on_ranks_that_fail, succeeded

N, D = 15, 3 * TILE + 7
GONE = (2, 9)
KEPT = [worker for worker in range(N) if worker not in GONE]
FIVES = hb.Redundancy(groups=tuple(tuple(range(k, N, 3)) for k in range(3)), r=5)
PLAIN = [
    *every_rule(f=2),
    hb.Hierarchical(hb.Mean(), hb.Median(), groups=3),
    hb.Hierarchical(hb.MultiKrum(f=1), hb.Mean(), groups=2, partition="step"),
]
COLLECTORS = [Symmetric(), Root(), Sharded(), Sharded(replicas=3)]


def rows(dtype=np.float32):
    """Byzantine rows among those that remain and those that do not."""
    x = np.random.default_rng(5).standard_normal((N, D)).astype(dtype)
    x[2] = 1e30
    x[9, 17] = np.nan
    x[4] *= 50
    x[6, D - 1] = np.inf
    return x


def replicas(dtype=np.float32):
    """Three groups of five, in which excluded and other workers flip a bit."""
    batches = np.random.default_rng(6).standard_normal((3, D)).astype(dtype)
    x = batches[np.arange(N) % 3]
    x[2, D - 1] *= -1
    x[5, 3] *= 2
    return x


def same_bits(a, b):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", PLAIN, ids=repr)
def test_it_is_the_rule_on_the_other_rows(rule, dtype):
    x = rows(dtype)
    got, want = hb.aggregate(x, Without(rule, GONE), step=3), hb.aggregate(x[KEPT], rule, step=3)
    same_bits(got.value, want.value)
    np.testing.assert_array_equal(got.weights[KEPT], want.weights)
    assert not got.weights[list(GONE)].any()
    assert [v.nonfinite for v in got.verdicts] == [int((~np.isfinite(row)).sum()) for row in x]
    for worker, verdict in zip(KEPT, want.verdicts, strict=True):
        np.testing.assert_equal(got.verdicts[worker].distance, verdict.distance)


@pytest.mark.parametrize("rule", PLAIN, ids=repr)
def test_any_worker_and_any_set_of_workers_may_go(rule):
    draws = np.random.default_rng(0)
    x = rows(np.float64)[:, :40]
    sets = [(worker,) for worker in range(N)]
    sets += [tuple(draws.choice(N, size, replace=False)) for size in (2, 2, 3, 3, 3)]
    for gone in sets:
        kept = np.setdiff1d(np.arange(N), gone)
        if not Without(rule, gone).defined_for(N):
            assert not rule.defined_for(len(kept))
            continue
        same_bits(Without(rule, gone)(x), rule(x[kept]))
        assert Without(rule, gone).max_byzantine(N) == rule.max_byzantine(len(kept))


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
@pytest.mark.parametrize("rule", [hb.Median(), hb.MultiKrum(f=2), hb.GeometricMedian(), PLAIN[-1]], ids=repr)
def test_every_way_to_collect_gives_the_same_bits(collector, rule):
    x = rows()
    want = rule(x[KEPT]) if rule != PLAIN[-1] else hb.aggregate(x[KEPT], rule, step=0).value
    for result in succeeded(collect(collector, Without(rule, GONE), x, (3,) * 5)):
        same_bits(result.value, want)
        assert result.excluded == GONE
        assert [v.worker for v in result.verdicts] == list(range(N))
        assert result.verdicts[2].reason == "far"
        assert result.verdicts[9].reason == "non-finite"


def test_streamed_in_blocks_and_from_half_precision():
    x = np.clip(rows(), -6e4, 6e4).astype(np.float16)
    same_bits(Without(hb.MultiKrum(f=2), GONE)(x), hb.MultiKrum(f=2)(x[KEPT]))
    source, _ = reading.read(rows())
    out = np.empty(D, np.float32)
    engine.into(out, source, Without(hb.Median(), GONE), engine.whole(source, 0, 2))
    same_bits(out, hb.Median()(rows()[KEPT]))


@pytest.mark.parametrize("rule", [hb.SignMajority(), hb.Median(), hb.Krum(f=2)], ids=repr)
def test_packed_signs(rule):
    x = np.sign(np.random.default_rng(1).standard_normal((N, 100))).astype(np.float32)
    for result in succeeded(
        collect(Sharded(), Without(rule, GONE), x, (3,) * 5, compression=SignCompression())
    ):
        same_bits(result.value, rule(x[KEPT]))


def test_no_row_is_copied():
    """The kernels get pointers to the rows that remain: the peak of new memory is far below a row."""
    x = np.ones((N, 200 * TILE), np.float32)
    out = np.empty(x.shape[1], np.float32)
    source, _ = reading.read(x)
    tracemalloc.start()
    engine.into(out, source, Without(hb.Krum(f=2), GONE), engine.whole(source, 0, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < out.nbytes


VOTES = [
    hb.MajorityVote(),
    hb.Detox(FIVES, hb.Mean(), hb.Mean()),
    hb.Detox(FIVES, hb.Mean(), hb.Median(), groups=3),
    hb.Detox(FIVES, hb.Median(), hb.Mean(), vote=hb.MajorityVote(lazy=True)),
    hb.Detox(FIVES, hb.Median(), hb.Mean(), vote=hb.MajorityVote(tolerance=1e-6)),
]


def renumbered(rule):
    """The rule over the rows that remain, with the groups written down by hand."""
    if not isinstance(rule, hb.Detox):
        return rule
    left = tuple(tuple(KEPT.index(w) for w in group if w not in GONE) for group in FIVES.groups)
    assert sorted(map(len, left)) == [4, 4, 5]
    return replace(rule, redundancy=hb.Redundancy(r=5, groups=left))


@pytest.mark.parametrize("rule", VOTES, ids=repr)
@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_groups_shrink_and_their_excluded_members_are_still_judged(rule, collector):
    x = replicas()
    if rule == hb.MajorityVote():
        x[:] = x[0]
        x[2, D - 1] *= -1
        x[5, 3] *= 2
    want = hb.aggregate(x[KEPT], renumbered(rule))
    for result in succeeded(collect(collector, Without(rule, GONE), x, (3,) * 5)):
        same_bits(result.value, want.value)
        np.testing.assert_array_equal(result.weights[KEPT], want.weights)
        # Worker 2 was excluded and still flips a bit, 9 was excluded and is clean, 5 flips a bit.
        reasons = {v.worker: v.reason for v in result.verdicts if v.reason}
        assert reasons[5] == "outvoted"
        assert reasons[2] == "outvoted"
        assert 9 not in reasons


def test_draco_by_repetition_goes_on_and_by_a_cyclic_code_does_not():
    rule = hb.Draco(f=2)
    groups = rule.redundancy.groups_of(N)
    x = np.empty((N, 10))
    for k, group in enumerate(groups):
        x[list(group)] = k
    gone = (groups[0][1], groups[1][2])
    x[list(gone)] = 666
    result = hb.aggregate(x, Without(rule, gone))
    np.testing.assert_array_equal(result.value, np.ones(10))
    assert [result.verdicts[worker].reason for worker in gone] == ["outvoted"] * 2
    with pytest.raises(
        ValueError, match="without worker 3 of 15: the cyclic code needs a row of every worker"
    ):
        Without(hb.Draco(f=2, code="cyclic"), (3,)).check(N)


@pytest.mark.parametrize(
    ("rule", "gone", "words"),
    [
        (hb.Krum(f=3), (0, 1, 2, 3, 4, 5, 6), r"without workers 0, .*Krum\(f=3\) needs n > 2f \+ 2"),
        (hb.Detox(hb.Redundancy(r=3), hb.Mean(), hb.Mean()), (0,), "keeps 2 of its 3 replicas.*r=5"),
        (hb.Detox(FIVES, hb.Mean(), hb.Mean()), (0, 3, 6), "keeps 2 of its 5 replicas.*r=7"),
        (hb.Detox(FIVES, hb.Mean(), hb.Mean()), FIVES.groups[0], "keeps 0 of its 5 replicas"),
        (hb.MajorityVote(), tuple(range(13)), "keeps 2 of its 15 replicas"),
        (hb.Median(), (15,), "worker 15 cannot be excluded: there are 15 workers"),
        (hb.Hierarchical(hb.Mean(), hb.Median(), groups=5), tuple(range(11)), "needs at least 5 rows"),
    ],
)
def test_what_the_rest_is_too_small_for_is_refused(rule, gone, words):
    with pytest.raises(ValueError, match=words):
        Without(rule, gone)(rows())
    assert Without(rule, gone).max_byzantine(N) == -1
    assert not Without(rule, gone).defined_for(N)


def test_all_rows_excluded_is_refused():
    with pytest.raises(ValueError, match="all 15 workers are excluded"):
        Without(hb.Mean(), tuple(range(N)))(rows())


def test_groups_of_one_member_go_with_it():
    rule = hb.Detox(hb.Redundancy(r=1), hb.Median(), hb.Mean())
    same_bits(Without(rule, GONE)(rows()), hb.Median()(rows()[KEPT]))


def test_a_rule_of_ones_own_with_groups_must_say_how_they_shrink():
    class Own(hb.Rule):
        redundancy = hb.Redundancy(r=3)

        def max_byzantine(self, n):
            return 0

        def decide(self, statistics):
            raise AssertionError

    with pytest.raises(ValueError, match=r"Own has redundancy groups.*define without\(workers, n\)"):
        Without(Own(), (1,)).check(9)


def test_it_is_a_value():
    rule = Without(hb.Krum(f=1), (4, 2, np.int64(2)))
    assert rule.workers == (2, 4)
    assert eval(repr(rule), {**vars(hb), "Without": Without}) == rule
    assert excluding(hb.Krum(f=1), ()) == hb.Krum(f=1)
    assert whole(rule) == whole(hb.Krum(f=1)) == hb.Krum(f=1)
    assert rule.max_byzantine(7) == 1
    with pytest.raises(TypeError, match="workers must be a whole number"):
        Without(hb.Mean(), ("a",))


def test_ranks_that_exclude_others_are_named_at_the_next_exchange():
    x = rows()[:5]

    def work(transport):
        session = Symmetric().session(Job(transport, D, np.float32))
        rule = Without(hb.Median(), (4,) if transport.rank == 1 else (2,))
        return session.step(x[transport.rank : transport.rank + 1], rule)

    for error in on_ranks_that_fail(5, work):
        assert isinstance(error, HeaderMismatchError), error
        assert error.ranks == (1,)


def test_an_excluded_rows_overflow_is_nobodys():
    """Two of five are excluded and send NaN, and one more does: no majority of those that count."""
    x = np.ones((5, 10), np.float32)
    x[[0, 1, 2], 3] = np.nan
    (result, *_) = succeeded(collect(Symmetric(), Without(hb.Median(), (0, 1)), x, (1,) * 5))
    assert not result.overflowed
    (result, *_) = succeeded(collect(Symmetric(), hb.Median(), x, (1,) * 5))
    assert result.overflowed
