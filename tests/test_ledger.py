"""The ledger: proof and notices of a step, what a worker is accused of, old and new states."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.ledger.truth import GroundTruth

GROUPS = hb.Redundancy(r=3).groups_of(9)


def rows(n=9, d=40, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def replicated(seed=0):
    """Three rows, each sent by the workers of a group."""
    matrix = np.empty((9, 40), np.float32)
    for group, row in zip(GROUPS, rows(3, seed=seed), strict=True):
        matrix[list(group)] = row
    return matrix


def kinds(ledger):
    return [(evidence.kind, evidence.reason, evidence.worker) for evidence in ledger.evidence]


def detox(**settings):
    return hb.Detox(hb.Redundancy(r=3), inner=hb.Mean(), outer=hb.Median(), groups=3, **settings)


class TestVerdicts:
    @pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30, 1e200])
    @pytest.mark.parametrize("rule", [hb.Mean(), hb.Median(), hb.Krum(f=2)], ids=repr)
    def test_norms_and_cosines_are_those_of_the_rows(self, rule, scale):
        matrix = rows().astype(np.float64) * scale
        result = hb.aggregate(matrix, rule)
        value = result.value / scale
        for row, verdict in zip(matrix / scale, result.verdicts, strict=True):
            assert verdict.norm / scale == pytest.approx(np.linalg.norm(row))
            wanted = row @ value / np.linalg.norm(row) / np.linalg.norm(value)
            assert verdict.cosine == pytest.approx(wanted, abs=1e-9)

    def test_a_huge_row_leaves_the_norms_of_the_others(self):
        matrix = rows().astype(np.float64)
        matrix[3] *= 1e300
        verdicts = hb.aggregate(matrix, hb.Mean()).verdicts
        assert verdicts[0].norm == pytest.approx(np.linalg.norm(matrix[0]))
        assert 0 < verdicts[3].norm < np.inf

    def test_of_zero_and_of_non_finite_rows(self):
        matrix = rows()
        matrix[1], matrix[2, 3] = 0, np.nan
        verdicts = hb.aggregate(matrix, hb.Median()).verdicts
        assert (verdicts[1].norm, verdicts[1].cosine) == (0, 0)
        assert np.isnan([verdicts[2].norm, verdicts[2].cosine]).all()

    def test_only_rules_that_say_so_themselves_give_comparable_distances(self):
        class Own(hb.Mean):
            pass

        assert hb.aggregate(rows(), hb.Median()).verdicts[0].comparable
        assert not hb.aggregate(rows(), Own()).verdicts[0].comparable
        assert not hb.aggregate(replicated(), detox()).verdicts[0].comparable
        assert hb.aggregate(replicated(), detox(partition="step")).verdicts[0].comparable


class TestProof:
    def test_one_lost_vote_names_the_worker_for_the_whole_run(self):
        ledger = hb.Ledger()
        for step in range(20):
            matrix = replicated(step)
            if step == 3:
                matrix[4, 7] += 1
            ledger.add(hb.aggregate(matrix, detox()), step, GROUPS)
        assert kinds(ledger) == [("proof", "outvoted", 4)]
        assert ledger.suspects == (4,)
        account = ledger.report()["workers"][4]
        assert (account["proofs"], account["first_suspect_step"]) == ({"outvoted": 1}, 3)
        assert "outvoted 1" in str(ledger).splitlines()[5]

    def test_a_group_without_majority_is_a_notice_and_accuses_nobody_in_it(self):
        # Symptom: the honest replica of a group in which all three differ is accused. Cause: without a
        # majority the vote marks every row of the group.
        ledger, matrix, (split, _, outvoted) = hb.Ledger(), replicated(), GROUPS
        matrix[split[0], 0] += 1
        matrix[split[1], 0] += 2
        matrix[outvoted[2], 0] += 1
        ledger.add(hb.aggregate(matrix, detox()), 0, GROUPS)
        assert kinds(ledger) == [("notice", "no majority", None), ("proof", "outvoted", outvoted[2])]
        assert f"workers {', '.join(map(str, split))}" in ledger.evidence[0].detail
        assert ledger.suspects == (outvoted[2],)

    def test_so_is_a_vote_among_all_rows(self):
        ledger = hb.Ledger()
        ledger.add(hb.aggregate(rows(4), hb.MajorityVote()))
        assert kinds(ledger) == [("notice", "no majority", None)]

    def test_two_that_sent_nan_are_proven_in_a_group_without_majority(self):
        ledger, matrix, bad = hb.Ledger(), replicated(), GROUPS[1][:2]
        matrix[bad[0], 0], matrix[bad[1], 1] = np.nan, np.nan
        ledger.add(hb.aggregate(matrix, detox()), 0, GROUPS)
        assert ledger.suspects == bad

    @pytest.mark.parametrize(("bad", "notice"), [(4, False), (5, True), (9, True)])
    def test_over_half_non_finite_is_an_overflow_and_accuses_nobody(self, bad, notice):
        ledger, matrix = hb.Ledger(), rows()
        matrix[:bad, 0] = np.inf
        ledger.add(hb.aggregate(matrix, hb.Median()))
        assert ("notice", "overflow", None) in kinds(ledger) if notice else len(ledger.suspects) == bad
        assert ledger.suspects == (() if notice else tuple(range(bad)))

    def test_far_describes_and_does_not_accuse(self):
        ledger = hb.Ledger()
        for step in range(10):
            matrix = rows(seed=step)
            matrix[2] *= 100
            ledger.add(hb.aggregate(matrix, hb.Median()))
        assert ledger.report()["workers"][2]["reasons"] == {"far": 10}
        assert ledger.suspects == ()

    def test_what_others_enter_accuses_too(self):
        from horovod_byz.ledger.evidence import Evidence

        ledger = hb.Ledger(test=None)
        ledger.enter(Evidence(5, "proof", "state", worker=1))
        ledger.enter(Evidence(5, "notice", "altered in transit", worker=2))
        assert ledger.suspects == (1,)


class TestSuspicion:
    def ledger(self, test="exchangeable", steps=60, **settings):
        ledger = hb.Ledger(test=test, **settings)
        for step in range(steps):
            matrix = rows(seed=step)
            matrix[2] *= 0.2
            ledger.add(hb.aggregate(matrix, hb.Median()), step)
        return ledger

    def test_is_entered_once_with_its_e_value(self):
        ledger = self.ledger()
        (evidence,) = ledger.evidence
        assert (evidence.kind, evidence.reason, evidence.worker) == ("suspicion", "unlike the others", 2)
        assert evidence.detail.startswith("e-value ")
        assert evidence.detail.endswith(" over 40 steps")
        report = json.loads(ledger.to_json())
        assert (report["suspects"], report["test"], report["alpha"]) == ([2], "exchangeable", 1e-3)
        assert "shuffled" in report["assumes"]
        assert report["workers"][2]["suspicions"] == {"unlike the others": 1}
        assert report["workers"][2]["suspicion"] > np.log10(9 / 1e-3) > 0 > report["workers"][3]["suspicion"]

    def test_without_a_test_only_proof_names(self):
        ledger = self.ledger(test=None)
        assert ledger.suspects == ()
        assert ledger.report()["assumes"] is None
        assert ledger.report()["workers"][2]["suspicion"] is None


class TestState:
    @pytest.mark.parametrize("test", ["exchangeable", "own past", None])
    def test_round_trip(self, test, tmp_path):
        first = TestSuspicion().ledger(test)
        torch.save(first.state_dict(), tmp_path / "ledger.pt")
        second = hb.Ledger(test=test)
        second.load_state_dict(torch.load(tmp_path / "ledger.pt", weights_only=True))
        assert second.report() == first.report()
        for ledger in (first, second):
            ledger.add(hb.aggregate(rows(), hb.Median()), 60)
        assert second.report() == first.report()

    def test_of_an_earlier_version(self):
        old = {
            "worker": 0,
            "steps": 3,
            "weight": 1.0,
            "ignored": 0,
            "nonfinite": 4,
            "rewritten": 0,
            "absent": 1,
        }
        old |= {"distance": 0.0, "measured": 0, "last_suspect": 2, "group": None}
        old |= {"reasons": {"non-finite": 2, "far": 1}}
        ledger = hb.Ledger()
        ledger.load_state_dict({"steps": 3, "accounts": [old], "outvoted_ranks": {}})
        assert ledger.report()["workers"][0]["proofs"] == {"late": 1, "non-finite": 2}
        assert ledger.suspects == (0,)

    def test_ground_truth_keeps_an_operators_ledger_beside_its_sums(self):
        truth = GroundTruth(9, lambda step: (2,))
        for step in range(50):
            matrix = rows(seed=step)
            matrix[2] *= 50
            truth.add(hb.aggregate(matrix, hb.Median()), step)
        assert truth.whole.suspects == (2,)
        assert truth.summary()["workers"][2]["far_steps"] == 50
        assert truth.summary()["byzantine_rows_named"] == 1.0
        again = GroundTruth(9, lambda step: (2,))
        again.load_state_dict(truth.state_dict())
        assert again.whole.report() == truth.whole.report()
        state = truth.state_dict()
        del state["whole"]  # as checkpoints of earlier versions
        GroundTruth(9, lambda step: (2,)).load_state_dict(state)
