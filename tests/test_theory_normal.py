"""The distributions that stand in for SciPy's agree with SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from horovod_byz.theory import normal

special = pytest.importorskip("scipy.special")


def test_the_logarithm_of_the_cumulative_distribution():
    x = np.linspace(-30, 9, 400)
    np.testing.assert_allclose(normal.log_cdf(x), special.log_ndtr(x), rtol=1e-12)
    assert normal.log_cdf(x.reshape(20, 20)).shape == (20, 20)


@pytest.mark.parametrize("p", [1e-12, 0.02, 0.5, 0.55, 0.975, 1 - 1e-9])
def test_quantiles(p):
    assert normal.quantile(p) == pytest.approx(float(special.ndtri(p)), rel=1e-12, abs=1e-15)


def test_quantiles_at_the_ends_and_beyond():
    assert (normal.quantile(0), normal.quantile(1)) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match=r"0\.0 < p < 1\.0"):
        normal.quantile(1.5)


@pytest.mark.parametrize("n", [1, 5, 20, 100])
@pytest.mark.parametrize("p", [5e-4, 0.3, 0.9])
def test_binomial_tails(n, p):
    for f in range(n):
        assert normal.binomial_tail(n, p, f) == pytest.approx(float(special.bdtrc(f, n, p)), rel=1e-10)
    assert normal.binomial_tail(n, p, n) == 0
