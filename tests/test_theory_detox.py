"""Redundancy and vote groups (DETOX): exact values, bounds, and where Theorem 3 does not apply."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from horovod_byz import theory
from horovod_byz.cli import theory_command
from horovod_byz.theory import (
    detox,
)

# Byzantine votes under redundancy

EXPECTED_VOTES = [
    (5, 3, 0.433404),
    (5, 5, 0.058939),
    (5, 9, 0.000516),
    (1, 3, 0.0),
    (2, 3, 0.045455),
    (10, 3, 1.791755),
    (10, 9, 0.082615),
]


@pytest.mark.parametrize(("f", "r", "expected"), EXPECTED_VOTES)
def test_expected_byzantine_votes(f, r, expected):
    assert theory.expected_byzantine_votes(45, f, r) == pytest.approx(expected, abs=5e-7)


def test_vote_failure_and_pmf():
    assert float(detox.vote_failure(45, 5, 3)) == pytest.approx(0.028894, abs=5e-7)
    assert theory.byzantine_votes_pmf(45, 5, 3) == pytest.approx((0.597277, 0.372041, 0.030681), abs=5e-7)


@given(st.integers(1, 12), st.sampled_from([1, 3, 5]), st.data())
def test_pmf_sums_to_one_and_has_the_exact_mean(groups, r, data):
    n = groups * r
    f = data.draw(st.integers(0, n))
    pmf = theory.byzantine_votes_pmf(n, f, r)
    assert sum(pmf) == pytest.approx(1)
    mean = sum(k * p for k, p in enumerate(pmf))
    assert mean == pytest.approx(theory.expected_byzantine_votes(n, f, r), abs=1e-12)
    assert pmf[-1] > 0
    assert mean <= detox.byzantine_votes_bound(n, f, r) + 1e-12


def test_pmf_by_enumeration():
    n, f, r = 9, 4, 3
    counts = np.zeros(3)
    for chosen in itertools.combinations(range(n), f):
        counts[sum(sum(w // r == g for w in chosen) >= 2 for g in range(3))] += 1
    assert theory.byzantine_votes_pmf(n, f, r) == pytest.approx(tuple(counts / math.comb(n, f)))


def test_votes_by_simulation():
    rng = np.random.default_rng(0)
    byzantine = np.argsort(rng.random((20_000, 45)), axis=1) < 5
    votes = (byzantine.reshape(-1, 15, 3).sum(axis=2) >= 2).sum(axis=1)
    assert abs(votes.mean() - 0.433404) < 4 * votes.std() / math.sqrt(20_000)


def test_bound_and_worst_case():
    assert detox.byzantine_votes_bound(45, 5, 3) == pytest.approx(3 * 0.185185, abs=1e-6)
    assert [detox.worst_case_byzantine_votes(45, 5, r) for r in (3, 5, 9)] == [2, 1, 1]
    assert detox.worst_case_byzantine_votes(9, 9, 3) == 3


@pytest.mark.parametrize(
    ("f", "r", "odd"), [(1, 3, 3), (2, 5, 5), (3, 6.17, 7), (5, 7.64, 9), (8, 9, 9), (16, 11, 11)]
)
def test_corollary_2_redundancy(f, r, odd):
    assert detox.required_redundancy(f) == pytest.approx(r, abs=5e-3)
    assert detox.smallest_redundancy(f) == odd


@pytest.mark.parametrize(("delta", "tail"), [(0.1, 5.61), (0.05, 6.99), (0.01, 10.21)])
def test_corollary_2_tail(delta, tail):
    assert detox.byzantine_votes_tail(delta) == pytest.approx(tail, abs=5e-3)


def test_corollary_2_holds_where_it_applies():
    """f = 8, r = 9: the exact probability of more than 1 + 2 ln(1 / delta) votes is below delta."""
    pmf = theory.byzantine_votes_pmf(45, 8, 9)
    for delta in (0.4, 0.1, 0.01):
        assert sum(p for k, p in enumerate(pmf) if k > detox.byzantine_votes_tail(delta)) <= delta


@pytest.mark.parametrize(("n", "r", "message"), [(45, 4, "odd"), (45, 7, "use n = 42 or 49"), (45, 0, "odd")])
def test_redundancy_errors(n, r, message):
    with pytest.raises(ValueError, match=message):
        theory.expected_byzantine_votes(n, 5, r)


# Theorem 3 of DETOX


def test_required_vote_groups():
    assert detox.required_vote_groups(0.5) == pytest.approx(88.7, abs=0.05)
    assert detox.required_vote_groups(0.1) == pytest.approx(295, abs=0.5)
    assert detox.required_vote_groups(0.1, d=11_173_962) == pytest.approx(2372, abs=0.5)


def test_theorem_3_never_applies_to_the_papers_experiments():
    for r, outer in itertools.product((3, 9), ("geometric-median", "median", "trimmed-mean")):
        bound = detox.oracle_bound(45, 5, r, 1440, 0.1, outer, d=11_173_962)
        assert str(bound).startswith("not applicable: it needs")
    with pytest.raises(ValueError, match="pass d="):
        detox.oracle_bound(45, 5, 3, 1440, 0.1, "median")
    with pytest.raises(ValueError, match="delta < 1/2"):
        detox.oracle_bound(45, 5, 3, 1440, 0.5)


def test_theorem_3_applies_to_a_large_cluster():
    bound = detox.oracle_bound(9000, 8, 9, 18_000, 0.1)
    assert bound.applies
    assert str(bound) == "error <= c sigma 0.01131 with 295 vote groups"
    weak = detox.oracle_bound(9000, 8, 3, 18_000, 0.1)
    assert str(weak) == "not applicable: r = 3 is below 3 + 2 log2(f) = 9.00"


def test_variances():
    assert detox.vote_variance(45, 3, 1440) == pytest.approx(1 / 96)
    assert detox.vote_group_variance(5, 1440) == pytest.approx(1 / 288)
    assert detox.vote_variance(45, 3, 1440) * 5 / 15 == pytest.approx(detox.vote_group_variance(5, 1440))


def test_vote_group_variance_by_simulation():
    """Mean of 3 votes, each the mean of 96 samples: variance 1 / 288 within 5 %."""
    samples = np.random.default_rng(0).standard_normal((4000, 3, 96))
    assert samples.mean(axis=2).mean(axis=1).var() == pytest.approx(1 / 288, rel=0.05)


# Algorithm 1 for real, and the command


def test_partition_and_vote_for_real():
    """Within four standard errors of the exact mean, and of each probability."""
    runs = 1500
    drawn, exact = detox.simulated_votes(45, 5, 3, runs), theory.byzantine_votes_pmf(45, 5, 3)
    for share, p in zip(drawn, exact, strict=True):
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / runs)
    assert detox.simulated_votes(45, 1, 3, 50) == (1.0,)


@pytest.fixture
def printed():
    """What `horovod-byz theory` prints, without line breaks inside cells."""

    def run(*arguments):
        result = CliRunner().invoke(theory_command.app, arguments, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_the_command_prints_everything(printed):
    text = printed("detox", "--p", "45", "--q", "5", "--r", "3")
    for value in (
        "0.433404",
        "0.597277",
        "0.372041",
        "0.030681",
        "0.5556",
        "not applicable: it asks for r >= 7.64, so 9",
        "88.7 (not applicable: there are 15 votes)",
        "not applicable: it needs 295 vote groups, and there are 15 votes",
        "sigma^2 / 96",
        "k = 5",
        "sigma^2 / 288",
    ):
        assert value in text, value
    assert "worst case" in text


def test_the_command_where_the_theorems_apply(printed):
    text = printed("detox", "--p", "9000", "--q", "8", "--r", "9", "--runs", "0")
    assert "with 295 vote groups" in text
    assert "at most 5.61 with probability 0.9" in text
    assert "drawn" not in text


def test_the_command_refuses_what_has_no_answer():
    result = CliRunner().invoke(theory_command.app, ["detox", "--p", "45", "--q", "5", "--r", "4"])
    assert result.exit_code == 2
    assert "odd number of replicas" in " ".join(result.output.split())


def test_advice_knows_redundancy(printed):
    options = {option.rule: option for option in theory.recommend(45, 5).redundant}
    assert options["detox-multi-krum (r = 3)"].tolerates
    assert options["detox-median (r = 3)"].largest_f == 5
    assert "3 x compute" in options["detox-bulyan (r = 3)"].cost
    assert (options["draco"].largest_f, options["draco"].tolerates) == (22, True)
    assert not {option.rule: option for option in theory.recommend(45, 12).redundant}[
        "detox-median (r = 3)"
    ].tolerates
    assert [option.rule for option in theory.recommend(2, 0).redundant] == ["draco"]
    assert "detox-multi-krum (r = 5)" in printed("recommend", "--n", "45", "--f", "5", "--r", "5")
