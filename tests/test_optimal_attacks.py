"""Attacks that search their strength against a rule, and the space of n + 3 points in which they do it."""

from __future__ import annotations

import numpy as np
import pytest

import horovod_byz as hb
from cases import attacked
from horovod_byz import attacks
from horovod_byz.aggregation.known import Known, RowsNeededError
from horovod_byz.attacks.line import Line, strongest
from horovod_byz.attacks.optimal import DEVIATIONS, MULTIPLES, deviation
from horovod_byz.training import config as configs
from horovod_byz.training.config import ConfigError

BYZANTINE = (1, 4, 9)
HONEST = tuple(row for row in range(17) if row not in BYZANTINE)

# Rule, and whether it is evaluated without its rows.
RULES = [
    (hb.Mean(), True),
    (hb.Median(), False),
    (hb.TrimmedMean(f=3), False),
    (hb.MeanAroundMedian(f=3), False),
    (hb.GeometricMedian(), True),
    (hb.Medoid(), True),
    (hb.Krum(f=3), True),
    (hb.MultiKrum(f=3), True),
    (hb.Bulyan(f=3), False),
    (hb.BrSGD(), False),
    (hb.CGE(f=3), True),
    (hb.NormBoundedMean(), True),
    (hb.MDA(f=3), True),
    (hb.SMEA(f=3), True),
    (hb.MoNNA(f=3, pivot=0), True),
    (hb.CAF(f=3), True),
    (hb.DnC(f=3), True),
    (hb.Pipeline(hb.NNM(f=3), hb.Krum(f=3)), True),
    (hb.Pipeline(hb.NNM(f=3), hb.TrimmedMean(f=3)), False),
    (hb.Pipeline(hb.Clipping(20.0), hb.Mean()), True),
]


def rows_of(dtype=np.float64, d=400, seed=0):
    rng = np.random.default_rng(seed)
    return (0.3 + rng.standard_normal((17, d))).astype(dtype)


def line_of(rule, rows, sign=1):
    honest = rows[list(HONEST)]
    mean = honest.mean(axis=0)
    return Line(rule, rows, BYZANTINE, mean, sign * deviation(honest, mean).astype(rows.dtype), threads=1)


def displacement(rule, rows):
    return float(np.linalg.norm(rule(rows) - rows[list(HONEST)].mean(axis=0)))


@pytest.mark.parametrize(("rule", "without_rows"), RULES, ids=lambda value: repr(value))
def test_the_space_of_n_points_moves_a_rule_as_its_rows_do(rule, without_rows):
    for dtype, close in ((np.float64, 1e-6), (np.float32, 1e-2)):
        rows = rows_of(dtype)
        line = line_of(rule, rows)
        assert line.on_distances is without_rows
        for strength in (0.125, 0.9, 3.0, 128.0):
            struck = rows.copy()
            struck[list(BYZANTINE)] = line.point(strength)
            assert line.moved(strength) == pytest.approx(displacement(rule, struck), rel=1e-4, abs=close)


def test_a_strength_reads_no_rows():
    rows = rows_of()
    line = line_of(hb.MultiKrum(f=3), rows)
    before = line.moved(0.7)
    rows[:] = np.nan  # measured once: nothing is read any more
    assert line.moved(0.7) == before


def test_rows_that_float64_cannot_square_are_evaluated_in_full():
    rows = rows_of()
    rows[0] = 1e200
    line = line_of(hb.Krum(f=4), rows)
    assert not line.on_distances
    assert np.isfinite(line.moved(1.0)) or line.moved(1.0) == np.inf


def test_known_statistics_refuse_what_was_not_given():
    apart = np.full((5, 5), 2.0) - 2 * np.eye(5)
    known = Known(apart, np.ones(5), step=3)
    assert known.step == 3
    assert known.finite.tolist() == [0, 1, 2, 3, 4]
    assert known.take([1, 3]).gram.shape == (2, 2)
    for what in ("brsgd", "scaled"):
        with pytest.raises(RowsNeededError):
            getattr(known, what).distances  # noqa: B018


def test_the_search_refines_its_grid_and_prefers_the_first_of_equals():
    best, value = strongest(lambda s: -abs(np.log(s) - np.log(5.0)), DEVIATIONS, refinements=40)
    assert best == pytest.approx(5.0, rel=1e-2)
    assert value == pytest.approx(0.0, abs=1e-2)
    assert strongest(lambda s: 1.0, DEVIATIONS)[0] == DEVIATIONS[0]
    assert strongest(lambda s: np.nan if s < 1 else s, [0.5, 2.0]) == (2.0, 2.0)
    assert strongest(lambda s: s, MULTIPLES) == (128.0, 128.0)


@pytest.mark.parametrize("rule", ["multi-krum:f=3", "median", "caf:f=3", "geometric-median"])
@pytest.mark.parametrize("kind", [attacks.OptimalALittleIsEnough, attacks.OptimalInnerProduct])
def test_no_strength_of_the_plain_attack_moves_the_rule_farther(kind, rule):
    rows = rows_of()
    best = displacement(hb.rules.as_rule(rule), attacked(kind(rule), rows, BYZANTINE))
    honest = rows[list(HONEST)]
    mean = honest.mean(axis=0)
    for strength in np.geomspace(0.2, 100, 25):
        struck = rows.copy()
        push = deviation(honest, mean) if kind is attacks.OptimalALittleIsEnough else None
        struck[list(BYZANTINE)] = -strength * mean if push is None else mean + strength * push
        # The search samples strengths: a narrow peak beside its grid may be a little higher.
        assert displacement(hb.rules.as_rule(rule), struck) <= best * 1.1


def test_the_strength_is_the_rules_own():
    rows = rows_of()
    sent = {
        rule: attacked(attacks.OptimalALittleIsEnough(rule), rows, BYZANTINE)[1]
        for rule in ("mean", "krum:f=3", "median")
    }
    assert not np.array_equal(sent["mean"], sent["krum:f=3"])
    mean, sigma = (
        rows[list(HONEST)].mean(axis=0),
        deviation(rows[list(HONEST)], rows[list(HONEST)].mean(axis=0)),
    )
    assert sent["mean"] == pytest.approx(mean + 128 * sigma)  # nothing bounds the mean
    assert np.abs((sent["krum:f=3"] - mean) / sigma).max() < 4


def test_a_row_that_is_no_target_stays():
    rows = rows_of()
    result = attacked(attacks.OptimalInnerProduct("krum:f=3"), rows, BYZANTINE, only=(4,))
    assert np.array_equal(np.flatnonzero((result != rows).any(axis=1)), [4])


def test_a_configuration_gives_the_attack_the_runs_rule():
    run = {"rule": "multi-krum", "workers": 9, "byzantine": 2, "attack": "optimal-inner-product"}
    made = configs.make(run)
    assert made.make_attack() == attacks.OptimalInnerProduct(hb.MultiKrum(f=2))
    assert configs.make(made.to_data()) == made
    other = configs.make({**run, "attack": "optimal-alie:rule=krum:f=1"})
    assert other.make_attack() == attacks.OptimalALittleIsEnough("krum:f=1")
    with pytest.raises(ConfigError, match="unknown rule 'krun'"):
        configs.make({**run, "attack": "optimal-alie:rule=krun"})
    with pytest.raises(
        ValueError, match=r"'optimal-inner-product' is missing its option rule: .*rule=median"
    ):
        attacks.by_name("optimal-inner-product")


def test_plain_data_name_the_rule():
    for rule, word in ((hb.MultiKrum(f=2), "multi-krum:f=2"), (hb.Median(), "median")):
        attack = attacks.OptimalInnerProduct(rule)
        assert attacks.to_data(attack) == {"name": "optimal-inner-product", "rule": word}
        again = attacks.from_data(attacks.to_data(attack))
        assert hb.rules.as_rule(again.rule) == rule
    with pytest.raises(ValueError, match="no name stands for the rule"):
        attacks.to_data(attacks.OptimalInnerProduct(hb.Pipeline(hb.NNM(f=1), hb.Median())))
