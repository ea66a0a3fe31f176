"""The attacks against their definitions and the papers' literal numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases import attacked
from horovod_byz import attacks, theory


def gradients(n, d, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


# Gaussian, omniscient and scaling attacks


def test_gaussian_moments():
    rows = attacked(attacks.Gaussian(), np.zeros((3, 100_000)), (0, 2))
    for row in rows[[0, 2]]:
        assert abs(row.mean()) < 4 * 200 / np.sqrt(100_000)
        assert abs(row.std() / 200 - 1) < 4 / np.sqrt(200_000)
    assert abs(np.corrcoef(rows[0], rows[2])[0, 1]) < 4 / np.sqrt(100_000)
    assert not rows[1].any()


def test_gaussian_tiles_and_steps_are_uncorrelated():
    rows = attacked(attacks.Gaussian(), np.zeros((1, 8192)), (0,))[0]
    later = attacked(attacks.Gaussian(), np.zeros((1, 8192)), (0,), step=1)[0]
    assert abs(np.corrcoef(rows[:4096], rows[4096:])[0, 1]) < 4 / 64
    assert abs(np.corrcoef(rows, later)[0, 1]) < 4 / np.sqrt(8192)


def test_gaussian_float32_is_the_rounded_float64():
    single = attacked(attacks.Gaussian(), np.zeros((1, 50), np.float32), (0,))
    double = attacked(attacks.Gaussian(), np.zeros((1, 50)), (0,))
    assert np.array_equal(single, double.astype(np.float32))


def test_omniscient_sums_the_honest_rows_only():
    rows = np.array([[1.0, -2.0], [3.0, 4.0], [7.0, 7.0], [9.0, 9.0]])
    expected = [[1, -2], [3, 4], [-4e20, -2e20], [-4e20, -2e20]]
    assert np.array_equal(attacked(attacks.Omniscient(), rows, (2, 3)), expected)
    assert np.array_equal(attacked(attacks.ModelNegation(), rows, (2, 3))[2], [-4e10, -2e10])
    assert attacks.Omniscient() != attacks.ModelNegation(scale=1e20)


def test_omniscient_saturates_in_float32():
    rows = np.array([[1e19], [0.0]], np.float32)
    assert attacked(attacks.Omniscient(), rows, (1,))[1, 0] == -np.inf


def test_scaling():
    rows = np.array([[1.0, -2.0], [3.0, 4.0]])
    assert np.array_equal(attacked(attacks.GradientScale(), rows, (1,)), [[1, -2], [3e10, 4e10]])
    assert np.array_equal(attacked(attacks.ReversedGradient(), rows, (0,)), [[-100, 200], [3, 4]])


def test_constant_rows():
    rows = gradients(3, 4)
    assert np.array_equal(attacked(attacks.Constant(), rows, (1,))[1], [-1] * 4)
    assert np.array_equal(attacked(attacks.Zero(), rows, (1,))[1], [0] * 4)
    assert np.isnan(attacked(attacks.NotANumber(), rows, (1,))[1]).all()


# Bit flip: exact values

FLIPS = [
    (0.0, -5.5340232e19),
    (-0.0, 5.5340232e19),
    (1.0, -2.7670116e19),
    (0.5, -1.3835058e19),
    (0.01, -2.5652503e17),
    (-0.01, 2.5652503e17),
    (1e-3, -2.7453944e16),
    (1e-20, -8.4038663e37),
    (2.0, -1.6263033e-19),
]


@pytest.mark.parametrize(("value", "flipped"), FLIPS)
def test_bit_flip_table(value, flipped):
    result = attacks.flip_bits(np.array([value], np.float32))
    assert f"{result[0]:.7e}" == f"{flipped:.7e}"
    rows = np.full((1, 1), value, np.float32)
    assert attacked(attacks.BitFlip(), rows, (0,))[0, 0] == result[0]
    assert attacked(attacks.BitFlip(), rows.astype(np.float64), (0,))[0, 0] == np.float64(result[0])


def test_bit_flip_exact_patterns():
    values = np.array([0.0, 1.0, -0.0], np.float32)
    assert attacks.flip_bits(values).view(np.uint32).tolist() == [0xE0400000, 0xDFC00000, 0x60400000]


@pytest.mark.parametrize(("value", "flipped"), [(1.0, -2.3058430e19), (0.0, -4.6116860e19)])
def test_bit_flip_one_based_reading(value, flipped):
    result = attacks.flip_bits(np.array([value], np.float32), (21, 29, 30, 31))
    assert f"{result[0]:.7e}" == f"{flipped:.7e}"


@pytest.mark.parametrize("value", [2.0**-64, 1.5 * 2.0**-64, 2.0**-63 * (1 - 2.0**-24)])
def test_bit_flip_of_exponent_field_63_is_not_finite(value):
    assert not np.isfinite(attacks.flip_bits(np.array([value], np.float32))[0])


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1), st.sets(st.integers(0, 31), min_size=1))
def test_bit_flip_is_an_involution(patterns, positions):
    values, positions = np.array(patterns, np.uint32).view(np.float32), tuple(positions)
    twice = attacks.flip_bits(attacks.flip_bits(values, positions), positions)
    assert np.array_equal(twice.view(np.uint32), values.view(np.uint32))


def test_bit_flip_hits_one_row_of_each_of_the_first_columns():
    rows = gradients(20, 3000, np.float32)
    hit = attacked(attacks.BitFlip(), rows, range(20), seed=5) != rows
    assert np.array_equal(hit.sum(axis=0), [1] * 1000 + [0] * 2000)
    counts = hit[:, :1000].sum(axis=1)
    assert counts.min() > 20  # uniform over the rows: 50 each, standard deviation 6.9
    assert counts.max() < 80
    assert np.array_equal(attacked(attacks.BitFlip(), rows, (0,), seed=5) != rows, hit)


def test_bit_flip_covers_all_columns_of_a_small_model():
    rows = gradients(5, 64, np.float32)
    assert np.array_equal((attacked(attacks.BitFlip(), rows, (0,)) != rows).sum(axis=0), [1] * 64)


# Gambler


def test_gambler_hits_one_server():
    rows, attack = gradients(20, 118_282, np.float32), attacks.Gambler(server=3)
    assert attack.attacked(118_282) == (17_742, 23_656)
    hit = attacked(attack, rows, range(20)) != rows
    assert not hit[:, :17_742].any()
    assert not hit[:, 23_656:].any()
    assert 59.14 - 4 * 7.7 < hit.sum() < 59.14 + 4 * 7.7
    values = attacked(attack, rows, range(20))[hit]
    assert np.array_equal(values, (-1e20 * rows[hit].astype(np.float64)).astype(np.float32))


def test_gambler_servers_cover_the_model_evenly():
    for d in (7, 20, 118_282):
        ranges = [attacks.Gambler(server=server).attacked(d) for server in range(20)]
        assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
        assert ranges[-1][1] == d
        assert {end - begin for begin, end in ranges} <= {d // 20, d // 20 + 1}


def test_gambler_server_is_drawn_once_per_seed():
    attack = attacks.Gambler()
    assert len({attack.attacked(2000, seed) for seed in range(200)}) == 20
    assert attack.attacked(2000, 7) == attack.attacked(2000, 7)


def test_gambler_harmless_on_zeros():
    rows = np.zeros((20, 5000), np.float32)
    assert not attacked(attacks.Gambler(probability=0.5), rows, (0,)).any()


# Inner product manipulation


def test_inner_product_rows():
    rows = np.array([[1.0, -2.0], [3.0, 4.0], [9.0, 9.0]])
    assert np.array_equal(attacked(attacks.InnerProduct(0.5), rows, (2,))[2], [-1.0, -0.5])
    assert np.array_equal(attacked(attacks.InnerProduct(-10), rows, (2,))[2], [20.0, 10.0])
    assert not attacked(attacks.InnerProduct(0), rows, (2,))[2].any()


@pytest.mark.parametrize("epsilon", [10.0, 0.1, 0.0, -10.0])
def test_median_equals_the_attack_where_it_lies_among_the_honest_values(epsilon):
    """12 equal rows of 25: the median is exactly theirs where 1 to 12 of the 13 honest values lie below."""
    n, f, d = 25, 12, 20_000
    rng = np.random.default_rng(0)
    gradient = 0.1 * rng.standard_normal(d)
    rows = gradient + rng.standard_normal((n, d))
    attacks.InnerProduct(epsilon)(rows, range(f))
    median, value, below = np.median(rows, axis=0), rows[0], (rows[f:] < rows[0]).sum(axis=0)
    among = (below >= 1) & (below <= 12)
    assert np.array_equal(median[among], value[among])
    if epsilon in (0.1, 0.0):
        assert among.mean() > 0.999
    honest = rows[f:].mean(axis=0)
    share = (median @ gradient) / (honest @ gradient)
    if epsilon == 0.1:
        assert share == pytest.approx(-0.1, abs=0.01)
    elif epsilon == 0.0:
        assert abs(share) < 0.01
    else:
        assert np.sign(share) == -np.sign(epsilon)
        assert abs(share) > 1


# A little is enough


def test_little_uses_the_population_deviation_of_its_view():
    rows = np.array([[1.0], [2.0], [3.0], [6.0]])
    attack = attacks.ALittleIsEnough
    assert attacked(attack(), rows, (3,))[3, 0] == pytest.approx(3 + np.sqrt(14 / 4))
    assert attacked(attack(z=2.0, sign=-1), rows, (3,))[3, 0] == pytest.approx(3 - 2 * np.sqrt(14 / 4))
    assert attacked(attack(view="honest"), rows, (3,))[3, 0] == pytest.approx(2 + np.sqrt(2 / 3))
    assert attacked(attack(view="byzantine"), rows, (2, 3))[2, 0] == pytest.approx(4.5 + 1.5)


def test_little_with_one_byzantine_view_sends_the_honest_gradient():
    rows = gradients(10, 50, np.float32)
    assert np.array_equal(attacked(attacks.ALittleIsEnough(view="byzantine"), rows, (4,)), rows)


def test_little_zmax_comes_from_theory():
    rows = gradients(45, 30)
    expected = attacked(attacks.ALittleIsEnough(z=theory.z_max(45, 5)), rows, range(5))
    assert np.array_equal(attacked(attacks.ALittleIsEnough(z="zmax"), rows, range(5)), expected)


# Counter-examples


@pytest.mark.parametrize("f", [1, 3])
def test_mean_counter_example(f):
    rows = gradients(8, 5)
    g = rows[f:].mean(axis=0)
    mean = attacked(attacks.MeanCounterExample(), rows, range(f)).mean(axis=0)
    assert np.allclose(mean, -g / 8, atol=1e-14)
    assert mean @ g == pytest.approx(-(g @ g) / 8)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_selection_counter_example(shape):
    rows = gradients(*shape)
    expected = theory.examples.selection_counter_example(rows, 1e6)
    result = attacked(attacks.SelectionCounterExample(), rows, (0,))
    assert np.array_equal(result, expected)
    assert ((result != rows).sum(axis=0) <= 1).all()


# Label flip


def test_labels():
    flip, y = attacks.LabelFlip(), np.array([0, 1, 7, 9], np.uint8)
    assert flip.labels(y, 10).tolist() == [9, 8, 2, 0]
    assert flip.labels(y, 10).dtype == np.uint8
    assert y.tolist() == [0, 1, 7, 9]
    assert flip.labels(3, 10) == 6
    assert flip.labels(np.array([], int), 10).shape == (0,)
    assert np.array_equal(flip.labels(flip.labels(y, 10), 10), y)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 9\), got 0\.\.9"):
        flip.labels(y, 9)
    with pytest.raises(ValueError, match="classes"):
        flip.labels(y, 0)


def test_labels_of_a_tensor():
    torch = pytest.importorskip("torch")
    flipped = attacks.LabelFlip().labels(torch.tensor([[0, 9], [4, 5]]), 10)
    assert torch.equal(flipped, torch.tensor([[9, 0], [5, 4]]))


def distance(a, b):
    return np.linalg.norm(a - b)


@pytest.mark.parametrize("direction", ["unit", "deviation", "sign"])
@pytest.mark.parametrize("kind", [attacks.MinMax, attacks.MinSum])
def test_hidden_rows_go_as_far_as_the_honest_ones_allow(kind, direction):
    """From the definitions: the row keeps the bound, and breaks it where it goes 0.1 % farther."""
    for seed in range(20):
        rows = gradients(9, 300, seed=seed) + 0.3
        honest = rows[2:].copy()
        kind(direction)(rows, (0, 1))
        assert np.array_equal(rows[0], rows[1])
        assert np.array_equal(rows[2:], honest)
        mean = honest.mean(axis=0)

        def spread(row, honest=honest):
            away = np.array([distance(row, other) for other in honest])
            between = np.array([[distance(a, b) for b in honest] for a in honest])
            if kind is attacks.MinMax:
                return away.max() / between.max()
            return (away**2).sum() / (between**2).sum(axis=1).max()

        assert spread(rows[0]) == pytest.approx(1, abs=1e-9)
        assert spread(mean + 1.001 * (rows[0] - mean)) > 1
        push = rows[0] - mean
        want = {"unit": -mean, "deviation": -honest.std(axis=0, ddof=1), "sign": -np.sign(mean)}[direction]
        cosine = push @ want / np.linalg.norm(push) / np.linalg.norm(want)
        assert cosine == pytest.approx(1, abs=1e-9)


def test_min_max_by_hand():
    """H = (0, 1), (2, 1): mu = (1, 1), the two are 2 apart; along -sign(mu) each is met at distance 2."""
    rows = np.array([[0.0, 1.0], [2.0, 1.0], [9.0, 9.0]])
    attacks.MinMax("sign")(rows, (2,))
    # |(1 - g - 2, -g)|^2 = (1 + g)^2 + g^2 = 4
    g = (-1 + np.sqrt(7)) / 2
    np.testing.assert_allclose(rows[2], [1 - g, 1 - g])


def test_hidden_rows_without_room_are_the_mean():
    rows = np.array([[1.0, 2.0], [1.0, 2.0], [5.0, 5.0]])
    attacks.MinMax()(rows, (2,))
    np.testing.assert_allclose(rows[2], [1.0, 2.0], rtol=1e-15)
    rows[1] = np.nan
    attacks.MinSum()(rows, (2,))
    assert np.isnan(rows[2]).all()  # their mean


def test_mimic_copies_the_worker_or_the_next_honest_one():
    rows = gradients(6, 10)
    before = rows.copy()
    attacks.Mimic(worker=4)(rows, (4, 5, 1))
    for byzantine in (1, 4, 5):
        np.testing.assert_array_equal(rows[byzantine], before[0])
    with pytest.raises(ValueError, match=r"worker 6 is not among the 6 workers 0\.\.5"):
        attacks.Mimic(worker=6)(rows, (0,))


def test_sign_flip_and_infinite():
    rows = gradients(5, 10)
    for of, like in (("own", attacks.ReversedGradient(c=1)), ("mean", attacks.InnerProduct(epsilon=1))):
        flipped, wanted = rows.copy(), rows.copy()
        attacks.SignFlip(of)(flipped, (0, 3))
        like(wanted, (0, 3))
        np.testing.assert_allclose(flipped, wanted, rtol=1e-15)
    attacks.Infinite(sign=-1)(rows, (2,))
    assert (rows[2] == -np.inf).all()
    assert np.isfinite(np.delete(rows, 2, axis=0)).all()
