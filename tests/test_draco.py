"""DRACO: both codes give back the mean of all batches, and name the liars, whatever f workers send."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch

import horovod_byz as hb
import reference
import training
from horovod_byz.rules import cyclic
from horovod_byz.training import config as configs
from sharding import run_sharded

# Every f up to the limit for small n, odd and even; the paper's 45 + 1 workers.
SMALL = [(n, f) for n in (3, 4, 5, 8, 9, 14) for f in range((n - 1) // 2 + 1)]
LARGE = [(45, 2), (45, 5), (46, 5), (45, 22), (46, 22)]
LIES = ["nan", "inf", "huge", "zero", "negated", "random", "colluding", "one value", "a bit", "mixed"]


def encoded(rule, n, d=257, dtype=np.float32, seed=0):
    """The gradients of all batches, with a common part, and the rows that honest workers send."""
    rng = np.random.default_rng([seed, n])
    gradients = (rng.normal(size=d) + rng.normal(size=(rule.batch_count(n), d))).astype(dtype)
    sent = [rule.encode(gradients[list(rule.batches(i, n))], i, n) for i in range(n)]
    return gradients.astype(np.float64).mean(axis=0), np.stack(sent)


@functools.cache
def amplification(code, n, f):
    """The worst case over all sets of liars, which takes a second for 46 rows and depends on nothing else."""
    return hb.Draco(f=f, code=code).amplification(n)


def lie(rows, liars, kind, seed=0):
    rng = np.random.default_rng([seed, 1])
    same = rng.normal(size=rows.shape[1])
    for turn, i in enumerate(liars):
        now = LIES[turn % 7] if kind == "mixed" else kind
        if now == "random":
            rows[i] += rng.normal(size=rows.shape[1])
        elif now == "colluding":
            rows[i] = same
        elif now == "one value":
            rows[i, 33] += 3.0
        elif now == "a bit":
            rows[i] *= 1.01
        else:
            rows[i] = {"nan": np.nan, "inf": -np.inf, "huge": 1e30, "zero": 0.0, "negated": -rows[i]}[now]


def named(result):
    return [v.worker for v in result.verdicts if v.reason in ("outvoted", "non-finite")]


class TestCode:
    @pytest.mark.parametrize(("n", "f"), SMALL + LARGE)
    def test_what_the_code_promises(self, n, f):
        b, h = cyclic.coefficients(n, f), cyclic.parity(n, f)
        assert b.shape == (n, n)
        assert (np.count_nonzero(b, axis=0) == 2 * f + 1).all()
        for k in range(n):
            assert set(np.flatnonzero(b[:, k])) == {(k + j) % n for j in range(2 * f + 1)}
        np.testing.assert_allclose(b.sum(axis=0), 1.0, rtol=1e-12)
        np.testing.assert_allclose(h @ b, 0.0, atol=1e-14)
        if n % 2:
            assert (b[np.nonzero(b)] > 0).all()
            np.testing.assert_allclose(b.sum(axis=1), 1.0, rtol=1e-12)

    @pytest.mark.parametrize(("n", "f"), [(n, f) for n, f in SMALL if n <= 9 and f])
    def test_the_distance_is_2f_plus_1(self, n, f):
        """Any 2f columns of the checks are independent, so f errors never look like f others."""
        h = cyclic.parity(n, f)
        for chosen in itertools.combinations(range(n), 2 * f):
            assert np.linalg.svd(h[:, chosen], compute_uv=False)[-1] > 1e-4

    @pytest.mark.parametrize("erased", [(), (0,), (3, 7), (4, 5, 6)])
    def test_checks_without_erased_rows(self, erased):
        basis, checks = cyclic.checks_without(9, 3, erased)
        np.testing.assert_allclose(basis.T @ basis, np.eye(6 - len(erased)), atol=1e-15)
        np.testing.assert_allclose(basis.T @ cyclic.parity(9, 3), checks, atol=1e-14)
        assert not checks[:, list(erased)].any()

    @pytest.mark.parametrize(("n", "f"), [(n, f) for n, f in SMALL if f] + LARGE)
    def test_recovery_is_unbiased_and_reads_no_erased_row(self, n, f):
        b, worst = cyclic.coefficients(n, f), amplification("cyclic", n, f)
        rng = np.random.default_rng(n)
        for size in (0, 1, f):
            for _ in range(5):
                erased = tuple(sorted(rng.choice(n, size, replace=False).tolist()))
                u = cyclic.recovery(n, f, erased)
                assert not u[list(erased)].any()
                np.testing.assert_allclose(u @ b, 1 / n, rtol=1e-6, atol=1e-9)
                assert np.abs(u).sum() <= worst * (1 + 1e-9)
        np.testing.assert_array_equal(cyclic.recovery(n, f, ()), np.full(n, 1 / n))

    def test_stated_amplifications(self):
        assert cyclic.amplification(20, 3) == pytest.approx(6.3, abs=0.05)
        assert cyclic.amplification(45, 5) == pytest.approx(254, abs=1)
        assert cyclic.separation(45, 2) == pytest.approx(2.1e-4, rel=0.01)
        assert cyclic.separation(45, 5) == pytest.approx(2.6e-8, rel=0.01)

    def test_sines_are_correctly_rounded(self):
        sines = cyclic._sines(45)
        np.testing.assert_allclose(sines, np.sin(np.pi * np.arange(180) / 90), rtol=0, atol=1e-15)
        assert sines[0] == sines[90] == 0.0
        assert sines[45] == -sines[135] == 1.0


@pytest.mark.parametrize("code", ["repetition", "cyclic"])
class TestRule:
    @pytest.mark.parametrize("kind", LIES)
    @pytest.mark.parametrize(("n", "f"), SMALL + LARGE)
    def test_the_mean_of_all_batches_comes_back(self, code, n, f, kind):
        rule = hb.Draco(f=f, code=code, seed=n + f)
        mean, rows = encoded(rule, n)
        for count in sorted({0, 1, f} & set(range(f + 1))):
            liars = sorted(np.random.default_rng([n, count]).choice(n, count, replace=False).tolist())
            sent = rows.copy()
            lie(sent, liars, kind)
            before = sent.copy()
            result = hb.aggregate(sent, rule)
            np.testing.assert_array_equal(sent, before)
            error = np.linalg.norm(result.value - mean) / np.linalg.norm(mean)
            assert error <= 4 * np.finfo(np.float32).eps * amplification(code, n, f)
            assert named(result) == liars
            assert not result.weights[liars].any()

    def test_neighbours_in_the_code(self, code):
        """Where the code is weakest: the whole run of f liars, also across its end."""
        rule = hb.Draco(f=3, code=code)
        mean, rows = encoded(rule, 20)
        at = np.argsort(rule._places(20))
        bound = 4 * np.finfo(np.float32).eps * rule.amplification(20)
        for start in range(20):
            liars = sorted(int(at[(start + j) % 20]) for j in range(3))
            sent = rows.copy()
            lie(sent, liars, "colluding")
            result = hb.aggregate(sent, rule)
            assert named(result) == liars
            assert np.linalg.norm(result.value - mean) <= bound * np.linalg.norm(mean)

    def test_float64(self, code):
        rule = hb.Draco(f=3, code=code)
        mean, rows = encoded(rule, 11, dtype=np.float64)
        lie(rows, [1, 5, 6], "a bit")
        result = hb.aggregate(rows, rule)
        np.testing.assert_allclose(result.value, mean, rtol=1e-12, atol=1e-13)
        assert named(result) == [1, 5, 6]

    @pytest.mark.parametrize("kind", ["mixed", "colluding"])
    def test_shards_give_the_same_bits(self, code, kind):
        rule = hb.Draco(f=3, code=code)
        _, rows = encoded(rule, 9, d=20_000)
        lie(rows, [0, 4, 7], kind)
        want = hb.aggregate(rows, rule)
        for count in (2, 3):
            value, outcomes = run_sharded(rule, rows, count)
            np.testing.assert_array_equal(value, want.value)
            for outcome in outcomes:
                np.testing.assert_array_equal(outcome.weights, want.weights)
                assert outcome.outvoted.tolist() == [0, 4, 7]

    def test_zeros_everywhere(self, code):
        np.testing.assert_array_equal(hb.Draco(f=2, code=code)(np.zeros((7, 3), np.float32)), np.zeros(3))

    def test_errors(self, code):
        with pytest.raises(ValueError, match=r"needs n > 2f = 8 rows, got n = 8: use f <= 3 or at least 9"):
            hb.Draco(f=4, code=code)(np.zeros((8, 2)))
        with pytest.raises(ValueError, match="gradients: give those of"):
            hb.Draco(f=1, code=code).encode(np.zeros((5, 2)), 0, 5)
        with pytest.raises(ValueError, match=r"worker 5 is not among the 5 workers"):
            hb.Draco(f=1, code=code).batches(5, 5)
        with pytest.raises(ValueError, match="tolerance"):
            hb.Draco(f=1, code=code, tolerance=float("nan"))


class TestCyclic:
    @pytest.mark.parametrize("kind", LIES)
    @pytest.mark.parametrize(("n", "f"), [(5, 1), (6, 2), (7, 2), (7, 3), (8, 3)])
    def test_equals_the_search_over_all_sets(self, n, f, kind):
        rule = hb.Draco(f=f, code="cyclic")
        _, rows = encoded(rule, n, d=40, dtype=np.float64)
        liars = sorted(np.random.default_rng(n).choice(n, f, replace=False).tolist())
        lie(rows, liars, kind)
        value, erased = reference.draco_cyclic(rows, rule.coefficients(n), f)
        assert list(erased) == liars
        np.testing.assert_allclose(rule(rows), value, rtol=1e-9, atol=1e-9)

    def test_without_liars_it_is_the_mean_of_the_rows(self):
        rule = hb.Draco(f=2, code="cyclic")
        _, rows = encoded(rule, 9)
        np.testing.assert_array_equal(rule(rows), hb.Mean()(rows))

    def test_one_flipped_bit_of_weight_is_named(self):
        rule = hb.Draco(f=2, code="cyclic")
        _, rows = encoded(rule, 9)
        rows.view(np.uint32)[6, 33] ^= 1 << 25
        assert named(hb.aggregate(rows, rule)) == [6]

    def test_a_lie_below_the_tolerance_moves_the_result_by_less(self):
        rule = hb.Draco(f=2, code="cyclic", tolerance=1e-3)
        mean, rows = encoded(rule, 9)
        lies = 1e-4 * np.linalg.norm(rows[3])
        rows[3, 0] += lies
        result = hb.aggregate(rows, rule)
        assert named(result) == []
        assert np.linalg.norm(result.value - mean) <= lies

    def test_an_error_that_a_known_random_vector_would_not_see(self):
        """Orthogonal to the vector of ones, to which a projection might have been drawn."""
        rule = hb.Draco(f=1, code="cyclic")
        _, rows = encoded(rule, 5, d=100)
        rows[2] += np.tile([1.0, -1.0], 50).astype(np.float32)
        assert named(hb.aggregate(rows, rule)) == [2]

    @pytest.mark.parametrize("kind", ["nan", "random", "huge"])
    def test_too_many_liars_give_zero_and_say_so(self, kind):
        rule = hb.Draco(f=2, code="cyclic")
        _, rows = encoded(rule, 9)
        lie(rows, [0, 2, 3, 5, 8], kind)
        result = hb.aggregate(rows, rule)
        np.testing.assert_array_equal(result.value, np.zeros(257))
        assert named(result) == list(range(9))

    def test_encode_keeps_the_type(self):
        rule = hb.Draco(f=1, code="cyclic")
        sent = rule.encode([torch.ones(4)] * 3, 0, 5)
        assert sent.dtype == torch.float32
        assert torch.allclose(sent, torch.ones(4))


COMMON = {"workers": 9, "steps": 4, "data": {"name": "digits", "batch": 12}}


def trained(**options):
    return training.trained(**{**COMMON, **options})


class TestTraining:
    def test_cyclic_trains_as_the_mean_of_all_batches(self):
        mean = trained(rule="mean").theta
        for attack in ({}, {"byzantine": 2, "attack": "omniscient"}):
            theta = trained(rule="draco:f=2,code=cyclic", **attack).theta
            assert float((theta - mean).detach().abs().max()) < 1e-6

    def test_repetition_is_not_moved_by_a_bit(self):
        clean = trained(rule="draco:f=1", redundancy=3)
        attacked = trained(rule="draco", redundancy=3, byzantine=1, attack="omniscient")
        assert torch.equal(clean.theta, attacked.theta)

    def test_a_poisoned_worker_is_located(self):
        options = {"byzantine": 1, "attack": "label-flip", "schedule": "first"}
        poisoned = trained(rule="draco:code=cyclic", **options)
        clean = trained(rule="draco:f=1,code=cyclic")
        assert float((poisoned.theta - clean.theta).abs().max()) < 1e-6

    @pytest.mark.parametrize(("redundancy", "rule"), [(1, "draco:f=1"), (3, "draco:f=1,code=cyclic")])
    def test_redundancy_must_fit(self, redundancy, rule):
        with pytest.raises(configs.ConfigError, match=r"needs redundancy groups of r = 2f|use redun"):
            configs.make({**COMMON, "redundancy": redundancy, "rule": rule})
