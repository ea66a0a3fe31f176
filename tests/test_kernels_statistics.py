"""BrSGD's statistics, counts of non-finite values and votes against plain NumPy, at every instruction set."""

import itertools

import numpy as np
import pytest

from horovod_byz.kernels import brsgd, scan, vote
from horovod_byz.kernels.rows import Rows
from kernel_cases import DTYPES, FINITE, normal, reference_median, with_nonfinite

pytestmark = pytest.mark.usefixtures("level")


def reference_statistics(x):
    n = len(x)
    total = np.zeros(x.shape[1])
    with np.errstate(all="ignore"):
        for row in x:
            total = total + row.astype(np.float64)
        above = x.astype(np.float64) >= total / n
        score = np.where(2 * above.sum(axis=0) < n, ~above, above)
        l1 = np.abs(x.astype(np.longdouble) - reference_median(x)).sum(axis=1).astype(np.float64)
    l1[np.isnan(l1)] = np.inf
    return score.sum(axis=1), l1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [*FINITE, with_nonfinite])
def test_brsgd_statistics(values, dtype):
    for n, d in itertools.product([1, 2, 3, 4, 5, 8, 15, 20, 45, 70], [1, 17, 300, 4100]):
        x = values(np.random.default_rng(n + d), n, d, dtype)
        scores, l1 = brsgd.statistics(Rows(x))
        wanted_scores, wanted_l1 = reference_statistics(x)
        np.testing.assert_array_equal(scores, wanted_scores)
        np.testing.assert_allclose(l1, wanted_l1, rtol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nonfinite(dtype):
    for n, d in itertools.product([1, 3, 20], [1, 17, 4096, 10_000]):
        x = with_nonfinite(np.random.default_rng(n), n, d, dtype)
        counts = scan.nonfinite(Rows(x))
        assert counts.dtype == np.int64
        np.testing.assert_array_equal(counts, (~np.isfinite(x)).sum(axis=1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_votes(dtype):
    rng = np.random.default_rng(15)
    for n, d in itertools.product([1, 2, 3, 5, 9], [1, 17, 5000, 50_000]):
        x = np.repeat(normal(rng, 1, d, dtype), n, axis=0)
        for _ in range(n):
            rows = [tuple(row.view(np.uint8)) for row in x] if d < 100 else [row.tobytes() for row in x]
            differ = np.array([[a != b for b in rows] for a in rows])
            np.testing.assert_array_equal(vote.mismatches(Rows(x)), differ)
            shared = [i for i in range(n) if 2 * (~differ[i]).sum() > n]
            assert vote.majority(Rows(x)) == (shared[0] if shared else -1)
            x[rng.integers(n), rng.integers(d)] = rng.choice([-0.0, 0.0, 1.0, np.nan])
