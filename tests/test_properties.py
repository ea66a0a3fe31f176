"""What every rule must keep: permutation, translation, scale, unanimity, staying among the rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import horovod_byz as hb

EQUIVARIANT = [
    hb.Mean(),
    hb.Median(),
    hb.TrimmedMean(f=1),
    hb.MeanAroundMedian(f=1),
    hb.Phocas(f=1),
    hb.GeometricMedian(),
    hb.Medoid(),
    hb.Krum(f=1),
    hb.MultiKrum(f=1),
    hb.Bulyan(f=1),
    hb.BrSGD(),
    hb.MDA(f=1),
    hb.SMEA(f=1),
    hb.MoNNA(f=1, pivot=5),
    hb.CAF(f=1),
    hb.DnC(f=1),
]


@st.composite
def n_by_d(draw):
    """Whole numbers over 8: sums and differences are exact, so that properties hold to the bit."""
    n, d = draw(st.integers(7, 16)), draw(st.integers(1, 40))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(-4000, 4001, size=(n, d)) / 8.0


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("rule", EQUIVARIANT, ids=repr)
@settings(max_examples=40, deadline=None)
@given(rows=n_by_d(), shift=st.integers(-1000, 1000))
def test_translation(rule, rows, shift):
    close(rule(rows + shift), rule(rows) + shift)


@pytest.mark.parametrize("rule", EQUIVARIANT, ids=repr)
@settings(max_examples=40, deadline=None)
@given(rows=n_by_d(), power=st.integers(-20, 20))
def test_scale(rule, rows, power):
    close(rule(rows * 2.0**power) / 2.0**power, rule(rows))


@pytest.mark.parametrize("rule", [*EQUIVARIANT[:6], hb.SignMajority()], ids=repr)
@settings(max_examples=40, deadline=None)
@given(rows=n_by_d(), seed=st.integers(0, 99))
def test_permutation(rule, rows, seed):
    # Rules that select rows keep this too, but where two rows tie the lowest index wins; and on a
    # line an even number of rows has a whole segment of geometric medians.
    assume(rows.shape[1] > 1 or rule != hb.GeometricMedian())
    close(rule(np.random.default_rng(seed).permutation(rows)), rule(rows))


@pytest.mark.parametrize("rule", EQUIVARIANT, ids=repr)
@settings(max_examples=25, deadline=None)
@given(rows=n_by_d())
def test_unanimous_rows_win(rule, rows):
    same = np.tile(rows[0], (len(rows), 1))
    close(rule(same), rows[0])


@pytest.mark.parametrize("rule", EQUIVARIANT, ids=repr)
@settings(max_examples=40, deadline=None)
@given(rows=n_by_d())
def test_result_lies_within_the_rows(rule, rows):
    value = rule(rows)
    assert (value >= rows.min(axis=0) - 1e-9).all()
    assert (value <= rows.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize("rule", [rule for rule in EQUIVARIANT if rule != hb.Mean()], ids=repr)
@settings(max_examples=40, deadline=None)
@given(rows=n_by_d(), value=st.sampled_from([1e30, -1e300, np.nan, np.inf, -np.inf]))
def test_one_wild_row_does_not_break_down(rule, rows, value):
    wild = rows.copy()
    wild[3] = value
    honest = np.delete(rows, 3, axis=0)
    result = rule(wild)
    spread = honest.max() - honest.min() + 1
    assert np.abs(result - honest.mean(axis=0)).max() <= 2 * spread
