"""Rules are values with clear errors: equality, repr, preconditions, bad input."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz import rules

ALL = [
    hb.Mean(),
    hb.Median(),
    hb.TrimmedMean(f=1),
    hb.MeanAroundMedian(f=1),
    hb.Phocas(f=1),
    hb.GeometricMedian(),
    hb.Medoid(),
    hb.Krum(f=1),
    hb.MultiKrum(f=1, m=2),
    hb.Bulyan(f=1),
    hb.BrSGD(beta=0.25, threshold=3.0),
    hb.SignMajority(),
    hb.CGE(f=1),
    hb.NormBoundedMean(weights=(1, 2, 3, 4, 5, 6, 7, 8, 9), factor=1.5, cap=0.25),
    hb.MDA(f=1),
    hb.SMEA(f=1),
    hb.MoNNA(f=1, pivot=2),
    hb.CAF(f=1),
    hb.DnC(f=1, c=0.5, iterations=2),
    hb.CenteredClipping(tau=2.5, iterations=2),
]
PEERS = [hb.CGE, hb.MDA, hb.SMEA, hb.MoNNA, hb.CAF, hb.DnC]
ROWS = np.random.default_rng(0).normal(size=(9, 4))


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_repr_round_trips(rule):
    assert eval(repr(rule), vars(hb)) == rule
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert hash(eval(repr(rule), vars(hb))) == hash(rule)


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_rules_state_their_facts(rule):
    assert all(vars(rule.facts).values())
    assert type(rule).__name__ in {kind.__name__ for kind in rules.with_condition()}
    assert "Reference" in type(rule).__doc__


@pytest.mark.parametrize(
    "kind", [hb.TrimmedMean, hb.MeanAroundMedian, hb.Phocas, hb.Krum, hb.MultiKrum, hb.Bulyan, *PEERS]
)
@pytest.mark.parametrize("f", [-1, 1.5, "2", True, None, np.float64(1)])
def test_f_must_be_a_whole_number(kind, f):
    with pytest.raises((TypeError, ValueError), match=rf"{kind.__name__}: f must be"):
        kind(f)


def test_f_may_be_a_numpy_integer():
    assert hb.Krum(np.int64(2)) == hb.Krum(f=2)


def test_too_few_rows_is_an_error_with_the_remedy():
    message = (
        "MultiKrum(f=4, m=None) needs n > 2f + 2 = 10 rows, got n = 9: use f <= 3 or at least 11 workers"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        hb.MultiKrum(f=4)(np.zeros((9, 2)))
    with pytest.raises(ValueError, match="use at least 7 workers"):
        hb.Bulyan(f=1)(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="use m <= 9"):
        hb.MultiKrum(f=1, m=10)(ROWS)


@pytest.mark.parametrize(
    ("rule", "n", "most"),
    [
        (hb.Krum(f=3), 20, 8),
        (hb.MultiKrum(f=3), 21, 9),
        (hb.Bulyan(f=1), 15, 3),
        (hb.Median(), 20, 9),
        (hb.Median(), 25, 12),
        (hb.Mean(), 20, 0),
        (hb.TrimmedMean(f=0), 4, 1),
    ],
)
def test_the_largest_f_of_a_class(rule, n, most):
    assert rule.condition.largest_f(n) == most


@pytest.mark.parametrize("options", [{"beta": 0}, {"beta": 1.5}, {"threshold": -1.0}, {"threshold": "tight"}])
def test_brsgd_options(options):
    with pytest.raises(ValueError, match="BrSGD"):
        hb.BrSGD(**options)


@pytest.mark.parametrize("options", [{"tolerance": 0}, {"max_iterations": 0}])
def test_geometric_median_options(options):
    with pytest.raises(ValueError, match="GeometricMedian"):
        hb.GeometricMedian(**options)


@pytest.mark.parametrize("rule", ALL, ids=repr)
@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (np.zeros((9, 4), np.int64), TypeError, "floating point"),
        (np.zeros((9, 4), complex), TypeError, "floating point"),
        (torch.zeros(9, 4, dtype=torch.int32), TypeError, "floating point"),
        (np.zeros(9), ValueError, r"\(n, d\)"),
        (np.zeros((9, 2, 2)), ValueError, r"\(n, d\)"),
        (np.zeros((0, 4)), ValueError, "at least one"),
        ([], ValueError, "empty"),
        ("rows", TypeError, "got str"),
        (None, TypeError, "NoneType"),
        ([np.zeros(4), np.zeros(5)], ValueError, "row 1 has 5"),
        ([np.zeros(4), np.zeros(4, np.float32)], TypeError, "mix dtypes"),
        ([np.zeros(4), torch.zeros(4)], TypeError, "mix NumPy"),
        ([torch.zeros(4), torch.zeros(4, device="meta")], TypeError, "one device"),
        ([[0.0, "x"]], TypeError, "row 0 must be a list of numbers"),
        ([0.0, 1.0], TypeError, "row 0"),
        ([np.zeros((2, 2))], ValueError, "one-dimensional"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_input(rule, data, error, match):
    with pytest.raises(error, match=match):
        rule(data)


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_input_is_read_where_it_lies_and_never_written(rule):
    frozen = ROWS.copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(rule(frozen), rule(ROWS[::1]))
    np.testing.assert_array_equal(rule(ROWS[:, ::-1]), rule(np.ascontiguousarray(ROWS[:, ::-1])))
    np.testing.assert_array_equal(rule(ROWS.astype(">f8")), rule(ROWS))


def test_denormals_are_numbers():
    tiny = np.full((5, 3), 1e-45, np.float32)
    for rule in (hb.Median(), hb.Mean(), hb.TrimmedMean(f=1), hb.Krum(f=1), hb.GeometricMedian()):
        np.testing.assert_array_equal(rule(tiny), tiny[0])


def test_by_name_offers_the_nearest():
    assert rules.by_name("multi-krum", f=2) == hb.MultiKrum(f=2)
    assert set(rules.names()) >= {"mean-around-median", "brsgd", "geometric-median"}
    with pytest.raises(ValueError, match="did you mean 'multi-krum'"):
        rules.by_name("multikrum")
