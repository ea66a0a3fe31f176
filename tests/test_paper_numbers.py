"""The papers' literal numbers that need an aggregation rule.

Rows and bounds come from `horovod_byz.theory`, attacks from `horovod_byz.attacks`.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import horovod_byz as hb
from horovod_byz import attacks, theory
from horovod_byz.theory import bias, empires, examples, resilience


def krum_scores(rows, f):
    """Sum of squared distances to the n - f - 2 nearest other rows (Definition 3), from the paper."""
    squared = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    others = [np.delete(row, i) for i, row in enumerate(squared)]
    return np.array([np.sort(row)[: len(rows) - f - 2].sum() for row in others])


# Toy examples of Fall of Empires


def test_toy_median():
    rows = examples.toy_median()
    assert hb.Median()(rows) == pytest.approx([-0.1])
    assert (hb.Median()(rows) * rows[:3].mean(axis=0)).item() < 0


def test_toy_krum():
    rows = examples.toy_krum()
    assert krum_scores(rows, 3) == pytest.approx(examples.TOY_KRUM_SCORES, abs=5e-5)
    assert hb.Krum(f=3)(rows).tolist() == [-0.1]
    assert hb.aggregate(rows, hb.Krum(f=3)).weights.tolist() == [1.0] + [0.0] * 8


def test_unsquared_distances_contradict_the_printed_scores():
    distances = np.abs(examples.toy_krum() - examples.toy_krum().T)
    assert np.sort(distances[0])[1:5].sum() == pytest.approx(0.22)


# Theorem 2 of Fall of Empires: the simplex witness


def test_simplex_witness_scores():
    rows = examples.simplex_witness(1.45)
    scores, bounds = krum_scores(rows, 11), empires.krum_attack(rows[11:], 11, 1.45)
    assert scores[:11] == pytest.approx([14.005] * 11, abs=5e-4)
    assert scores[11:] == pytest.approx([25.846] * 14, abs=5e-4)
    assert scores[0] <= bounds.byzantine_bound < bounds.honest_bound <= scores[11]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("epsilon", "byzantine"),
    [(0.1, True), (0.5, True), (1, True), (1.45, True), (2, True), (3, False), (5, False), (10, False)],
)
def test_krum_on_the_simplex(epsilon, byzantine, dtype):
    rows = examples.simplex_witness(epsilon).astype(dtype)
    chosen = hb.aggregate(rows, hb.Krum(f=11)).weights.argmax()
    assert (chosen < 11) == byzantine
    assert (float(hb.Krum(f=11)(rows)[0]) < 0) == byzantine


def test_the_attack_builds_the_witness():
    rows = examples.simplex_witness(0.0)
    attacks.InnerProduct(1.45)(rows, range(11))
    assert np.allclose(rows, examples.simplex_witness(1.45), atol=1e-14)
    assert hb.Krum(f=11)(rows)[0] == pytest.approx(-1.45)


# Inner product manipulation on the median


@pytest.mark.parametrize("epsilon", [10.0, 0.1, 0.0, -10.0])
def test_median_under_inner_product_manipulation(epsilon):
    rng = np.random.default_rng(0)
    gradient = 0.1 * rng.standard_normal(20_000)
    rows = gradient + rng.standard_normal((25, 20_000))
    attacks.InnerProduct(epsilon)(rows, range(12))
    median, below = hb.Median()(rows), (rows[12:] < rows[0]).sum(axis=0)
    among = (below >= 1) & (below <= 12)
    assert np.array_equal(median[among], rows[0][among])
    share = (median @ gradient) / (rows[12:].mean(axis=0) @ gradient)
    if epsilon in (0.1, 0.0):
        assert among.mean() > 0.999
        assert share == pytest.approx(-epsilon, abs=0.01)
    else:
        assert share * epsilon < -10


# Theorem 1 of Fall of Empires


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_values_below_the_honest_minimum_make_it_the_median(honest):
    rows = np.array(honest + [min(honest) - 1.0 - i for i in range(len(honest) - 1)])[:, None]
    assert hb.Median()(rows)[0] == min(honest)
    assert hb.Median()(rows)[0] <= empires.minimum_bound(np.array(honest)) + 1e-9


@pytest.mark.parametrize(("n", "f"), [(20, 2), (20, 6), (20, 9), (25, 12)])
def test_median_bias(n, f):
    d = 20_000
    rows = np.random.default_rng(1).standard_normal((n, d))
    rows[:f] = -1e20
    median = hb.Median()(rows)
    assert median.mean() == pytest.approx(bias.median_bias(n, f), abs=4 * median.std() / np.sqrt(d))


# Counter-examples of Xie et al. 2018


def test_mean_points_against_the_gradient():
    rng = np.random.default_rng(2)
    g = rng.standard_normal(7)
    rows = examples.mean_counter_example(g + rng.standard_normal((9, 7)), g)
    assert hb.Mean()(rows) == pytest.approx(-g / 10)
    assert hb.Mean()(rows) @ g == pytest.approx(-(g @ g) / 10)


@pytest.mark.parametrize("rule", [hb.Krum(f=3), hb.Medoid()], ids=repr)
def test_selection_falls_without_bound(rule):
    g, rows = np.ones(12), 1 + 0.1 * np.random.default_rng(3).standard_normal((12, 12))
    products = [rule(examples.selection_counter_example(rows, scale)) @ g for scale in (1e3, 1e6, 1e9)]
    assert products[0] < 0
    assert np.diff(np.log10(np.abs(products))) == pytest.approx([3, 3], abs=0.1)


@pytest.mark.parametrize("rule", [hb.Median(), hb.MeanAroundMedian(f=3)], ids=repr)
def test_coordinate_rules_stay_with_the_honest_values(rule):
    rows = 1 + 0.1 * np.random.default_rng(3).standard_normal((12, 12))
    for scale in (1e3, 1e6, 1e9):
        value = rule(examples.selection_counter_example(rows, scale))
        honest = np.where(np.eye(12, dtype=bool), np.nan, rows)
        low, high = np.nanmin(honest, axis=0), np.nanmax(honest, axis=0)
        assert (value >= low - (high - low)).all()
        assert (value <= high + (high - low)).all()


# Lemmas 3 to 5 and the second moments of Theorems 4 and 5


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 20), st.data())
def test_lemma_3(n, data):
    """Honest rows in the unit ball, the others at any distance: the geometric median stays within c_f."""
    f = data.draw(st.integers(0, (n - 1) // 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = rng.standard_normal((n, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[f:] *= rng.random((n - f, 1))
    rows[:f] *= 10.0 ** data.draw(st.integers(0, 20))
    bound = resilience.geometric_median_bound(n, f, 1.0)
    assert np.linalg.norm(hb.GeometricMedian()(rows)) <= bound * (1 + 1e-6)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12), st.data())
def test_lemmas_4_and_5(honest, data):
    f = data.draw(st.integers(0, len(honest) - 1))
    byzantine = data.draw(st.lists(st.floats(-1e20, 1e20), min_size=f, max_size=f))
    rows = np.array(byzantine + honest)[:, None]
    median, around = float(hb.Median()(rows)[0]), float(hb.MeanAroundMedian(f=f)(rows)[0])
    low, high = resilience.median_interval(honest)
    assert low <= median <= high
    radius = resilience.mean_around_median_radius(honest, median)
    assert abs(around - median) <= radius * (1 + 1e-9) + 1e-9


ATTACKS = [
    attacks.Gaussian(),
    attacks.Omniscient(),
    attacks.InnerProduct(0.1),
    attacks.ALittleIsEnough(),
    attacks.ReversedGradient(c=1),
    attacks.Zero(),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("median", hb.Median()),
        ("mean-around-median", hb.MeanAroundMedian(f=6)),
        ("geometric-median", hb.GeometricMedian()),
        ("krum", hb.Krum(f=6)),
    ],
)
def test_second_moment_bounds(name, rule, attack):
    """Mean of |aggregate - g|^2 over 50 draws of 20 rows, 6 of them Byzantine, is below eta^2 d sigma^2."""
    n, f, d, rng = 20, 6, 30, np.random.default_rng(4)
    g, errors = rng.standard_normal(d), []
    for step in range(50):
        rows = g + rng.standard_normal((n, d))
        attack(rows, range(f), step=step)
        errors.append(((rule(rows) - g) ** 2).sum())
    assert np.mean(errors) <= resilience.second_moment_bound(name, n, f, d, 1.0)


def test_geometric_median_bias():
    """n = 20, f = 6 rows far away: bias 0.474 sigma sqrt(d), less what a finite n - f takes off.

    The calculator takes the honest rows' distances from their expectation; the geometric median sits near
    their mean, from which they are closer by sqrt(1 - 1 / (n - f)).
    """
    d, expected = 5000, bias.geometric_median_bias(20, 6)
    rows = np.random.default_rng(5).standard_normal((20, d))
    rows[:6] = 0
    rows[:6, 0] = 1e9
    measured = hb.GeometricMedian()(rows)[0] / np.sqrt(d)
    assert 0.99 * expected * np.sqrt(1 - 1 / 14) < measured < expected


# The medoid under the omniscient attack: float64 saves it


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_medoid_survives_the_omniscient_attack(dtype):
    rows = (0.1 + 0.01 * np.random.default_rng(6).standard_normal((20, 50))).astype(dtype)
    attacks.Omniscient()(rows, range(6))
    assert np.isfinite(rows).all()
    assert hb.aggregate(rows, hb.Medoid()).weights.argmax() >= 6


# The gambler: what the calculator predicts for the mean around the median


@pytest.mark.parametrize(("f", "crashes"), [(1, True), (3, False)])
def test_mean_around_median_under_the_gambler(f, crashes):
    """A server of 8,192 coordinates: two hits in a column are certain, four next to impossible."""
    d, rounds = 8192, 60
    gamble = theory.Gamble(d=d, servers=1, rounds=rounds)
    assert gamble.coordinate_crash(1) > 0.99
    assert gamble.coordinate_crash(3) < 1e-3
    rows = 1 + 0.1 * np.random.default_rng(7).standard_normal((20, d))
    attack, rule, worst = attacks.Gambler(servers=1), hb.MeanAroundMedian(f=f), 0.0
    for step in range(rounds):
        hit = rows.copy()
        attack(hit, range(20), step=step)
        columns = np.flatnonzero((hit != rows).sum(axis=0) > 1)
        if len(columns):
            worst = max(worst, float(np.abs(rule(np.ascontiguousarray(hit[:, columns]))).max()))
    assert (worst > 1e15) == crashes


# Bit flips


def test_bit_flip_breaks_selection_and_leaves_the_median():
    rows = (0.01 * np.random.default_rng(8).standard_normal((20, 2000))).astype(np.float32)
    attacks.BitFlip()(rows, range(20))
    assert np.abs(hb.Krum(f=8)(rows)).max() > 1e10
    assert np.abs(hb.Mean()(rows)).max() > 1e10
    assert np.abs(hb.Median()(rows)).max() < 0.1
    assert np.abs(hb.MeanAroundMedian(f=8)(rows)).max() < 0.1


def test_nan_rows_reach_no_model():
    rows = 1 + 0.1 * np.random.default_rng(9).standard_normal((10, 20))
    attacks.NotANumber()(rows, (0, 4))
    for rule in (hb.Mean(), hb.Median(), hb.Krum(f=2), hb.GeometricMedian(), hb.BrSGD()):
        assert np.isfinite(rule(rows)).all()
        assert np.abs(rule(rows) - 1).max() < 0.5


# Preconditions: the calculators and the rules say the same


@pytest.mark.parametrize("rule", [hb.TrimmedMean, hb.MeanAroundMedian, hb.Krum, hb.MultiKrum, hb.Bulyan])
def test_rules_refuse_what_the_theory_excludes(rule):
    name = {
        hb.MeanAroundMedian: "mean-around-median",
        hb.MultiKrum: "multi-krum",
        hb.TrimmedMean: "trimmed-mean",
    }
    entry = theory.requirement(name.get(rule, rule.__name__.lower()))
    for f in range(6):
        rows = np.random.default_rng(f).standard_normal((entry.minimum(f), 3))
        assert rule(f=f)(rows).shape == (3,)
        if len(rows) > 1:
            with pytest.raises(ValueError, match=f"f={f}"):
                rule(f=f)(rows[:-1])
