"""The geometric median to 1e-6 of the honest rows' spread, however far away the outliers are."""

import numpy as np
import pytest

import horovod_byz as hb

D = 5000


def honest(rng, n, dtype, offset):
    return (offset + rng.standard_normal((n, D))).astype(dtype)


def pull(z, rows):
    """Sum of the unit vectors from z to the rows, in long double; zero at the geometric median."""
    apart = rows.astype(np.longdouble) - z.astype(np.longdouble)
    return (apart / np.sqrt((apart**2).sum(axis=1, keepdims=True))).sum(axis=0)


def exact(rows, start):
    """The geometric median by Weiszfeld's iteration on the coordinates themselves, in long double."""
    z, rows = start.astype(np.longdouble), rows.astype(np.longdouble)
    for _ in range(300):
        weights = 1 / np.sqrt(((rows - z) ** 2).sum(axis=1))
        z = weights @ rows / weights.sum()
    return z


@pytest.mark.parametrize("identical", [True, False])
@pytest.mark.parametrize("scale", [1e3, 1e10, 1e20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_outliers_cost_no_accuracy(dtype, scale, identical):
    rng = np.random.default_rng(1)
    rows = honest(rng, 20, dtype, 0.0)
    outliers = scale * rng.standard_normal((1 if identical else 8, D))
    rows[:8] = outliers.astype(dtype)
    median = hb.GeometricMedian()(rows)
    wanted = exact(rows, rows[8:].mean(axis=0))
    spread = np.sqrt(((rows[8:] - wanted) ** 2).sum(axis=1)).mean()
    error = np.sqrt(((median - wanted) ** 2).sum())
    # Rows of float32 round the result itself: half a unit in the last place of each coordinate.
    rounding = np.sqrt(((np.finfo(dtype).eps * wanted) ** 2).sum())
    assert error <= 1e-6 * spread + rounding


@pytest.mark.parametrize("scale", [1e10, 1e20])
def test_the_pull_of_all_rows_vanishes(scale):
    """The condition that defines it: n unit vectors that cancel."""
    rng = np.random.default_rng(2)
    rows = honest(rng, 15, np.float64, 3.0)
    rows[:6] = scale * rng.standard_normal((6, D))
    assert np.sqrt((pull(hb.GeometricMedian()(rows), rows) ** 2).sum()) <= 1e-6 * len(rows)
