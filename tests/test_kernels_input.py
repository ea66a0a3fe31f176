"""What the kernels refuse, and that they say what, got and remedy before anything is written."""

import numpy as np
import pytest

from horovod_byz.kernels import coordinate, distances, linear, scan
from horovod_byz.kernels.rows import Rows

X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (np.zeros((2, 3), np.int32), TypeError, "float32"),
        (np.zeros((2, 3), np.float16), TypeError, "float16"),
        (np.zeros((2, 3), ">f4"), TypeError, "byte order"),
        (np.zeros(3, np.float32), ValueError, "2 dimension"),
        (np.zeros((2, 3, 4), np.float32), ValueError, "2 dimension"),
        (np.zeros((0, 3), np.float32), ValueError, "at least one row"),
        ([], ValueError, "at least one row"),
        (np.zeros((3, 8), np.float32)[:, ::2], ValueError, "ascontiguousarray"),
        (np.zeros((3, 8), np.float32).T[::1], ValueError, "ascontiguousarray"),
        ([X[0], X[1, :3]], ValueError, "same length"),
        ([X[0], X[1].astype(np.float64)], TypeError, "one dtype"),
        ([X[0], [1.0, 2.0]], TypeError, "row 1"),
        ([X[:, 0], X[:, 1]], ValueError, "side by side"),
        (7, TypeError, "sequence"),
        ("rows", TypeError, "sequence"),
        (None, TypeError, "sequence"),
        (np.frombuffer(bytes(13), np.uint8)[1:].view(np.float32).reshape(1, 3), ValueError, "aligned"),
    ],
)
def test_rows_refuse(data, error, words):
    with pytest.raises(error, match=words):
        Rows(data)


def test_rows_take_any_row_stride_without_a_copy():
    wide = np.arange(40, dtype=np.float64).reshape(4, 10)
    narrow = [wide[:, 3:8], wide[:, :1], wide[:, :0]]
    for x in [wide, wide[::2], wide[::-1], np.broadcast_to(wide[1], (3, 10)), *narrow]:
        rows = Rows(x)
        assert (rows.n, rows.d, rows.dtype) == (*x.shape, np.float64)
        out = np.empty(rows.d)
        coordinate.median(rows, out)
        np.testing.assert_array_equal(out, np.median(x, axis=0))
    rows, out = Rows(wide), np.empty(10)
    wide[:] = 5
    coordinate.median(rows, out)
    np.testing.assert_array_equal(out, np.full(10, 5.0))


def test_rows_keep_their_arrays_alive():
    rows = Rows([np.full(1000, i, dtype=np.float32) for i in range(5)]).take([4, 2, 0]).block(10, 20)
    _ = [np.full(1000, 9, dtype=np.float32) for _ in range(50)]
    out = np.empty(10, np.float32)
    coordinate.median(rows, out)
    np.testing.assert_array_equal(out, np.full(10, 2, np.float32))


def test_blocks_and_selections():
    rows = Rows(X)
    assert len(rows) == 3
    assert repr(rows) == "Rows(n=3, d=4, dtype=float32)"
    assert rows.block(1, 3).d == 2
    assert rows.take([2, 2]).n == 2
    for begin, end in [(-1, 2), (3, 2), (0, 5)]:
        with pytest.raises(ValueError, match="block needs"):
            rows.block(begin, end)
    for bad in ([3], [-1]):
        with pytest.raises(IndexError, match="outside"):
            rows.take(bad)
    with pytest.raises(ValueError, match="at least one row"):
        rows.take([])
    with pytest.raises(TypeError):
        rows.take([0.5])


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        (np.zeros(5, np.float32), ValueError, "length d = 4"),
        (np.zeros(4), TypeError, "dtype of the rows"),
        (np.zeros((1, 4), np.float32), ValueError, "1 dimension"),
        (np.zeros(8, np.float32)[::2], ValueError, "side by side"),
        ([0.0] * 4, TypeError, "NumPy array"),
        (np.broadcast_to(np.float32(0), 4), ValueError, "side by side"),
        (X[1], ValueError, "row 1"),
    ],
)
def test_out_is_checked_before_anything_is_written(out, error, words):
    before = X.copy()
    with pytest.raises(error, match=words):
        coordinate.median(Rows(X), out)
    np.testing.assert_array_equal(X, before)


def test_read_only_out_is_refused():
    out = np.zeros(4, np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        coordinate.median(Rows(X), out)


def test_parameters_are_checked():
    out = np.full(4, 7, np.float32)
    rows = Rows(X)
    for f in (-1, 2):
        with pytest.raises(ValueError, match="0 <= f <= 1"):
            coordinate.trimmed_mean(rows, out, f)
    for f in (-1, 3):
        with pytest.raises(ValueError, match="0 <= f <= 2"):
            coordinate.mean_around_median(rows, out, f)
    for f in (-1, 2):
        with pytest.raises(ValueError, match="0 <= f <= 1"):
            coordinate.phocas(rows, out, f)
    for f in (0.5, "1", None):
        with pytest.raises(TypeError):
            coordinate.trimmed_mean(rows, out, f)
    for threads in (0, -2):
        with pytest.raises(ValueError, match="threads"):
            coordinate.median(rows, out, threads=threads)
    for threads in (1.5, True, "2"):
        with pytest.raises(TypeError, match="threads"):
            coordinate.median(rows, out, threads=threads)
    with pytest.raises(TypeError, match="Rows"):
        scan.nonfinite(X)
    for weights in (np.ones(3, np.float32), [1.0] * 3):
        with pytest.raises(TypeError, match="float64"):
            linear.weighted_sum(rows, weights, out)
    for weights in (np.ones(2), np.ones((3, 1)), np.array([1.0, np.nan, 0.0])):
        with pytest.raises(ValueError, match="weights"):
            linear.weighted_sum(rows, weights, out)
    with pytest.raises(ValueError, match="length d"):
        distances.to_point(rows, np.zeros(3, np.float32))
    np.testing.assert_array_equal(out, np.full(4, 7, np.float32))
