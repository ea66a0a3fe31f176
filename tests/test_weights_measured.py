"""A weight is measured or NaN, never assumed.

0.2.0: coordinate-wise rules gave each row 1/n. The report showed a worker that sent 1e20 under a median with
a seventh of the weight.
"""

import json

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.ledger.truth import GroundTruth


def rows_with_an_attacker(n=7, d=5):
    rows = np.random.default_rng(0).standard_normal((n, d))
    rows[3] = 1e20
    return rows


@pytest.mark.parametrize(
    "rule", [hb.Median(), hb.TrimmedMean(2), hb.MeanAroundMedian(2), hb.Phocas(2), hb.SignMajority()]
)
def test_a_coordinate_wise_rule_measures_no_weight(rule):
    result = hb.aggregate(rows_with_an_attacker(), rule)
    assert np.isnan(result.weights).all()
    assert all(np.isnan(verdict.weight) for verdict in result.verdicts)


def test_a_row_that_the_rule_below_left_out_has_weight_0():
    """Bulyan trims the rows that Krum selects; DETOX's outer median sees the votes."""
    assert hb.aggregate(rows_with_an_attacker(), hb.Bulyan(1)).weights[3] == 0.0
    redundancy = hb.Redundancy(r=3)
    rows = np.ones((9, 4))
    outvoted = redundancy.groups_of(9)[0][1]
    rows[outvoted] = 2.0
    weights = hb.aggregate(rows, hb.Detox(redundancy, inner=hb.Mean(), outer=hb.Median(), groups=3)).weights
    assert weights[outvoted] == 0.0
    assert np.count_nonzero(np.isnan(weights)) == 3  # one replica of each group stands for its vote


def test_a_selection_of_a_single_row_is_that_row():
    assert hb.aggregate(np.ones((1, 2)), hb.Median()).weights.tolist() == [1.0]


def test_the_accounts_say_not_measured():
    ledger, truth = hb.Ledger(), GroundTruth(7, lambda step: (3,))
    for step in range(3):
        result = hb.aggregate(rows_with_an_attacker(), hb.Median())
        ledger.add(result, step)
        truth.add(result, step)
    assert [worker["mean_weight"] for worker in ledger.report()["workers"]] == [None] * 7
    summary = json.loads(json.dumps(truth.summary(), allow_nan=False))
    assert summary["byzantine_share_of_weight"] is None
    assert {worker["mean_weight"] for worker in summary["workers"]} == {None}
