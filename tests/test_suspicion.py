"""The tests that name a worker: their false-alarm rate, what they see, and what they must not do."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.verdict import Verdict
from horovod_byz.bench import suspicion_page
from horovod_byz.bench.false_alarms import ALPHA, clean
from horovod_byz.bench.suspicion_runs import Run, replicas, walked
from horovod_byz.ledger.bets import STAKES, Bets, entering
from horovod_byz.ledger.exchangeable import Camps, Exchangeable, Observed
from horovod_byz.ledger.suspicion import Suspicion

STEPS = 80


def verdicts(scores, weights=None, reasons=None):
    """Verdicts with the given distances, norms and cosines, (3, n)."""
    n = scores.shape[1]
    weights = np.full(n, 1 / n) if weights is None else weights
    reasons = [""] * n if reasons is None else reasons
    return tuple(
        Verdict(
            i,
            float(weights[i]),
            0,
            float(scores[0, i]),
            reasons[i],
            float(scores[1, i]),
            float(scores[2, i]),
            True,
        )
        for i in range(n)
    )


def honest(rng, n):
    return np.stack([rng.uniform(1, 2, n), rng.uniform(1, 2, n), rng.uniform(0, 1, n)])


def run(test, change, n=12, steps=STEPS, seed=0, alpha=1e-3, groups=None):
    """The tested ledger of honest scores that `change(scores, step)` rewrites."""
    rng, suspicion, named = np.random.default_rng(seed), Suspicion(alpha, test), []
    for step in range(steps):
        scores = honest(rng, n)
        change(scores, step)
        finding = suspicion.observe(step, verdicts(scores), groups)
        named += [(worker, step) for worker in finding.named]
    return suspicion, named


def largest(*workers, score=0, start=0, value=5.0):
    def change(scores, step):
        if step >= start:
            scores[score, list(workers)] = value + np.arange(len(workers))

    return change


class TestBets:
    @pytest.mark.parametrize("chance", [0.05, 0.3, 0.9, 1.0])
    def test_the_money_of_an_honest_worker_stays_the_same_on_average(self, chance):
        money = []
        for hit in (False, True):
            bets = Bets(1)
            for step in range(5):
                bets.bet(np.array([0]), np.array([[bool(step % 2)]]), np.array([0.4]))
            before = bets.of(0)
            bets.bet(np.array([0]), np.array([[hit]]), np.array([chance]))
            money.append(bets.of(0))
        assert (1 - chance) * money[0] + chance * money[1] == pytest.approx(before)

    def test_what_enters_adds_up_to_one(self):
        steps = 10_000
        assert sum(map(entering, range(1, steps + 1))) + 1 / math.log2(steps + 2) == pytest.approx(1)

    def test_a_worker_that_comes_late_starts_with_one(self):
        bets, chance = Bets(1), np.array([0.5])
        for _ in range(50):
            bets.bet(np.array([0]), np.array([[False]]), chance)
        bets.bet(np.array([3]), np.array([[False]]), chance)
        assert bets.of(3) > 0.4 > 0.3 > bets.of(0)

    def test_no_stake_is_everything(self):
        assert STAKES.max() < 1


class TestFalseAlarms:
    # Rows beside the honest ones that leave them the extreme ranks, or take these.
    @pytest.mark.parametrize("byzantine", ["none", "smallest", "largest", "ties"])
    def test_the_e_value_of_honest_workers_is_one_on_average_at_most(self, byzantine):
        # Version: a p-value of rank / n. Symptom: with Byzantine rows at the other end an honest worker's
        # e-value grows. Cause: the honest rows share the n - f ranks that are left.
        n, f = 11, 5
        rng, means = np.random.default_rng(3), []
        for _ in range(150):
            test, workers = Exchangeable(), np.arange(n)
            for _ in range(12):
                scores = rng.uniform(1, 2, (3, n))
                if byzantine == "ties":
                    scores = np.rint(4 * scores)
                elif byzantine != "none":
                    scores[:, :f] = 0 if byzantine == "smallest" else 9
                test.observe(Observed(scores, workers, workers))
            means.append(test.bets.money()[f:].mean())
        assert np.mean(means) <= 1 + 3 * np.std(means) / math.sqrt(len(means))

    def test_nor_does_the_money_on_two_camps_grow(self):
        rng, workers, ends = np.random.default_rng(4), np.arange(11), []
        for _ in range(150):
            camps = Camps()
            for _ in range(15):
                camps.observe(Observed(rng.uniform(size=(3, 11)), workers, workers))
            ends.append(camps.money)
        assert np.mean(ends) <= 1 + 3 * np.std(ends) / math.sqrt(len(ends))

    @pytest.mark.parametrize("test", ["exchangeable", "own past"])
    def test_clean_training_accuses_nobody(self, test):
        # The short form of results/ledger.
        shown = clean(test, runs=8, steps=45)
        assert shown["accused"] == []
        assert shown["highest_log10"] < math.log10(20 / ALPHA)

    @pytest.mark.parametrize("test", ["exchangeable", "own past"])
    def test_equal_rows_accuse_nobody(self, test):
        def equal(scores, step):
            scores[:] = 1.0

        assert run(test, equal)[1] == []


class TestPower:
    @pytest.mark.parametrize(
        ("score", "value"), [(0, 5.0), (0, 0.0), (1, 0.0), (1, 9.0), (2, -1.0), (2, 2.0)]
    )
    def test_too_far_too_near_too_long_too_short_and_askew(self, score, value):
        assert run("exchangeable", largest(4, score=score, value=value))[1] == [(4, 39)]

    def test_a_worker_that_turns_wrong_late_is_named_soon_after(self):
        (named,) = run("exchangeable", largest(4, start=200), steps=260)[1]
        assert named[0] == 4
        assert 200 < named[1] < 225

    def test_three_of_twelve_are_named(self):
        assert {worker for worker, _ in run("exchangeable", largest(1, 5, 9))[1]} == {1, 5, 9}

    @pytest.mark.parametrize("value", [9.0, 0.1])
    @pytest.mark.parametrize("score", [0, 1])
    def test_a_change_is_seen_against_ones_own_past(self, score, value):
        def unlike(scores, step):
            scores[score] *= 1 + np.arange(scores.shape[1])  # each worker has a level of its own
            if step >= 100:
                scores[score, 4] *= value

        (named,) = run("own past", unlike, steps=150)[1]
        assert named[0] == 4
        assert 100 < named[1] < 135

    def test_who_was_always_so_is_not_seen_against_its_own_past(self):
        assert run("own past", largest(4), steps=150)[1] == []

    def test_replicas_of_a_flipped_bit_are_proof(self):
        assert replicas(1)["proofs"] == [[3, 7, "outvoted"]]

    def test_a_reversed_gradient_is_named_in_training(self):
        attacked = Run(7, "Median", "exchangeable", 60, ALPHA, "sign flip", 1)
        assert [worker for worker, _ in walked(attacked)["named"]] == list(attacked.attackers)


class TestWhatMustNotAccuse:
    def test_a_rule_has_no_say(self):
        rng, one, other = (
            np.random.default_rng(0),
            Suspicion(1e-3, "exchangeable"),
            Suspicion(1e-3, "exchangeable"),
        )
        for step in range(60):
            scores = honest(rng, 9)
            one.observe(step, verdicts(scores))
            other.observe(step, verdicts(scores, weights=np.eye(9)[3], reasons=["far"] * 9))
        assert one.state_dict() == other.state_dict()

    def test_a_rule_that_leaves_a_worker_out_names_nobody(self):
        class Spite(hb.Mean):
            def decide(self, statistics):
                return Weighted.uniform(statistics.n, range(1, statistics.n))

        rng, ledger = np.random.default_rng(1), hb.Ledger()
        for _ in range(60):
            ledger.add(hb.aggregate(rng.normal(size=(9, 500)), Spite()))
        assert ledger.suspects == ()

    @pytest.mark.parametrize("colluding", [6, 7])
    def test_two_camps_are_noticed_and_nobody_is_named(self, colluding):
        suspicion, named = run("exchangeable", largest(*range(colluding)), n=13, steps=150)
        assert named == []
        assert suspicion.undecided

    def test_replicas_are_one_observation(self):
        groups = tuple(tuple(range(3 * k, 3 * k + 3)) for k in range(6))
        rng, suspicion = np.random.default_rng(0), Suspicion(1e-3, "exchangeable")
        for step in range(30):
            suspicion.observe(step, verdicts(np.repeat(honest(rng, 6), 3, axis=1)), groups)
        logs = np.array([suspicion.log10(worker) for worker in range(18)]).reshape(6, 3)
        assert (logs == logs[:, :1]).all()
        alone = Suspicion(1e-3, "exchangeable")
        rng = np.random.default_rng(0)
        for step in range(30):
            alone.observe(step, verdicts(honest(rng, 6)))
        assert logs[:, 0].tolist() == [alone.log10(worker) for worker in range(6)]

    def test_leaving_a_row_out_never_helps_to_accuse(self):
        # An adversary that spoils the vote of an honest worker picks the steps at which it is compared.
        rng, kept, out = np.random.default_rng(0), Exchangeable(), Exchangeable()
        workers = np.arange(9)
        for _ in range(20):
            scores = rng.uniform(1, 2, (3, 9))
            scores[:, 4] = 1.5  # never extreme
            kept.observe(Observed(scores, workers, workers))
            unit = np.where(workers == 4, -1, workers - (workers > 4))
            out.observe(Observed(np.delete(scores, 4, axis=1), workers, unit))
        assert out.bets.of(4) <= kept.bets.of(4)


class TestState:
    @pytest.mark.parametrize("test", ["exchangeable", "own past"])
    def test_a_resumed_test_goes_on_as_if_nothing_had_happened(self, test):
        change = largest(4, start=30)
        whole = run(test, change)[0]
        rng, first, second = np.random.default_rng(0), Suspicion(1e-3, test), Suspicion(1e-3, test)
        for step in range(STEPS):
            scores = honest(rng, 12)
            change(scores, step)
            if step == 35:
                second.load_state_dict(json.loads(json.dumps(first.state_dict())))
            (first if step < 35 else second).observe(step, verdicts(scores))
        assert second.named == whole.named
        assert [second.log10(k) for k in range(12)] == [whole.log10(k) for k in range(12)]

    def test_another_tests_evidence_is_left_aside(self):
        first, second = run("exchangeable", largest(4))[0], Suspicion(1e-3, "own past")
        second.load_state_dict(first.state_dict())
        assert second.named == {}

    @pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 1.0}, {"test": "unlike"}])
    def test_settings_are_checked(self, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            hb.Ledger(**settings)


@pytest.mark.source
def test_the_page_is_made_of_its_numbers():
    folder = pathlib.Path(__file__).parents[1] / "results" / "ledger"
    result = json.loads((folder / "results.json").read_text())
    assert (folder / "README.md").read_text() == suspicion_page.page(result), "stale: make false-alarms"
    for test in result["clean"]:
        assert len(test["accused"]) <= test["allowed"]
        assert test["runs"] >= 1000


def test_the_fields_of_a_run_are_plain():
    assert dataclasses.asdict(Run(1, "Mean", "exchangeable", 5, ALPHA))["attack"] is None
