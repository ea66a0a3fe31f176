"""Half precision: the bits of the rows widened to float32 beforehand, without that copy."""

import numpy as np
import pytest
import torch

import horovod_byz as hb
from cases import every_rule
from horovod_byz.aggregation import rows as reading
from horovod_byz.aggregation.halves import HalfRows
from horovod_byz.kernels import linear

RULES = [
    *every_rule(f=2),
    hb.Pipeline(hb.NNM(f=2), hb.TrimmedMean(f=2)),
    hb.Pipeline(hb.ARC(f=2), hb.Krum(f=2)),
    hb.MajorityVote(),
    hb.Hierarchical(hb.Mean(), hb.Median(), groups=3),
    hb.Detox(hb.Redundancy(3), hb.Mean(), hb.Median(), groups=3),
    hb.Draco(f=1, code="cyclic"),
]
DTYPES = [np.float16, torch.float16, torch.bfloat16]


def made(dtype, n, d):
    """Rows of half precision, and the same values in float32."""
    wide = torch.from_numpy(np.random.default_rng(0).standard_normal((n, d), dtype=np.float32))
    wide[3:6] = wide[3]  # replicas
    wide[1, d // 2], wide[2, 0] = float("nan"), float("-inf")
    half = wide.to(torch.float16 if dtype is np.float16 else dtype)
    return (half.numpy() if dtype is np.float16 else half), half.float()


def same_bits(half, wide):
    """Whether a result is what the float32 result rounds to."""
    half = torch.as_tensor(half)
    return torch.equal(half, wide.to(half.dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("separate", [False, True])
def test_every_rule_gives_the_bits_of_float32(rule, dtype, separate):
    half, wide = made(dtype, 12, 5000)
    got, want = hb.aggregate(list(half) if separate else half, rule), hb.aggregate(wide, rule)
    assert type(got.value) is type(half)
    assert got.value.dtype == half.dtype
    assert same_bits(got.value, want.value)
    np.testing.assert_array_equal(got.weights, want.weights)
    assert [v.reason for v in got.verdicts] == [v.reason for v in want.verdicts]
    assert same_bits(rule(half), want.value)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", [hb.Median(), hb.MultiKrum(f=1)], ids=repr)
def test_rows_longer_than_a_block(rule, dtype):
    half, wide = made(dtype, 7, 70_000)
    got, want = hb.aggregate(half, rule), hb.aggregate(wide, rule)
    np.testing.assert_array_equal(got.weights, want.weights)
    assert same_bits(got.value, want.value)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("separate", [False, True])
def test_the_rows_are_read_where_they_lie_and_not_written_to(dtype, separate):
    half, wide = made(dtype, 5, 100)
    source, _ = reading.read(list(half) if separate else half)
    assert isinstance(source, HalfRows)
    hb.aggregate(half, hb.MultiKrum(f=1))
    torch.testing.assert_close(torch.as_tensor(half).float(), wide, rtol=0, atol=0, equal_nan=True)
    half[4, 7] = 3.0
    seen = np.empty(2, np.float32)
    linear.weighted_sum(source.take([4]).block(7, 9), np.ones(1), seen)
    assert seen[0] == 3.0  # no copy was made when the rows were read
