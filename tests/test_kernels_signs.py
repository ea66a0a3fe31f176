"""Packed signs: the majority and the differences, counted in bits, at every instruction set."""

import itertools

import numpy as np
import pytest

from horovod_byz.kernels import signs

pytestmark = pytest.mark.usefixtures("level")


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
    assert [len(array) for array in signs.majority(packed[:, :0])] == [0, 0]


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
