"""Pre-aggregation alone, and in front of rules: against definitions, by hand, and in all ways to collect."""

from __future__ import annotations

import functools
import pickle
import re

import numpy as np
import pytest
import torch

import horovod_byz as hb
import reference
from cases import DTYPES, random_case
from horovod_byz import rules
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.mixing import mixed_distances
from horovod_byz.kernels.rows import TILE
from horovod_byz.training import config as configs
from sharding import run_sharded

CASES = 1000
COUNT = np.arange(1.0, 10.0).reshape(3, 3)  # [1, 2, 3], [4, 5, 6], [7, 8, 9]


@functools.cache
def cases():
    return [
        random_case(seed, lambda f: 2 * f + 1, DTYPES[seed % 2], most_rows=8, most_coordinates=12)
        for seed in range(CASES)
    ]


def deal(seed, step, rows):
    return np.random.default_rng([seed, 0xB5, step]).permutation(len(reference.finite_rows(rows)))


MAPS = {
    "NNM": (hb.NNM, reference.nnm),
    "Bucketing": (
        lambda f: hb.Bucketing(s=2, seed=7),
        lambda rows, f: reference.bucketing(rows, 2, deal(7, 0, rows)),
    ),
    "Clipping": (lambda f: hb.Clipping(norm=2.5), lambda rows, f: reference.clipping(rows, 2.5)),
    "ARC": (hb.ARC, reference.arc),
}


def differs(value, expected, case):
    """By more than rounding of the largest value of the honest rows, or of the result."""
    honest = np.delete(case.rows, case.bad, axis=0).astype(np.float64)
    scale = max(np.abs(honest).max(initial=0.0), np.abs(expected).max(initial=0.0))
    bound = 64 * np.finfo(case.rows.dtype).eps * scale + np.finfo(case.rows.dtype).tiny
    return value.shape != expected.shape or not np.all(np.abs(value - expected) <= bound)


@functools.cache
def unclear(case, clipped=False):
    """Finite rows, by their place among them, whose n - f nearest rows rounding decides; or clipped by ARC.

    Such as a row at 1e30, from which all others are equally far in float64. Ties of small whole numbers are
    exact, and not meant.
    """
    rows, f = reference.without_nonfinite(case.rows, case.f)
    if clipped:
        rows = reference.arc(rows, f)
    ordered = np.sort(reference.squared_distances(rows), axis=1)
    if f == 0 or len(rows) <= f:
        return np.zeros(len(rows), bool)
    last, following = ordered[:, len(rows) - f - 1], ordered[:, len(rows) - f]
    exact = (last == following) & (following < 2.0**20) & case.exact & (not clipped)
    return (following - last <= 1e-5 * following) & (following > 0) & ~exact


def test_few_cases_are_unclear():
    for clipped in (False, True):
        assert sum(unclear(case, clipped).any() for case in cases()) < CASES / 3


@pytest.mark.parametrize("name", MAPS)
def test_a_map_equals_its_definition(name):
    make, yardstick = MAPS[name]
    for case in cases():
        before = case.rows.copy()
        value = make(case.f)(case.rows)
        np.testing.assert_array_equal(case.rows, before)
        assert value.dtype == case.rows.dtype
        expected = yardstick(case.rows, case.f)
        assert value.shape == expected.shape
        for mixture, wanted, rounded in zip(value, expected, unclear(case), strict=False):
            assert (name == "NNM" and rounded) or not differs(mixture, wanted, case), case


# By name: the pipeline for f, and the same from references: of the rows, f and what is not finite among them.
PIPELINES = {
    "NNM, TrimmedMean": (
        lambda f: hb.Pipeline(hb.NNM(f), hb.TrimmedMean(f)),
        lambda rows, f, lost: reference.trimmed_mean(reference.nnm(rows, f), max(f - lost, 0)),
    ),
    "NNM, Median": (
        lambda f: hb.Pipeline(hb.NNM(f), hb.Median()),
        lambda rows, f, lost: reference.median(reference.nnm(rows, f)),
    ),
    "NNM, NormBoundedMean": (
        lambda f: hb.Pipeline(hb.NNM(f), hb.NormBoundedMean(factor=1.5)),
        lambda rows, f, lost: reference.norm_bounded_mean(reference.nnm(rows, f), 1.5),
    ),
    "ARC, MeanAroundMedian": (
        lambda f: hb.Pipeline(hb.ARC(f), hb.MeanAroundMedian(f)),
        lambda rows, f, lost: reference.mean_around_median(
            reference.arc(rows, f).astype(rows.dtype), max(f - lost, 0)
        ),
    ),
    "Clipping, Mean": (
        lambda f: hb.Pipeline(hb.Clipping(2.5), hb.Mean()),
        lambda rows, f, lost: reference.mean(reference.clipping(rows, 2.5)),
    ),
    "ARC, NNM, Mean": (
        lambda f: hb.Pipeline(hb.ARC(f), hb.NNM(f), hb.Mean()),
        lambda rows, f, lost: reference.mean(reference.nnm(reference.arc(rows, f), max(f - lost, 0))),
    ),
    "Bucketing, Median": (
        lambda f: hb.Pipeline(hb.Bucketing(s=2), hb.Median()),
        lambda rows, f, lost: reference.median(reference.bucketing(rows, 2, deal(0, 0, rows))),
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_equals_its_definition(name):
    make, yardstick = PIPELINES[name]
    wrong = []
    for case in cases():
        value = make(case.f)(case.rows)
        assert np.isfinite(value).all()
        finite = len(reference.finite_rows(case.rows))
        if not finite:
            assert not value.any()
            continue
        with np.errstate(all="ignore"):
            expected = yardstick(case.rows, case.f, len(case.rows) - finite)
        if differs(value, expected, case) and not ("NNM" in name and unclear(case, "ARC" in name).any()):
            wrong.append((case, value, expected))
    assert not wrong, f"{len(wrong)} cases differ, first: {wrong[0]}"


def test_a_rule_on_distances_of_mixtures_equals_its_definition():
    """Its result is a mixture whose Krum score is the least, up to rounding of the distances."""
    for case in cases():
        value = (
            hb.Pipeline(hb.NNM(case.f), hb.Krum(case.f))(case.rows)
            if len(case.rows) > 2 * case.f + 2
            else None
        )
        mixed = reference.nnm(case.rows, case.f)
        if value is None or not len(mixed) or unclear(case).any():
            continue
        left = max(case.f - (len(case.rows) - len(mixed)), 0)
        scores = reference.krum_scores(reference.squared_distances(mixed), left)
        span = np.abs(mixed[scores <= scores.min()]).max() ** 2 * np.finfo(case.rows.dtype).eps * len(mixed)
        best = mixed[scores <= scores.min() * (1 + 1e-5) + span * mixed.shape[1]]
        assert any(not differs(value, mixture, case) for mixture in best), case


def test_distances_of_mixtures_are_those_of_the_mixtures():
    rng = np.random.default_rng(0)
    for n, k, wild in [(5, 5, 1.0), (12, 9, 1.0), (12, 12, 1e20)]:
        rows = rng.normal(size=(n, 30)) + 1e3
        rows[0] *= wild
        weights = rng.random((k, n)) * (rng.random((k, n)) < 0.6) + 1e-3
        weights[1:, 0] = 0.0  # a huge row has a part in one mixture alone
        weights /= weights.sum(axis=1, keepdims=True)
        direct = reference.squared_distances(weights @ rows)
        mixed = mixed_distances(reference.squared_distances(rows), weights)
        np.testing.assert_allclose(mixed, direct, rtol=1e-9)
        np.testing.assert_array_equal(mixed, mixed.T)


def test_equal_mixtures_are_at_distance_zero_beside_a_huge_row():
    rows = np.array([[0.0], [1.0], [3.0], [1e30]])
    weights = np.array([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 0, 1]]) / 3
    mixed = mixed_distances(reference.squared_distances(rows), weights)
    np.testing.assert_allclose(mixed, [[0, 1, 0], [1, 0, 1], [0, 1, 0]], rtol=1e-15)


def test_three_rows_by_hand():
    # The middle row is as far from the first as from the last: the lowest counts.
    np.testing.assert_allclose(hb.NNM(f=1)(COUNT), [[2.5, 3.5, 4.5], [2.5, 3.5, 4.5], [5.5, 6.5, 7.5]])
    # k = floor(2 * 1 * 2 / 3) = 1: norm sqrt(194) is cut to sqrt(77).
    np.testing.assert_allclose(hb.ARC(f=1)(COUNT), [*COUNT[:2], COUNT[2] * np.sqrt(77 / 194)], rtol=1e-14)
    np.testing.assert_allclose(
        hb.Clipping(norm=5.0)(COUNT),
        [COUNT[0], COUNT[1] * 5 / np.sqrt(77), COUNT[2] * 5 / np.sqrt(194)],
        rtol=1e-14,
    )
    np.testing.assert_allclose(hb.Pipeline(hb.NNM(f=1), hb.TrimmedMean(f=1))(COUNT), [2.5, 3.5, 4.5])
    np.testing.assert_allclose(hb.Pipeline(hb.NNM(f=1), hb.Median())(COUNT), [2.5, 3.5, 4.5])
    np.testing.assert_allclose(hb.Pipeline(hb.NNM(f=1), hb.Mean())(COUNT), [3.5, 4.5, 5.5])


def test_buckets_hold_each_row_once_and_are_dealt_anew_in_each_step():
    rows = np.eye(7)
    bucketing = hb.Bucketing(s=3, seed=1)
    mixed = bucketing(rows, step=4)
    assert mixed.shape == (3, 7)
    assert sorted((mixed > 0).sum(axis=1)) == [1, 3, 3]
    np.testing.assert_array_equal((mixed > 0).sum(axis=0), np.ones(7))
    np.testing.assert_array_equal(bucketing(rows, step=4), mixed)
    assert not np.array_equal(bucketing(rows, step=5), mixed)
    assert not np.array_equal(hb.Bucketing(s=3, seed=2)(rows, step=4), mixed)


CHAINS = [
    hb.Pipeline(hb.NNM(f=2), hb.TrimmedMean(f=2)),
    hb.Pipeline(hb.NNM(f=2), hb.MultiKrum(f=2)),
    hb.Pipeline(hb.NNM(f=2), hb.GeometricMedian()),
    hb.Pipeline(hb.NNM(f=2), hb.BrSGD()),
    hb.Pipeline(hb.NNM(f=2), hb.Bulyan(f=2)),
    hb.Pipeline(hb.NNM(f=2), hb.MoNNA(f=2, pivot=8)),
    hb.Pipeline(hb.Bucketing(s=2), hb.Krum(f=1)),
    hb.Pipeline(hb.Bucketing(s=2), hb.Median()),
    hb.Pipeline(hb.Bucketing(s=1), hb.NNM(f=2), hb.CAF(f=2)),
    hb.Pipeline(hb.ARC(f=2), hb.NNM(f=2), hb.MultiKrum(f=2)),
    hb.Pipeline(hb.Clipping(norm=100.0), hb.Krum(f=2)),
    hb.Hierarchical(hb.Pipeline(hb.NNM(f=1), hb.Median()), hb.Mean(), groups=2),
]


@pytest.mark.parametrize("rule", CHAINS, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
def test_shards_give_the_same_bits(rule, dtype):
    rows = np.random.default_rng(1).normal(size=(12, 3 * TILE + 100)).astype(dtype)
    rows[3, 17] = np.nan
    rows[7] *= 1e6
    expected = hb.aggregate(rows, rule, step=3)
    assert [v.worker for v in expected.verdicts if v.reason == "non-finite"] == [3]
    assert expected.weights[3] == 0
    for count in (2, 3):
        value, outcomes = run_sharded(rule, rows, count, step=3)
        np.testing.assert_array_equal(value, expected.value)
        for outcome in outcomes:
            np.testing.assert_array_equal(outcome.weights, expected.weights)
            assert [str(v) for v in outcome.verdicts] == [str(v) for v in expected.verdicts]


@pytest.mark.parametrize("rule", CHAINS, ids=repr)
def test_a_pipeline_is_a_value(rule):
    assert eval(repr(rule), vars(hb)) == rule
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert hash(eval(repr(rule), vars(hb))) == hash(rule)


@pytest.mark.parametrize("rule", CHAINS, ids=repr)
@pytest.mark.parametrize("bad", [np.nan, 1e200, -1e300, 1e30])
def test_wild_rows_do_not_win(rule, bad):
    rows = 1 + 0.1 * np.random.default_rng(3).standard_normal((12, 300))
    rows[[0, 7]] = bad
    if rule == hb.Pipeline(hb.Bucketing(s=2), hb.Krum(f=1)):
        rows[7] = rows[6]  # two wild rows may spoil two buckets
    if isinstance(rule, hb.Hierarchical):
        rows[7] = rows[6]
    result = hb.aggregate(rows, rule)
    assert np.abs(result.value - 1).max() < 0.5
    assert 0 in [v.worker for v in result.verdicts if v.suspect]


@pytest.mark.parametrize("rule", CHAINS, ids=repr)
def test_nothing_finite_gives_zero(rule):
    assert not rule(np.full((12, 5), np.nan)).any()


@pytest.mark.parametrize("power", [600, 1015])
@pytest.mark.parametrize("rule", [rule for rule in CHAINS if "Clipping" not in repr(rule)], ids=repr)
def test_huge_rows_are_treated_as_small_ones(rule, power):
    rows = 1 + 0.1 * np.random.default_rng(3).standard_normal((12, 300))
    rows[5] = -8.0
    want, got = hb.aggregate(rows, rule), hb.aggregate(rows * 2.0**power, rule)
    np.testing.assert_array_equal(got.weights, want.weights)
    np.testing.assert_array_equal(got.value, want.value * 2.0**power)


def test_static_clipping_of_huge_rows_keeps_its_unit():
    rows = np.random.default_rng(0).normal(size=(5, 300)) * 1e200
    clipped = hb.Clipping(norm=1e190)(rows)
    np.testing.assert_allclose(np.linalg.norm(clipped / 1e190, axis=1), 1.0)


def test_weights_are_those_of_real_workers():
    rows = np.array([[0.0], [1.0], [2.0], [3.0], [1e9]])
    result = hb.aggregate(rows, hb.Pipeline(hb.NNM(f=1), hb.Krum(f=1)))
    np.testing.assert_array_equal(result.weights, [0.25, 0.25, 0.25, 0.25, 0.0])
    np.testing.assert_allclose(result.value, [1.5])
    assert [v.worker for v in result.verdicts if v.reason == "far"] == [4]


@pytest.mark.parametrize(
    ("rule", "passes"),
    [
        (hb.Pipeline(hb.NNM(f=2), hb.MultiKrum(f=2)), ["distances"]),
        (hb.Pipeline(hb.NNM(f=2), hb.GeometricMedian()), ["distances"]),
        (hb.Pipeline(hb.NNM(f=2), hb.Median()), ["distances"]),
        (hb.Pipeline(hb.Bucketing(s=2), hb.NNM(f=1), hb.Krum(f=1)), ["distances"]),
        (hb.Pipeline(hb.Bucketing(s=2), hb.Median()), ["nonfinite"]),
        (hb.Pipeline(hb.ARC(f=2), hb.Median()), ["squared_norms"]),
        (hb.Pipeline(hb.ARC(f=2), hb.NNM(f=2), hb.Krum(f=2)), ["squared_norms", "distances"]),
    ],
    ids=repr,
)
def test_the_rows_are_measured_once(monkeypatch, rule, passes):
    """Distances between averages follow from those of the rows: no second pass over the coordinates."""
    seen, measured = [], Statistics.measured

    def counted(self, wanted):
        seen.append(wanted.name)
        return measured(self, wanted)

    monkeypatch.setattr(Statistics, "measured", counted)
    rule(np.random.default_rng(0).normal(size=(12, 50)))
    assert seen == passes


@pytest.mark.parametrize(
    ("rule", "n", "most"),
    [
        (hb.Pipeline(hb.NNM(f=2), hb.TrimmedMean(f=2)), 5, 2),
        (hb.Pipeline(hb.NNM(f=2), hb.TrimmedMean(f=2)), 4, -1),
        (hb.Pipeline(hb.NNM(f=1), hb.Krum(f=3)), 20, 1),
        (hb.Pipeline(hb.NNM(f=3), hb.Mean()), 20, 0),
        (hb.Pipeline(hb.Bucketing(s=2), hb.Median()), 20, 4),
        (hb.Pipeline(hb.Bucketing(s=2), hb.Krum(f=2)), 12, -1),
        (hb.Pipeline(hb.Bucketing(s=2), hb.Krum(f=2)), 13, 2),
        (hb.Pipeline(hb.ARC(f=2), hb.Clipping(1.0), hb.Median()), 9, 2),
    ],
)
def test_conditions_are_composed(rule, n, most):
    assert rule.max_byzantine(n) == most


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: hb.NNM(f=2)(COUNT), "NNM(f=2) needs n > 2f = 4 rows, got n = 3: use f <= 1 or at least 5"),
        (lambda: hb.ARC(f=-1), "ARC: f must be >= 0, got -1"),
        (lambda: hb.Bucketing(s=0), "Bucketing: s must be >= 1, got 0"),
        (lambda: hb.Clipping(norm=0), "Clipping: norm must be a finite number over 0, got 0"),
        (lambda: hb.NNM(f=1)(np.zeros((3, 2), int)), "rows must be floating point"),
        (lambda: hb.Pipeline(hb.Krum(f=1)), "Pipeline needs pre-aggregations and a rule"),
        (lambda: hb.Pipeline(hb.Krum(f=1), hb.Mean()), "each stage but the last must be a pre-aggregation"),
        (lambda: hb.Pipeline(hb.NNM(f=1), hb.ARC(f=1)), "the last stage must be a rule such as hb.Krum(f=1)"),
        (lambda: hb.Pipeline(hb.NNM(f=1), hb.MajorityVote()), "must be a rule over single rows"),
        (lambda: hb.Pipeline("nmm:f=1", hb.Mean()), "unknown pre-aggregation 'nmm': did you mean 'nnm'"),
        (lambda: hb.Pipeline("nnm", hb.Mean()), "pre-aggregation 'nnm' is missing its option f"),
        (lambda: hb.Pipeline(hb.Bucketing(2), hb.MoNNA(f=1)), "a bucket is the row of no worker"),
        (
            lambda: hb.Pipeline(hb.Bucketing(2), hb.Krum(f=1)).check(6),
            "makes 3 rows of n = 6, and Krum(f=1) needs n > 2f + 2 = 4 rows, got n = 3",
        ),
        (lambda: hb.Pipeline(hb.NNM(f=1), hb.Krum(f=1)).check(4), "Krum(f=1) needs n > 2f + 2 = 4 rows"),
    ],
)
def test_errors_name_the_remedy(make, words):
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        make()


def test_pipelines_by_name():
    rule = hb.Pipeline(hb.ARC(f=1), hb.NNM(f=2), hb.MultiKrum(f=2))
    assert rules.as_rule("pipeline:chain=arc:f=1+nnm:f=2+multi-krum:f=2") == rule
    assert hb.Pipeline("arc:f=1", "nnm:f=2", "multi-krum:f=2") == rule
    assert hb.Pipeline(hb.ARC(f=1), hb.Pipeline(hb.NNM(f=2), hb.MultiKrum(f=2))) == rule
    assert rules.as_rule("pipeline:chain=clipping:norm=1e+2+mean") == hb.Pipeline(
        hb.Clipping(100.0), hb.Mean()
    )
    made = configs.make({"workers": 9, "byzantine": 2, "rule": "pipeline:chain=nnm:f=2+multi-krum:f=2"})
    assert made.make_rule() == hb.Pipeline(hb.NNM(f=2), hb.MultiKrum(f=2))


def test_tensors_and_half_precision_come_back_as_they_were():
    tensor = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32))
    for data in (tensor, tensor.to(torch.bfloat16), list(tensor)):
        mixed = hb.NNM(f=1)(data)
        assert isinstance(mixed, torch.Tensor)
        assert mixed.dtype == data[0].dtype
        assert mixed.shape == (5, 9)
    expected = hb.NNM(f=1)(tensor.numpy())
    np.testing.assert_array_equal(hb.NNM(f=1)(tensor).numpy(), expected)


def test_excluded_workers_and_a_pivot_behind_a_map():
    rows = np.random.default_rng(0).normal(size=(9, 20))
    rule = hb.Pipeline(hb.NNM(f=1), hb.MoNNA(f=1, pivot=6))
    expected = hb.Pipeline(hb.NNM(f=1), hb.MoNNA(f=1, pivot=5))(np.delete(rows, 2, axis=0))
    np.testing.assert_array_equal(rules.excluding(rule, [2])(rows), expected)
    rows[2] = np.nan
    lowered = hb.Pipeline(hb.NNM(f=0), hb.MoNNA(f=0, pivot=5))(np.delete(rows, 2, axis=0))
    np.testing.assert_array_equal(rule(rows), lowered)
