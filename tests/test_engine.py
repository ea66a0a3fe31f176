"""Rules run on shards, with the same bits, and say how each row was treated."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import horovod_byz as hb
from cases import every_rule
from horovod_byz.aggregation import engine
from horovod_byz.aggregation.source import BLOCK, Source
from horovod_byz.kernels.rows import TILE, Rows
from sharding import run_sharded

RULES = every_rule(f=2)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [2, 3])
def test_shards_give_the_same_bits(rule, dtype, count):
    rows = np.random.default_rng(1).normal(size=(12, 5 * TILE + 100)).astype(dtype)
    rows[3, 17] = np.nan
    rows[7] *= 1e6
    expected = hb.aggregate(rows, rule)
    value, outcomes = run_sharded(rule, rows, count)
    np.testing.assert_array_equal(value, expected.value)
    for outcome in outcomes:
        np.testing.assert_array_equal(outcome.weights, expected.weights)
        assert [str(v) for v in outcome.verdicts] == [str(v) for v in expected.verdicts]


class Blocks(Source):
    """A source with the methods that every source must have, and no other."""

    def __init__(self, rows):
        self.rows, (self.n, self.d), self.dtype = rows, rows.shape, rows.dtype

    def block(self, begin, end):
        assert end - begin <= self.at_once
        return Rows(np.ascontiguousarray(self.rows[:, begin:end]))

    def take(self, indices):
        return Blocks(self.rows[list(indices)])


@pytest.mark.parametrize("rule", [*RULES, hb.MajorityVote(), hb.MajorityVote(tolerance=0.1)], ids=repr)
@pytest.mark.parametrize("d", [TILE, BLOCK + 100])
def test_rows_that_are_made_block_by_block_give_the_same_bits(rule, d):
    rows = np.random.default_rng(1).normal(size=(12, d)).astype(np.float32)
    rows[:7] = rows[0]
    rows[3, 17] = np.nan
    rows[7] *= 1e6
    expected, out = hb.aggregate(rows, rule), np.empty(d, np.float32)
    outcome = engine.run(rule, Blocks(rows), out)
    np.testing.assert_array_equal(out, expected.value)
    np.testing.assert_array_equal(outcome.weights, expected.weights)
    assert [str(v) for v in outcome.verdicts] == [str(v) for v in expected.verdicts]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_verdicts_name_the_row_with_nan(rule):
    rows = np.random.default_rng(2).normal(size=(12, 50)).astype(np.float32) + 1
    rows[5] = np.nan
    result = hb.aggregate(rows, rule)
    assert np.isfinite(result.value).all()
    assert [v.worker for v in result.verdicts if v.reason == "non-finite"] == [5]
    assert result.verdicts[5].nonfinite == 50


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != hb.Mean()], ids=repr)
def test_a_huge_row_does_not_win(rule):
    rng = np.random.default_rng(3)
    rows = (rng.normal(size=(12, 200)) * 0.1 + 1).astype(np.float32)
    rows[[2, 9]] = 1e30
    result = hb.aggregate(rows, rule)
    assert np.abs(result.value - 1).max() < 0.5
    if rule != hb.SignMajority():
        assert [v.worker for v in result.verdicts if v.reason == "far"] == [2, 9]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_nothing_finite_gives_zero(rule):
    result = hb.aggregate(np.full((12, 8), np.nan, np.float32), rule)
    np.testing.assert_array_equal(result.value, np.zeros(8))


def test_tensors_come_back_as_tensors():
    rows = torch.randn(5, 9, requires_grad=True)
    value = hb.Median()(rows)
    assert isinstance(value, torch.Tensor)
    assert value.dtype == torch.float32
    assert not value.requires_grad
    expected = rows.detach().median(dim=0).values
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    separate = hb.Median()(list(rows))
    torch.testing.assert_close(separate, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_saturates(dtype):
    rows = torch.tensor([[1.0, 6e4], [2.0, 6e4], [3.0, 6e4]], dtype=dtype)
    value = hb.Mean()(rows)
    assert value.dtype == dtype
    torch.testing.assert_close(value, torch.tensor([2.0, 6e4], dtype=dtype))


def test_no_coordinates_is_not_an_error():
    for rule in RULES:
        assert hb.aggregate(np.zeros((12, 0), np.float32), rule).value.shape == (0,)
