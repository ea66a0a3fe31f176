"""The adversary as a tool, and the robustness coefficients that it is held against."""

from __future__ import annotations

import itertools
import json
import math
import re

import numpy as np
import pytest
from typer.testing import CliRunner

import horovod_byz as hb
from horovod_byz import adversary, attacks
from horovod_byz.adversary import Honest, search
from horovod_byz.cli.main import app
from horovod_byz.common.registry import required_of
from horovod_byz.rules import RULES, StatedRule
from horovod_byz.theory import robustness
from horovod_byz.theory.robustness import displacement_bound, kappa, least_kappa


def rules_with_bounds(f):
    return [
        hb.Median(),
        hb.TrimmedMean(f=f),
        hb.MeanAroundMedian(f=f),
        hb.GeometricMedian(),
        hb.Krum(f=f),
        hb.MultiKrum(f=f),
        hb.MultiKrum(f=f, m=1),
        hb.MDA(f=f),
        hb.SMEA(f=f),
        *(
            hb.Pipeline(hb.NNM(f=f), rule)
            for rule in (hb.TrimmedMean(f=f), hb.Krum(f=f), hb.GeometricMedian())
        ),
    ]


def test_every_rule_with_a_coefficient_is_held_against_it():
    """A rule whose coefficient is added without a search here would go unchecked."""
    checked = {type(rule) for rule in rules_with_bounds(1)} | {hb.Mean}
    assert set(robustness._KAPPAS) <= checked
    assert {kind for kind in RULES.own.values() if kind in robustness._KAPPAS} == set(robustness._KAPPAS)


@pytest.mark.parametrize("rule", rules_with_bounds(4), ids=repr)
def test_no_attack_exceeds_a_rules_bound(rule):
    report = search(rule, 4, Honest.drawn(7, 20, seed=11))
    assert report.bound is not None
    assert not report.exceeded, report.to_data()
    assert report.bound >= report.floor * (1 - 1e-12)  # no rule can promise less


def test_bounds_hold_for_honest_rows_that_are_far_from_gaussian():
    """Clusters, one far honest row, equal rows: where coefficients are attained."""
    rng = np.random.default_rng(5)
    n, f = 9, 2
    shapes = [
        np.r_[np.zeros(5), np.ones(2)][:, None],
        np.r_[np.zeros(6), 100.0][:, None],
        np.repeat([[0.0], [1.0]], [4, 3], axis=0),
        np.c_[np.arange(7.0) ** 3, rng.standard_normal(7)],
    ]
    for rows, rule in itertools.product(shapes, rules_with_bounds(f)):
        mean = rows.mean(axis=0)
        spread = np.sqrt(np.square(rows - mean).sum(axis=1).mean())
        bound = displacement_bound(rule, n, f) * spread
        for values in (-1e9, -1.0, 0.0, 0.5, 1.0, 3.0, 100.0, 1e9, np.nan):
            struck = np.concatenate([rows, np.full((f, rows.shape[1]), values)])
            for order in (np.arange(n), np.arange(n)[::-1]):  # ties go to the lowest row
                moved = np.linalg.norm(rule(struck[order]) - mean)
                assert moved <= bound * (1 + 1e-9) + 1e-9, (rule, rows, values)


def test_the_trimmed_mean_attains_the_least_coefficient_of_any_rule():
    n, f = 9, 2
    rows = np.r_[np.zeros(n - 2 * f), np.full(f, 7.0)][:, None]
    struck = np.concatenate([rows, np.full((f, 1), -1e6)])
    moved = abs(float(hb.TrimmedMean(f=f)(struck)[0]) - rows.mean())
    assert moved == pytest.approx(displacement_bound(hb.TrimmedMean(f=f), n, f) * rows.std())
    assert kappa(hb.TrimmedMean(f=f), n, f) == least_kappa(n, f) == f / (n - 2 * f)


def test_the_median_attains_its_coefficient():
    n, f = 8, 1  # the middle two of 8 are the honest values of rank 4 and 5, or with a low row 3 and 4
    rows = np.r_[np.zeros(4), np.ones(3)][:, None]
    moved = abs(float(hb.Median()(np.concatenate([rows, [[5.0]]]))[0]) - rows.mean())
    assert moved <= displacement_bound(hb.Median(), n, f) * rows.std()
    odd = np.r_[np.zeros(4), np.ones(4)][:, None]
    high = float(hb.Median()(np.concatenate([odd, [[5.0]]]))[0])
    assert abs(high - odd.mean()) == pytest.approx(displacement_bound(hb.Median(), 9, 1) * odd.std())


def test_coefficients_by_hand():
    assert kappa(hb.Median(), 10, 2) == pytest.approx(10 / 6)
    assert kappa(hb.Median(), 11, 2) == pytest.approx(10 / 8)
    assert kappa(hb.GeometricMedian(), 10, 2) == pytest.approx(4 * (8 / 6) ** 2)
    assert kappa(hb.Krum(f=2), 10, 2) == pytest.approx(2 * 8 / 5 * (1 + 12 / 7))
    assert kappa(hb.MDA(f=2), 10, 2) == 4.0
    assert kappa(hb.SMEA(f=2), 10, 2) == pytest.approx(8 / 6)
    nnm = kappa(hb.Pipeline(hb.NNM(f=2), hb.TrimmedMean(f=2)), 10, 2)
    assert nnm == pytest.approx(2 * (1 / 3 + 1))
    assert kappa(hb.Mean(), 10, 0) == 0.0


@pytest.mark.parametrize(
    ("rule", "n", "f"),
    [
        (hb.Mean(), 10, 1),
        (hb.Krum(f=1), 10, 2),  # of another f
        (hb.Krum(f=4), 10, 4),  # too few rows
        (hb.MultiKrum(f=2, m=9), 10, 2),  # a Byzantine row among the m is certain
        (hb.Median(), 4, 2),  # no honest majority
        (hb.BrSGD(), 10, 1),
        (hb.Pipeline(hb.NNM(f=1), hb.Krum(f=2)), 10, 2),
        (hb.Pipeline(hb.ARC(f=2), hb.Krum(f=2)), 10, 2),
    ],
    ids=repr,
)
def test_no_coefficient_is_claimed_where_none_is_proved(rule, n, f):
    assert kappa(rule, n, f) is None
    assert displacement_bound(rule, n, f) is None


def test_no_majority_has_no_floor():
    assert least_kappa(4, 2) == math.inf
    with pytest.raises(ValueError, match="n >= 1"):
        kappa(hb.Median(), 0, 0)


def test_a_report_repeats_and_each_attack_can_be_carried_out_again():
    honest = Honest.drawn(12, 60, seed=3)
    report, again = (search("multi-krum:f=3", 3, honest, seed=1) for _ in range(2))
    assert report == again
    moved = [tried.displacement for tried in report.tried]
    assert moved == sorted(moved, reverse=True)
    searched = {(tried.attack.name, tried.option) for tried in report.tried if tried.strength is not None}
    assert {("a-little-is-enough", "z"), ("inner-product", "epsilon"), ("gaussian", "std")} <= searched
    for tried in report.tried[:8]:
        rows = adversary.search.__globals__["_Field"].of(report.rule, 3, honest, 1, None).rows.copy()
        eval(repr(tried.attack), vars(attacks))(rows, (12, 13, 14), seed=1)
        value = np.linalg.norm(report.rule(rows) - honest.mean) / honest.spread
        assert value == pytest.approx(tried.displacement, rel=1e-9)


def test_every_registered_attack_on_rows_is_tried():
    names = {tried.attack.name for tried in search("median", 2, Honest.drawn(8, 10)).tried}
    kinds = {name: attacks.registry.ATTACKS[name] for name in attacks.names()}
    due = {name for name, kind in kinds.items() if kind.acts_on == "rows" and kind.threat == "classic"}
    assert names == due - {"optimal-a-little-is-enough", "optimal-inner-product"}  # which are the search


def test_the_mean_has_no_bound_and_moves_without_limit():
    report = search(hb.Mean(), 1, Honest.drawn(9, 20))
    assert report.bound is None
    assert not report.exceeded
    assert report.worst.displacement > 1e15
    assert report.to_data()["bound"] is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: search("krum:f=4", 4, Honest.drawn(6, 5)),
            r"Krum\(f=4\) needs n > 2f \+ 2 = 10 rows, got n = 10",
        ),
        (lambda: search("median", 0, Honest.drawn(6, 5)), "f = 0 leaves nobody to attack"),
        (lambda: search(hb.MajorityVote(), 1, Honest.drawn(6, 5)), "votes among replicas"),
        (lambda: Honest.drawn(0, 5), "h must be >= 1"),
        (lambda: Honest.drawn(5, 5, signal=-1.0), "signal must be a finite number"),
        (lambda: Honest(np.zeros(3), "own"), r"of shape \(rows, coordinates\), got float64 of shape \(3,\)"),
        (lambda: Honest(np.array([[np.nan]]), "own"), "honest rows must be finite"),
    ],
)
def test_what_cannot_be_searched_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def run(*arguments):
    return CliRunner().invoke(app, ["attack", *map(str, arguments)])


def test_the_command_shows_what_it_tried_and_the_bound():
    shown = run("--rule", "multi-krum", "--n", 13, "--f", 3, "--d", 50)
    assert shown.exit_code == 0, shown.output
    assert "MultiKrum(f=3, m=None), n = 13, f = 3, d = 50" in shown.output
    assert "of the bound" in shown.output
    plain = " ".join(shown.output.split())
    assert re.search(r"Worst: \w+\(.*\) moves the result by [\d.]+ honest deviations", plain)
    data = json.loads(run("--rule", "multi-krum", "--n", 13, "--f", 3, "--d", 50, "--json").output)
    assert data["attacks"][0]["displacement"] < data["bound"]
    assert data["exceeded"] is False


def test_the_command_takes_rows_and_rules_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "ownrule.py").write_text(
        "from dataclasses import dataclass\nimport numpy as np\nfrom horovod_byz.rules.base import *\n"
        "from horovod_byz.rules import Condition, Facts, StatedRule\n"
        "from horovod_byz.aggregation.decision import Weighted\n\n\n"
        "@dataclass(frozen=True)\nclass First(StatedRule):\n"
        "    condition = Condition(2, 1)\n    facts = Facts('n > 2f', 'O(d)', 'none', 'none')\n\n"
        "    def decide(self, statistics):\n        return Weighted.uniform(statistics.n, [0])\n"
    )
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).standard_normal((7, 12)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    data = json.loads(run("--rule", "ownrule:First", "--rows", "rows.npy", "--f", 2, "--json").output)
    assert (data["n"], data["d"], data["honest_rows"], data["bound"]) == (9, 12, "rows.npy", None)
    for arguments, message in (
        (("--rows", "rows.npy", "--n", 8), "holds 7 honest rows, which with f = 2 make n = 9, not 8"),
        (("--rows", "ownrule.py"), "--rows ownrule.py: .*write it with numpy.save"),
        ((), "give --n"),
        (("--n", 2), "leave none honest"),
    ):
        refused = run("--rule", "median", "--f", 2, *arguments)
        assert refused.exit_code == 2
        assert re.search(message, " ".join(refused.output.split())), refused.output


def test_an_attack_beyond_the_bound_is_reported_as_an_error(monkeypatch):
    monkeypatch.setitem(robustness._KAPPAS, hb.Median, lambda n, f: 1e-6)
    shown = run("--rule", "median", "--n", 9, "--f", 2, "--d", 5)
    assert shown.exit_code == 1
    assert "the rule or the theorem is wrong" in " ".join(shown.output.split())


def test_every_other_rule_is_searched_too():
    stated = {kind for kind in RULES.own.values() if issubclass(kind, StatedRule)}
    for kind in stated - set(robustness._KAPPAS) - {hb.MajorityVote, hb.Draco}:
        given = {"f": 1, "pivot": 0}
        rule = kind(**{name: given[name] for name in required_of(kind)})
        report = search(rule, 1, Honest.drawn(8, 6))
        assert not report.exceeded
        assert np.isfinite(report.worst.displacement)
