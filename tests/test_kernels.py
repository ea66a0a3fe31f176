"""Every kernel against plain NumPy: dtype x layout x threads x instruction set, and the cut into blocks."""

import itertools

import numpy as np
import pytest

from horovod_byz.kernels import brsgd, coordinate, dispatch, distances, linear, scan, signs, vote
from horovod_byz.kernels.rows import TILE, Rows

DTYPES = [np.float32, np.float64]
SMALL = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 17, 20, 24, 25, 31, 32, 33, 45, 63, 64, 65, 70, 100, 129]
WIDTHS = [1, 2, 3, 5, 15, 16, 17, 31, 63, 64, 65, 200, 255, 256, 257, 300]


@pytest.fixture(params=dispatch.levels(), autouse=True)
def level(request):
    """Each test runs at every instruction set this machine has."""
    before = dispatch.level()
    dispatch.use(request.param)
    yield request.param
    dispatch.use(before)


def normal(rng, n, d, dtype):
    return rng.standard_normal((n, d)).astype(dtype)


def ties(rng, n, d, dtype):
    """Few distinct values, signed zeros among them."""
    return rng.choice(np.array([-2.0, -1.0, -0.0, 0.0, 1.0, 1.5], dtype=dtype), size=(n, d))


def duplicates(rng, n, d, dtype):
    return normal(rng, n, d, dtype)[rng.integers(0, n, size=n) // 2]


def huge(rng, n, d, dtype):
    """Values of very different size, up to the largest the dtype holds."""
    top = np.finfo(dtype).max
    values = np.array([1.0, -1.0, 1e30, -1e30, 1e-30, top, -top, 0.9 * top], dtype=dtype)
    return values[rng.integers(0, len(values), size=(n, d))]


def denormals(rng, n, d, dtype):
    return (rng.standard_normal((n, d)) * np.finfo(dtype).smallest_normal / 8).astype(dtype)


FINITE = [normal, ties, duplicates, huge, denormals]


def with_nonfinite(rng, n, d, dtype):
    """About a tenth of the values are NaN of either sign or infinite."""
    x = normal(rng, n, d, dtype)
    bad = np.array([np.nan, -np.nan, np.inf, -np.inf], dtype=dtype)
    where = rng.random((n, d)) < 0.1
    x[where] = bad[rng.integers(0, 4, size=int(where.sum()))]
    return x


def flip(x):
    """The integer whose order is the order of the floats, NaN included."""
    bits = x.view(np.int32 if x.dtype == np.float32 else np.int64)
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)


def ordered(x):
    return np.take_along_axis(x, np.argsort(flip(x), axis=0, kind="stable"), axis=0)


def clean(x):
    return np.where(np.isfinite(x), x, 0).astype(x.dtype)


def reference_median(x):
    y, n = ordered(x), len(x)
    a, b = y[(n - 1) // 2], y[n // 2]
    half = x.dtype.type(0.5)
    with np.errstate(all="ignore"):
        total = a + b
        return clean(a if n % 2 else np.where(np.isinf(total), a * half + b * half, total * half))


def exact_mean(y):
    """Mean over rows in extended precision: no overflow in between."""
    with np.errstate(all="ignore"):
        return clean(np.mean(y.astype(np.longdouble), axis=0).astype(y.dtype))


def reference_trimmed(x, f):
    return exact_mean(ordered(x)[f : len(x) - f])


def reference_around(x, f):
    """Scan of the f + 1 windows, in float64: the first one whose farther edge is nearest the median."""
    y, n = ordered(x), len(x)
    k, wide = n - f, ordered(x).astype(np.float64)
    with np.errstate(all="ignore"):
        a, b = wide[(n - 1) // 2], wide[n // 2]
        middle = np.where(np.isinf(a + b), a * 0.5 + b * 0.5, (a + b) * 0.5)
        window = np.zeros(x.shape[1], dtype=int)
        for i in range(f):
            nearer = (np.isnan(wide[i]) & np.signbit(wide[i])) | (middle - wide[i] > wide[k + i] - middle)
            window = np.where((window == i) & nearer, i + 1, window)
    columns = np.arange(x.shape[1])
    return exact_mean(np.stack([y[window + j, columns] for j in range(k)]))


def call(kernel, rows, *args, threads=1):
    out = np.full(rows.d, 77, dtype=rows.dtype)
    kernel(rows, out, *args, threads=threads)
    return out


def weighted(rows, out, weights, threads=1):
    linear.weighted_sum(rows, weights, out, threads)


def bits(x):
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)


def assert_bits(got, wanted):
    np.testing.assert_array_equal(bits(got), bits(wanted))


def assert_close(got, wanted, scale=None):
    """Within rounding of the values that went in (``scale`` per coordinate), which survives cancellation."""
    eps = np.finfo(got.dtype).eps
    size = np.abs(wanted) if scale is None else scale
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(np.longdouble) - wanted)
    assert np.all(error <= 4 * eps * size + np.finfo(got.dtype).smallest_subnormal)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [*FINITE, with_nonfinite])
def test_median_of_any_number_of_rows(values, dtype):
    rng = np.random.default_rng(0)
    for n in range(1, 71):
        x = values(rng, n, WIDTHS[n % len(WIDTHS)], dtype)
        assert_bits(call(coordinate.median, Rows(x)), reference_median(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [100, 101, 128, 200, 257])
def test_median_of_many_rows(n, dtype):
    x = with_nonfinite(np.random.default_rng(n), n, 70, dtype)
    assert_bits(call(coordinate.median, Rows(x)), reference_median(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [3, 20])
def test_median_of_any_width(n, dtype):
    x = normal(np.random.default_rng(1), n, 10_000, dtype)
    for d in [*range(1, 140), 1000, 4095, 4096, 4097, 9999, 10_000]:
        assert_bits(call(coordinate.median, Rows(x[:, :d])), reference_median(x[:, :d]))


def test_median_equals_numpy_where_numpy_is_defined():
    x = normal(np.random.default_rng(2), 21, 500, np.float64)
    for n in range(1, 22):
        np.testing.assert_array_equal(call(coordinate.median, Rows(x[:n])), np.median(x[:n], axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [*FINITE, with_nonfinite])
def test_trimmed_mean(values, dtype):
    rng = np.random.default_rng(3)
    for n in SMALL:
        x = values(rng, n, WIDTHS[n % len(WIDTHS)], dtype)
        for f in {0, 1, (n - 1) // 4, (n - 1) // 2} & set(range((n + 1) // 2)):
            kept = ordered(x)[f : n - f]
            scale = np.where(np.isfinite(kept).all(axis=0), np.abs(kept).max(axis=0), 0)
            assert_close(call(coordinate.trimmed_mean, Rows(x), f), reference_trimmed(x, f), scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [normal, ties, duplicates, denormals, with_nonfinite])
def test_mean_around_median(values, dtype):
    rng = np.random.default_rng(4)
    for n in SMALL:
        x = values(rng, n, WIDTHS[n % len(WIDTHS)], dtype)
        for f in {0, 1, (n - 1) // 4, (n - 1) // 2, n // 2, 2 * n // 3, n - 1} & set(range(n)):
            got, wanted = call(coordinate.mean_around_median, Rows(x), f), reference_around(x, f)
            assert_close(got, wanted, np.nanmax(np.where(np.isfinite(x), np.abs(x), 0), axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_around_median_of_huge_values_is_finite(dtype):
    x = huge(np.random.default_rng(5), 9, 300, dtype)
    x[7:] = np.finfo(dtype).max
    assert np.isfinite(call(coordinate.mean_around_median, Rows(x), 4)).all()
    x[:7] = normal(np.random.default_rng(6), 7, 300, dtype)
    assert_close(call(coordinate.mean_around_median, Rows(x), 2), exact_mean(x[:7]), np.full(300, 4.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sign_majority(dtype):
    rng = np.random.default_rng(7)
    for n, values in itertools.product(SMALL, [ties, with_nonfinite]):
        x = values(rng, n, WIDTHS[n % len(WIDTHS)], dtype)
        wanted = np.sign(np.nan_to_num(np.sign(x), nan=0).sum(axis=0)).astype(dtype)
        np.testing.assert_array_equal(call(coordinate.sign_majority, Rows(x)), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weighted_sum(dtype):
    rng = np.random.default_rng(8)
    for n in SMALL:
        x = normal(rng, n, WIDTHS[n % len(WIDTHS)], dtype)
        weights = rng.standard_normal(n)
        weights[1::3] = 0
        x[1::3] = np.nan  # rows of weight 0 are not read
        total = np.zeros(x.shape[1])
        for w, row in zip(weights, x, strict=True):
            if w:
                total = total + w * row.astype(np.float64)
        np.testing.assert_array_equal(call(weighted, Rows(x), weights), total.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_weight_copies_a_row(dtype):
    x = normal(np.random.default_rng(9), 4, 131, dtype)
    x[2, :3] = [-0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max]
    assert_bits(call(weighted, Rows(x), np.array([0.0, 0.0, 1.0, 0.0])), x[2])
    x[2, [5, 130]] = [np.nan, np.inf]
    assert_bits(call(weighted, Rows(x), np.array([0.0, 0.0, 1.0, 0.0])), clean(x[2]))
    assert_bits(call(weighted, Rows(x), np.zeros(4)), np.zeros(131, dtype))


def reference_squared(x):
    with np.errstate(all="ignore"):
        wide = x.astype(np.longdouble)
        result = np.array([[np.sum((a - b) ** 2) for b in wide] for a in wide])
    result[np.isnan(result)] = np.inf
    np.fill_diagonal(result, 0)
    return result.astype(np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [normal, duplicates, with_nonfinite])
@pytest.mark.parametrize("d", [1, 7, 17, 255, 300, 4097, 10_000])
def test_squared(values, dtype, d):
    for n in [1, 2, 3, 4, 5, 6, 7, 10, 11, 13] if d < 4000 else [2, 9]:
        x = values(np.random.default_rng(n), n, d, dtype)
        got = distances.squared(Rows(x))
        np.testing.assert_allclose(got, reference_squared(x), rtol=1e-6)
        assert_bits(got, got.T.copy())


def test_squared_of_many_rows():
    x = normal(np.random.default_rng(10), 70, 600, np.float32)
    np.testing.assert_allclose(distances.squared(Rows(x)), reference_squared(x), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-20, 1e19, 1e30])
def test_squares_that_float32_cannot_hold(scale):
    x = (normal(np.random.default_rng(11), 5, 5000, np.float64) * scale).astype(np.float32)
    x[3] = x[2]
    np.testing.assert_allclose(distances.squared(Rows(x)), reference_squared(x), rtol=1e-6)
    np.testing.assert_allclose(distances.to_point(Rows(x), x[0].copy()), reference_squared(x)[0], rtol=1e-6)
    centred = x.astype(np.float64) - np.median(x, axis=0).astype(np.float64)
    wanted, size = centred @ centred.T, np.sqrt(np.outer(*[np.sum(centred**2, axis=1)] * 2))
    assert np.all(np.abs(distances.gram(Rows(x)) - wanted) <= 1e-6 * size)


def test_distances_survive_a_common_offset():
    rng = np.random.default_rng(12)
    x = (rng.standard_normal(20_000) + 1e-4 * rng.standard_normal((8, 20_000))).astype(np.float32)
    np.testing.assert_allclose(distances.squared(Rows(x)), reference_squared(x), rtol=1e-6)


def test_one_huge_row_does_not_disturb_the_others():
    x = normal(np.random.default_rng(13), 7, 9000, np.float32)
    x[4] = 1e30
    np.testing.assert_allclose(distances.squared(Rows(x)), reference_squared(x), rtol=1e-6)
    gram, others = distances.gram(Rows(x)), [0, 1, 2, 3, 5, 6]
    centred = x.astype(np.float64) - np.median(x, axis=0)
    wanted = centred[others] @ centred[others].T
    np.testing.assert_allclose(gram[np.ix_(others, others)], wanted, atol=1e-6 * wanted.max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 17, 256, 4100, 9000])
def test_gram(dtype, d):
    for n in [1, 2, 3, 5, 6, 12, 45]:
        x = normal(np.random.default_rng(n), n, d, dtype)
        centred = (x - reference_median(x)).astype(np.float64)
        wanted = centred @ centred.T
        np.testing.assert_allclose(distances.gram(Rows(x)), wanted, atol=1e-6 * np.abs(wanted).max())


def test_products_are_added_with_one_rounding():
    """2^70 + 2^47 + (2^46 - 1) lies just below the middle of two floats: via float64 it would round up."""
    x = np.zeros((7, 32), np.float32)  # five zero rows: the median is 0
    x[0, [0, 16]] = 2**23 + 1, 2**23 + 1  # columns 0 and 16 go to the same lane
    x[1, [0, 16]] = 2**47, 2**23 - 1
    assert distances.gram(Rows(x))[0, 1] == 2**70 + 2**47
    x[1, 16] = -(2.0**23) + 1
    assert distances.gram(Rows(x))[0, 1] == 2**70 + 2**47


def test_gram_marks_rows_that_are_not_finite():
    x = normal(np.random.default_rng(14), 6, 5000, np.float32)
    clean_gram = distances.gram(Rows(x))
    x[2, 4999] = np.nan
    gram = distances.gram(Rows(x))
    assert np.isnan(gram[2]).all()
    assert np.isnan(gram[:, 2]).all()
    rest = np.delete(np.arange(6), 2)
    np.testing.assert_allclose(gram[np.ix_(rest, rest)], clean_gram[np.ix_(rest, rest)], atol=5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [normal, duplicates, with_nonfinite])
def test_to_point(values, dtype):
    for n, d in itertools.product([1, 3, 16], [1, 17, 300, 5000]):
        rng = np.random.default_rng(n)
        x, point = values(rng, n, d, dtype), normal(rng, 1, d, dtype)[0]
        with np.errstate(all="ignore"):
            wanted = np.sum((x.astype(np.longdouble) - point) ** 2, axis=1).astype(np.float64)
        wanted[np.isnan(wanted)] = np.inf
        np.testing.assert_allclose(distances.to_point(Rows(x), point), wanted, rtol=1e-6)


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


def every_result(rows, threads):
    n, rng = rows.n, np.random.default_rng(16)
    point = rng.standard_normal(rows.d).astype(rows.dtype)
    yield "median", call(coordinate.median, rows, threads=threads)
    yield "trimmed_mean", call(coordinate.trimmed_mean, rows, (n - 1) // 4, threads=threads)
    yield "mean_around_median", call(coordinate.mean_around_median, rows, n // 3, threads=threads)
    yield "sign_majority", call(coordinate.sign_majority, rows, threads=threads)
    yield "weighted_sum", call(weighted, rows, rng.standard_normal(n), threads=threads)
    yield "squared", distances.squared(rows, threads=threads)
    yield "gram", distances.gram(rows, threads=threads)
    yield "to_point", distances.to_point(rows, point, threads=threads)
    yield from zip(("scores", "l1"), brsgd.statistics(rows, threads=threads), strict=True)
    yield "nonfinite", scan.nonfinite(rows, threads=threads)
    yield "mismatches", vote.mismatches(rows, threads=threads).astype(np.int64)
    yield "majority", np.array([vote.majority(rows, threads=threads)])


def assert_same(results, wanted):
    for (name, got), (_, value) in zip(results, wanted, strict=True):
        np.testing.assert_array_equal(bits(got), bits(value), err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_levels_and_layout_change_no_bit(dtype):
    x = with_nonfinite(np.random.default_rng(17), 6, 20 * TILE + 77, dtype)
    x[1:5, 5 * TILE :] = normal(np.random.default_rng(18), 4, 15 * TILE + 77, dtype)
    x[2] = x[1]
    here = dispatch.level()
    dispatch.use("generic")
    wanted = list(every_result(Rows(x), 1))
    dispatch.use(here)
    for threads in (1, 2, 7):
        assert_same(every_result(Rows(x), threads), wanted)
    assert_same(every_result(Rows([row.copy() for row in x]), 2), wanted)
    padded = np.zeros((6, x.shape[1] + 11), dtype)[:, 3:-8]
    padded[:] = x
    assert_same(every_result(Rows(padded), 1), wanted)
    padded.flags.writeable = False
    assert_same(every_result(Rows(padded), 1), wanted)


def tree(parts):
    """The sum of (tiles, value) nodes in the order of the binary tree."""
    stack = []
    for leaves, value in parts:
        stack.append((leaves, value))
        while len(stack) > 1 and stack[-1][0] == stack[-2][0]:
            (size, right), (_, left) = stack.pop(), stack.pop()
            stack.append((2 * size, left + right))
    while len(stack) > 1:
        (_, right), (_, left) = stack.pop(), stack.pop()
        stack.append((0, left + right))
    return stack[0][1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("node", [1, 2, 4, 8])
def test_blocks_at_nodes_of_the_tree_change_no_bit(dtype, node):
    d, rng = 11 * TILE + 100, np.random.default_rng(19)
    x = normal(rng, 5, d, dtype)
    point = normal(rng, 1, d, dtype)[0]
    x[3] *= 1e10
    statistics = {
        "squared": lambda low, high: distances.squared(Rows(x).block(low, high)),
        "gram": lambda low, high: distances.gram(Rows(x).block(low, high)),
        "to_point": lambda low, high: distances.to_point(Rows(x).block(low, high), point[low:high]),
        "l1": lambda low, high: brsgd.statistics(Rows(x).block(low, high))[1],
        "scores": lambda low, high: brsgd.statistics(Rows(x).block(low, high))[0],
    }
    edges = [*range(0, d, node * TILE), d]
    for name, statistic in statistics.items():
        parts = [(node, statistic(low, high)) for low, high in itertools.pairwise(edges)]
        np.testing.assert_array_equal(tree(parts), statistic(0, d), err_msg=name)
    rules = [(coordinate.median, ()), (coordinate.trimmed_mean, (1,)), (weighted, (np.ones(5),))]
    for kernel, args in rules:
        parts = [
            call(kernel, Rows(x).block(low, high), *args) for low, high in [(0, 33), (33, 5000), (5000, d)]
        ]
        assert_bits(np.concatenate(parts), call(kernel, Rows(x), *args))


def test_no_columns():
    rows = Rows(np.zeros((3, 0), np.float32))
    for name, value in every_result(rows, 2):
        assert value.shape[-1] in (0, 1, 3), name
        assert not value.any()


@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 45, 63, 64, 255, 256, 300])
def test_majority_of_packed_signs(n):
    rng = np.random.default_rng(n)
    for d, threads in itertools.product([1, 8, 9, 127, 513, 200_001], [1, 3]):
        given = rng.random((n, d)) < 0.5
        given[:, : d // 3] = np.arange(n)[:, None] < n // 2  # ties, where n is even
        packed = np.packbits(given, axis=1)
        negative, tied = signs.majority(packed, threads)
        count = given.sum(axis=0)
        np.testing.assert_array_equal(np.unpackbits(negative, count=d), 2 * count > n)
        np.testing.assert_array_equal(np.unpackbits(tied, count=d), 2 * count == n)
        point, mask = rng.integers(0, 256, (2, packed.shape[1]), np.uint8)
        np.testing.assert_array_equal(
            signs.differences(packed, point, mask, threads),
            np.unpackbits((packed ^ point) & mask, axis=1).sum(axis=1, dtype=np.int64),
        )


def test_packed_signs_may_be_a_part_of_longer_rows():
    packed = np.random.default_rng(0).integers(0, 256, (5, 100), np.uint8)
    part = packed[:, 20:57]
    np.testing.assert_array_equal(signs.majority(part)[0], signs.majority(part.copy())[0])
    everything = np.full(37, 255, np.uint8)
    np.testing.assert_array_equal(
        signs.differences(part, part[2], everything),
        signs.differences(part.copy(), part[2].copy(), everything),
    )
    assert [len(one) for one in signs.majority(packed[:, :0])] == [0, 0]


def test_packed_signs_that_do_not_fit():
    packed = np.zeros((3, 8), np.uint8)
    for wrong in (packed.astype(np.int8), packed[0], packed[:0], [[1, 2]]):
        with pytest.raises(TypeError, match="packed must be a uint8 array of the shape"):
            signs.majority(wrong)
    with pytest.raises(ValueError, match="each packed row must be contiguous"):
        signs.majority(packed[:, ::2])
    with pytest.raises(TypeError, match=r"point must be a uint8 array of the shape \(8,\)"):
        signs.differences(packed, packed[0, :7], packed[0])
    with pytest.raises(TypeError, match="mask must be a uint8 array"):
        signs.differences(packed, packed[0], packed)
