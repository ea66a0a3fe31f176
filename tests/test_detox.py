"""Vote, hierarchical aggregation and DETOX, against the paper's algorithms and each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import horovod_byz as hb
import reference
from horovod_byz.aggregation.decision import Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Source
from horovod_byz.kernels.rows import Rows
from horovod_byz.rules import worst_case_votes
from horovod_byz.rules.detox import PRESETS
from sharding import run_sharded

H = np.array([1.0, -2.0, 3.0])


def rows(*values):
    return np.stack([np.asarray(value, np.float64) for value in values])


def up(value):
    """One unit in the last place more, in one coordinate."""
    changed = value.copy()
    changed[1] = np.nextafter(changed[1], np.inf)
    return changed


class TestVote:
    def test_majority_wins(self):
        result = hb.aggregate(rows(H, -H, H), hb.MajorityVote())
        np.testing.assert_array_equal(result.value, H)
        assert [v.reason for v in result.verdicts] == ["", "outvoted", ""]

    def test_a_minority_is_never_elected(self):
        result = hb.aggregate(rows(H, H, 2 * H, 3 * H, 4 * H), hb.MajorityVote())
        np.testing.assert_array_equal(result.value, 0 * H)
        assert all(v.reason == "outvoted" for v in result.verdicts)

    def test_one_bit_breaks_the_exact_vote_and_not_the_vote_with_a_tolerance(self):
        replicas = rows(H, up(H), -50 * H)
        np.testing.assert_array_equal(hb.MajorityVote()(replicas), 0 * H)
        result = hb.aggregate(replicas, hb.MajorityVote(tolerance=1e-6))
        np.testing.assert_array_equal(result.value, H)
        assert [v.reason for v in result.verdicts] == ["", "", "outvoted"]

    def test_equal_nan_rows_agree_but_do_not_reach_the_model(self):
        broken = np.full(3, np.nan)
        result = hb.aggregate(rows(broken, broken, broken), hb.MajorityVote())
        np.testing.assert_array_equal(result.value, np.zeros(3))
        assert [v.reason for v in result.verdicts] == ["non-finite"] * 3

    def test_signed_zeros_are_different_bits(self):
        np.testing.assert_array_equal(hb.MajorityVote()(rows([0.0, 1.0], [-0.0, 1.0])), [0.0, 0.0])

    @pytest.mark.parametrize("liar", [np.nan, np.inf, 1e300, 0.0])
    def test_the_elected_row_is_one_of_the_honest(self, liar):
        rng = np.random.default_rng(0)
        base = rng.normal(size=100)
        replicas = base + 1e-9 * rng.normal(size=(5, 100))
        replicas[[1, 3]] = liar
        value = hb.MajorityVote(tolerance=1e-6)(replicas)
        assert any((value == replicas[i]).all() for i in (0, 2, 4))

    @pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan")])
    def test_bad_tolerance(self, tolerance):
        with pytest.raises(ValueError, match="tolerance"):
            hb.MajorityVote(tolerance=tolerance)


class TestLazyVote:
    LAZY = hb.MajorityVote(lazy=True)

    @pytest.mark.parametrize("r", [1, 2, 3, 4, 5])
    def test_elects_the_same_bits_as_the_full_vote(self, r):
        rng = np.random.default_rng(r)
        for _ in range(200):
            data = np.stack([H, -H, np.full(3, np.nan)])[rng.integers(0, 3, size=r)]
            np.testing.assert_array_equal(self.LAZY(data), hb.MajorityVote()(data))

    def test_the_third_replica_is_read_only_on_a_mismatch(self):
        """Counted through the rows that the vote takes, of which one is the third."""
        data = np.stack([H, H, -H])
        quiet = hb.aggregate(data, self.LAZY)
        assert [v.reason for v in quiet.verdicts] == ["", "", "far"]  # not read by the vote, so not outvoted
        loud = hb.aggregate(data[[0, 2, 1]], self.LAZY)
        assert [v.reason for v in loud.verdicts] == ["", "outvoted", ""]

        read = []

        class Watched(Source):
            n, d = 3, 3

            def take(self, indices):
                read.extend(indices)
                return Rows(data).take(indices)

            def block(self, begin, end):
                return self

        statistics = Statistics(Watched())
        self.LAZY.elect(statistics, ((0, 1, 2),))
        assert read == [0, 1]
        read.clear()
        self.LAZY.elect(statistics, ((0, 2, 1),))
        assert sorted(set(read)) == [0, 1, 2]

    def test_shards_and_pipelines(self):
        redundancy = hb.Redundancy(3)
        full = hb.Detox(redundancy, hb.Mean(), hb.Median(), groups=5)
        lazy = hb.Detox(redundancy, hb.Mean(), hb.Median(), groups=5, vote=self.LAZY)
        data = np.empty((45, 9000), np.float32)
        for group in redundancy.groups_of(45):
            data[list(group)] = np.random.default_rng(group[0]).normal(size=9000)
        for liar in range(0, 45, 7):
            data[liar, liar] = 5.0
        value, _ = run_sharded(lazy, data, 2)
        np.testing.assert_array_equal(value, full(data))
        np.testing.assert_array_equal(lazy(data), full(data))

    def test_not_with_a_tolerance(self):
        with pytest.raises(ValueError, match="leave out one of the two"):
            hb.MajorityVote(tolerance=1e-6, lazy=True)


class TestHierarchical:
    def test_equals_algorithm_2(self):
        data = np.random.default_rng(1).normal(size=(15, 40))
        rule = hb.Hierarchical(hb.Mean(), hb.Median(), groups=5, seed=3)
        groups = rule.split(15, step=0)
        assert sorted(i for group in groups for i in group) == list(range(15))
        expected = reference.median(np.stack([data[group].mean(axis=0) for group in groups]))
        np.testing.assert_allclose(rule(data), expected, rtol=1e-14)

    def test_selection_inside_and_coordinates_across(self):
        data = np.random.default_rng(2).normal(size=(21, 30))
        rule = hb.Hierarchical(hb.Bulyan(f=1), hb.Krum(f=0), groups=3)
        groups = rule.split(21, step=0)
        inner = np.stack([reference.bulyan(data[group], 1) for group in groups])
        np.testing.assert_allclose(rule(data), reference.krum(inner, 0), rtol=1e-12)

    def test_linear_stages_fold_into_one_sum(self):
        data = np.random.default_rng(3).normal(size=(7, 5))
        result = hb.aggregate(data, hb.Hierarchical(hb.Mean(), hb.Mean(), groups=2))
        assert result.weights.sum() == pytest.approx(1)
        np.testing.assert_allclose(result.weights @ data, result.value, rtol=1e-14)
        assert sorted(set(result.weights.round(12))) == pytest.approx([1 / 8, 1 / 6])

    def test_nesting(self):
        data = np.random.default_rng(4).normal(size=(12, 6))
        inner = hb.Hierarchical(hb.Mean(), hb.Median(), groups=3)
        rule = hb.Hierarchical(inner, hb.Mean(), groups=2)
        parts = [inner(data[group]) for group in rule.split(12, step=0)]
        np.testing.assert_allclose(rule(data), np.mean(parts, axis=0), rtol=1e-13)

    def test_partition_by_step(self):
        rule = hb.Hierarchical(hb.Mean(), hb.Median(), groups=3, partition="step")
        splits = {str(rule.split(12, step)) for step in range(5)}
        assert len(splits) == 5
        fixed = hb.Hierarchical(hb.Mean(), hb.Median(), groups=3)
        assert str(fixed.split(12, 0)) == str(fixed.split(12, 4))

    def test_max_byzantine_counts_the_worst_case(self):
        # Five groups of three means: one bad row spoils a group, the median survives two of five.
        assert hb.Hierarchical(hb.Mean(), hb.Median(), groups=5).max_byzantine(15) == 2
        # Medians inside: it takes two rows of three, and the mean outside survives no bad group.
        assert hb.Hierarchical(hb.Median(), hb.Mean(), groups=5).max_byzantine(15) == 1

    def test_errors(self):
        with pytest.raises(ValueError, match="use groups <= 3"):
            hb.Hierarchical(hb.Mean(), hb.Median(), groups=4)(np.zeros((3, 2)))
        with pytest.raises(ValueError, match="MultiKrum"):
            hb.Hierarchical(hb.MultiKrum(f=2), hb.Mean(), groups=2)(np.zeros((12, 2)))
        with pytest.raises(TypeError, match="outer must be a rule"):
            hb.Hierarchical(hb.Mean(), hb.Median, groups=2)


class TestDetox:
    P, Q = 45, 5

    def gradients(self, redundancy, seed=0, d=60):
        rng = np.random.default_rng(seed)
        common = rng.normal(size=d)
        data = np.empty((self.P, d), np.float32)
        for group in redundancy.groups_of(self.P):
            data[list(group)] = (common + rng.normal(size=d)).astype(np.float32)
        return data, common

    def algorithm_1_and_2(self, rule, data):
        votes = []
        for group in rule.redundancy.groups_of(len(data)):
            replicas = [data[i] for i in group]
            winner = [
                a for a in replicas if 2 * sum(a.tobytes() == b.tobytes() for b in replicas) > len(group)
            ]
            votes.append(winner[0] if winner else np.zeros_like(replicas[0]))
        votes = np.stack(votes)
        groups = rule.hierarchy.split(len(votes), step=0)
        return rule.outer(np.stack([rule.inner(votes[group]) for group in groups]))

    @pytest.mark.parametrize("preset", PRESETS)
    @pytest.mark.parametrize("attack", ["none", "negated", "nan", "scaled"])
    def test_presets_equal_the_paper_step_by_step(self, preset, attack):
        redundancy = hb.Redundancy(r=3, seed=1)
        rule = hb.Detox.preset(preset, redundancy, self.P, self.Q)
        data, _ = self.gradients(redundancy)
        bad = [0, 7, 8, 20, 44]
        if attack != "none":
            data[bad] *= {"negated": -1, "nan": np.nan, "scaled": 1e20}[attack]
        result = hb.aggregate(data, rule)
        np.testing.assert_allclose(result.value, self.algorithm_1_and_2(rule, data), rtol=2e-6, atol=1e-7)
        assert np.isfinite(result.value).all()

    def test_one_flipped_bit_changes_nothing_and_is_named(self):
        redundancy = hb.Redundancy(r=3)
        rule = hb.Detox(redundancy, hb.Mean(), hb.Median(), groups=5)
        data, _ = self.gradients(redundancy)
        clean = hb.aggregate(data, rule)
        data.view(np.uint32)[17, 3] ^= 1 << 5
        flipped = hb.aggregate(data, rule)
        np.testing.assert_array_equal(flipped.value, clean.value)
        assert [v.worker for v in flipped.verdicts if v.reason == "outvoted"] == [17]

    def test_two_colluding_replicas_win_their_vote_and_the_outer_rule_survives(self):
        redundancy = hb.Redundancy(r=3, seed=2)
        rule = hb.Detox(redundancy, hb.Mean(), hb.Median(), groups=15)
        data, common = self.gradients(redundancy, d=2000)
        group = redundancy.groups_of(self.P)[4]
        data[list(group[:2])] = -1e6
        result = hb.aggregate(data, rule)
        assert [v.worker for v in result.verdicts if v.reason == "outvoted"] == [group[2]]
        assert np.abs(result.value - common).max() < 4

    @pytest.mark.parametrize("preset", PRESETS)
    def test_shards_give_the_same_bits(self, preset):
        redundancy = hb.Redundancy(r=3)
        rule = hb.Detox.preset(preset, redundancy, self.P, self.Q)
        data, _ = self.gradients(redundancy, d=9000)
        data[[3, 30]] = -data[[3, 30]]
        expected = hb.aggregate(data, rule)
        value, outcomes = run_sharded(rule, data, 2)
        np.testing.assert_array_equal(value, expected.value)
        for outcome in outcomes:
            np.testing.assert_array_equal(outcome.weights, expected.weights)
            np.testing.assert_array_equal(outcome.outvoted, [3, 30])

    def test_q_of_one_changes_no_bit(self):
        redundancy = hb.Redundancy(r=3)
        rule = hb.Detox.preset("multi-krum", redundancy, self.P, self.Q)
        data, _ = self.gradients(redundancy)
        expected = rule(data)
        for liar in range(self.P):
            attacked = data.copy()
            attacked[liar] = -1e20
            np.testing.assert_array_equal(rule(attacked), expected)

    def test_worst_case(self):
        assert worst_case_votes(5, 3) == 2
        assert worst_case_votes(5, 5) == 1
        assert worst_case_votes(1, 3) == 0
        rule = hb.Detox(hb.Redundancy(r=3), hb.Mean(), hb.Median(), groups=5)
        assert rule.max_byzantine(45) == 5
        assert "MultiKrum(f=2" in repr(hb.Detox.preset("multi-krum", hb.Redundancy(r=3), 45, 5))

    def test_errors_name_votes(self):
        rule = hb.Detox(hb.Redundancy(r=3), hb.MultiKrum(f=2), hb.Mean(), groups=2)
        with pytest.raises(ValueError, match=r"12 workers in redundancy groups of 3 give 4 votes: MultiKrum"):
            rule(np.zeros((12, 3)))
        with pytest.raises(TypeError, match="redundancy must be"):
            hb.Detox(3, hb.Mean(), hb.Median())


def test_plans_that_are_kept_fit_n_the_step_and_the_rule():
    """Against shards, which have no plan of one pass and decide anew."""
    rng = np.random.default_rng(3)
    rules = [
        hb.Detox(hb.Redundancy(3, seed=seed), inner, hb.Median(), groups=2, partition=partition)
        for seed in (0, 1)
        for partition in ("fixed", "step")
        for inner in (hb.Mean(), hb.Median())
    ]
    for _ in range(100):
        rule, n, step = rules[rng.integers(len(rules))], int(rng.integers(9, 17)), int(rng.integers(3))
        rows = np.empty((n, 8200), np.float32)
        for group in rule.redundancy.groups_of(n):
            rows[list(group)] = rng.standard_normal(8200)
            rows[group[rng.integers(len(group))]] += rng.integers(2)  # a minority at most
        result = hb.aggregate(rows, rule, step=step)
        value, outcomes = run_sharded(rule, rows, 2, step=step)
        np.testing.assert_array_equal(result.value, value)
        np.testing.assert_array_equal(result.weights, outcomes[0].weights)
        assert repr(result.verdicts) == repr(outcomes[0].verdicts)  # NaN equals NaN


def test_a_rule_without_a_hash_may_be_inside():
    @dataclasses.dataclass(frozen=True)
    class Listed(hb.Rule):
        options: list = dataclasses.field(default_factory=list)

        def max_byzantine(self, n):
            return 0

        def decide(self, statistics):
            return Weighted.uniform(statistics.n, range(statistics.n))

    rule = hb.Detox(hb.Redundancy(3), Listed(), hb.Median(), groups=2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(rule)
    rows = np.repeat(np.arange(6, dtype=np.float32)[:, None], 4, axis=1)
    for group in rule.redundancy.groups_of(6):
        rows[list(group)] = rows[group[0]]
    plain = hb.Detox(hb.Redundancy(3), hb.Mean(), hb.Median(), groups=2)
    np.testing.assert_array_equal(rule(rows), plain(rows))
    with pytest.raises(ValueError, match="got 2: use r <= 2"):
        rule.check(2)
