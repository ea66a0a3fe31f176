"""Memory for rows that do not compete for the same cache lines."""

import numpy as np
import pytest

import horovod_byz as hb


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 1000, 1024, 100_000])
def test_rows_start_in_different_cache_sets(dtype, d):
    rows = hb.empty_rows(12, d, dtype)
    assert rows.shape == (12, d)
    assert rows.dtype == dtype
    starts = [rows[i].ctypes.data for i in range(12)]
    assert all(start % 64 == 0 for start in starts)
    assert len({start // 64 % 64 for start in starts}) == 12  # the 64 sets of a level-1 cache


def test_rows_do_not_overlap():
    rows = hb.empty_rows(5, 777)
    for i in range(5):
        rows[i] = i
    assert [row.tolist() == [i] * 777 for i, row in enumerate(rows)] == [True] * 5


def test_rules_read_it_as_it_is():
    rows = hb.empty_rows(7, 5000)
    rows[:] = np.random.default_rng(0).standard_normal((7, 5000))
    np.testing.assert_array_equal(hb.Median()(rows), np.median(rows, axis=0))
