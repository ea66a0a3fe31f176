"""What every attack promises: same bits for every split, only its rows written, defined corner cases."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import attacked
from horovod_byz import attacks
from horovod_byz.attacks.randomness import TILE

EXAMPLES = [
    attacks.ALittleIsEnough(),
    attacks.ALittleIsEnough(z="zmax", view="byzantine", sign=-1),
    attacks.ALittleIsEnough(z=1.5, view="honest"),
    attacks.BitFlip(),
    attacks.BitFlip(bits=(21, 29, 30, 31), coordinates=TILE + 100),
    attacks.Constant(),
    attacks.Gambler(),
    attacks.Gambler(probability=0.3, servers=2, server=1),
    attacks.Gaussian(),
    attacks.GradientScale(),
    attacks.Infinite(),
    attacks.InnerProduct(epsilon=0.1),
    attacks.LabelFlip(),
    attacks.MeanCounterExample(),
    attacks.Mimic(),
    attacks.MinMax(),
    attacks.MinSum(direction="deviation"),
    attacks.ModelNegation(),
    attacks.NotANumber(),
    attacks.Omniscient(),
    attacks.OptimalALittleIsEnough(rule="median"),
    attacks.OptimalALittleIsEnough(rule="geometric-median", sign=-1),
    attacks.OptimalInnerProduct(rule="geometric-median"),
    attacks.ReversedGradient(),
    attacks.SelectionCounterExample(),
    attacks.SignFlip(),
    attacks.SignFlip(of="mean"),
    attacks.Zero(),
]
BY_TILES = [attack for attack in EXAMPLES if not attack.needs_whole_rows]
every_attack = pytest.mark.parametrize("attack", EXAMPLES, ids=repr)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def gradients(n, d, dtype=np.float32, seed=0):
    """Rows as honest workers send them: some signal, some noise, some exact zeros."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal(d) * 0.1 + rng.standard_normal((n, d))
    rows[rng.random((n, d)) < 0.1] = 0
    return rows.astype(dtype)


def bits(rows):
    return np.ascontiguousarray(rows).view(f"u{rows.itemsize}")


def same_bits(a, b):
    return a.dtype == b.dtype and np.array_equal(bits(a), bits(b))


def test_same_bits_distinguishes_zeros_and_nans():
    assert same_bits(np.array([0.0, np.nan]), np.array([0.0, np.nan]))
    assert not same_bits(np.array([0.0]), np.array([-0.0]))
    assert not same_bits(np.array([1.0]), np.array([1.0], np.float32))


def test_examples_cover_the_registry():
    assert {attack.name for attack in EXAMPLES} == set(attacks.names())


@every_dtype
@pytest.mark.parametrize("attack", BY_TILES, ids=repr)
def test_split_invariance(attack, dtype):
    """Ragged ranges, single columns among them (where NumPy would sum pairwise), give the same bits."""
    n, d = 20, 2 * TILE + 517
    rows, byzantine = gradients(n, d, dtype), (1, 4, 5, 11, 17)
    whole = attacked(attack, rows, byzantine, seed=3, step=9)
    cuts = [0, 1, 2, 999, 1000, 1001, TILE - 1, TILE, TILE + 1, 5000, 2 * TILE, 2 * TILE + 7, d]
    parts = rows.copy()
    for begin, end in itertools.pairwise(cuts):
        piece = np.ascontiguousarray(parts[:, begin:end])
        attack(piece, byzantine, seed=3, step=9, offset=begin, d=d)
        parts[:, begin:end] = piece
    assert same_bits(parts, whole)


@pytest.mark.parametrize("attack", BY_TILES, ids=repr)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_split_invariance_on_any_split(attack, data):
    n = data.draw(st.integers(1, 12))
    d = data.draw(st.integers(1, TILE + 300))
    byzantine = data.draw(st.lists(st.integers(0, n - 1), unique=True).map(sorted))
    if attack == EXAMPLES[1]:  # z="zmax" needs an honest worker
        byzantine = [worker for worker in byzantine if 2 * worker < n]
        byzantine = byzantine[: (n - 1) // 2]
    cuts = sorted({0, d, *data.draw(st.lists(st.integers(0, d), max_size=5))})
    rows = gradients(n, d, data.draw(st.sampled_from([np.float32, np.float64])))
    whole, parts = attacked(attack, rows, byzantine), rows.copy()
    for begin, end in itertools.pairwise(cuts):
        attack(parts[:, begin:end], byzantine, offset=begin, d=d)
    assert same_bits(parts, whole)


@every_attack
def test_layout_does_not_matter(attack):
    rows = gradients(20, TILE + 50)
    expected = attacked(attack, rows, (0, 3))
    fortran, strided = np.asfortranarray(rows), np.zeros((40, 2 * (TILE + 50)), np.float32)
    strided[::2, ::2] = rows
    attack(fortran, (0, 3))
    attack(strided[::2, ::2], (0, 3))
    assert same_bits(np.ascontiguousarray(fortran), expected)
    assert same_bits(np.ascontiguousarray(strided[::2, ::2]), expected)
    assert not strided[1::2].any()
    assert not strided[:, 1::2].any()


@every_attack
def test_repeats_and_differs_by_seed_and_step(attack):
    rows = gradients(20, 300)
    first = attacked(attack, rows, (2, 7), seed=1, step=1)
    assert same_bits(first, attacked(attack, rows, (2, 7), seed=1, step=1))
    if isinstance(attack, attacks.Gaussian | attacks.BitFlip):
        assert not same_bits(first, attacked(attack, rows, (2, 7), seed=2, step=1))
        assert not same_bits(first, attacked(attack, rows, (2, 7), seed=1, step=2))


@every_dtype
@every_attack
def test_only_reached_rows_are_written(attack, dtype):
    rows, byzantine = gradients(10, 1200, dtype), (0, 2, 9)
    result = attacked(attack, rows, byzantine)
    changed = np.flatnonzero((bits(result) != bits(rows)).any(axis=1))
    assert set(changed) <= set(attack.reaches(10, byzantine))
    if attack.threat == "classic":
        assert set(attack.reaches(10, byzantine)) <= set(byzantine)


@every_attack
def test_dimensional_attacks_hit_few_values_per_column(attack):
    if attack.threat == "dimensional" and getattr(attack, "probability", 0) < 0.01:
        rows = gradients(20, 5000)
        hits = (bits(attacked(attack, rows, (0,))) != bits(rows)).sum(axis=0)
        assert hits.max() <= (2 if isinstance(attack, attacks.Gambler) else 1)


@every_attack
def test_no_byzantine_row_changes_nothing(attack):
    rows = gradients(6, 1500)
    assert same_bits(attacked(attack, rows, ()), rows)


@every_attack
def test_all_rows_byzantine_is_defined(attack):
    if attack == EXAMPLES[1]:
        with pytest.raises(ValueError, match="honest worker"):
            attacked(attack, gradients(6, 50), range(6))
        return
    result = attacked(attack, gradients(6, 50), range(6))
    nothing_to_sum = (attacks.Omniscient, attacks.InnerProduct, attacks.MeanCounterExample)
    if isinstance(attack, nothing_to_sum) or getattr(attack, "view", "") == "honest":
        assert not result.any()


@every_attack
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (5, 999), (3, 0), (2, 19)])
def test_small_shapes_are_defined(attack, shape):
    rows = gradients(*shape)
    attack(rows, [0] if attack != EXAMPLES[1] or shape[0] > 2 else [])
    assert rows.shape == shape


@every_attack
def test_extreme_rows_do_not_fail(attack):
    rows = gradients(8, 40)
    rows[5], rows[6, ::2], rows[7], rows[1] = np.nan, np.inf, 3e38, 1e-42
    with np.errstate(all="raise"):
        first, second = (attacked(attack, rows, (0, 1)) for _ in range(2))
    assert same_bits(first, second)


@every_attack
def test_only_limits_the_attack_to_the_given_workers(attack):
    rows = gradients(8, 1500)
    result = attacked(attack, rows, (1, 3, 6), only=(3,))
    changed = np.flatnonzero((bits(result) != bits(rows)).any(axis=1))
    assert set(changed) <= {3}
    if attack.threat == "classic" and attack.acts_on == "rows":
        with pytest.raises(ValueError, match="out of its reach"):
            attack(rows, (1, 3), only=(2,))


@every_attack
def test_is_a_value(attack):
    assert eval(repr(attack), vars(attacks)) == attack
    assert hash(pickle.loads(pickle.dumps(attack))) == hash(attack)
    assert attacks.from_data(attacks.to_data(attack)) == attack
    assert attack.threat in ("classic", "dimensional")
    assert attack.knows in ("nothing", "own row", "all rows")
    with pytest.raises(AttributeError):
        attack.std = 1


def test_by_name():
    assert attacks.by_name("omniscient", scale=10) == attacks.Omniscient(scale=10)
    assert attacks.by_name("alie") == attacks.ALittleIsEnough()
    assert attacks.by_name("nan") == attacks.NotANumber()
    assert attacks.from_data({"name": "ipm", "epsilon": 1}) == attacks.InnerProduct(1)
    with pytest.raises(
        ValueError, match=r"'omnicient': did you mean 'omniscient'\? choose one of .*a-little-is"
    ):
        attacks.by_name("omnicient")
    with pytest.raises(ValueError, match="unknown option of attack 'omniscient' 'std': choose one of scale"):
        attacks.by_name("omniscient", std=1)
    with pytest.raises(ValueError, match="'inner-product' is missing its option epsilon"):
        attacks.by_name("inner-product")
    with pytest.raises(ValueError, match="needs a name"):
        attacks.from_data({"std": 1})


def test_registering_a_name_twice_is_refused():
    with pytest.raises(ValueError, match="registered already"):
        attacks.register(type("Gaussian", (attacks.Attack,), {}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: attacks.Gaussian(std=-1), "std must be >= 0"),
        (lambda: attacks.Gaussian(std=float("nan")), "finite"),
        (lambda: attacks.Gaussian(std="200"), "finite"),
        (lambda: attacks.Omniscient(scale=float("inf")), "Omniscient: scale must be a finite"),
        (lambda: attacks.ModelNegation(scale=None), "ModelNegation: scale must be a finite"),
        (lambda: attacks.ReversedGradient(c=0), "c must be > 0"),
        (lambda: attacks.BitFlip(bits=(32,)), r"0\.\.31"),
        (lambda: attacks.BitFlip(bits=(3, 3)), r"0\.\.31"),
        (lambda: attacks.BitFlip(bits=()), r"0\.\.31"),
        (lambda: attacks.BitFlip(coordinates=-1), "coordinates"),
        (lambda: attacks.Gambler(probability=1.5), "probability"),
        (lambda: attacks.Gambler(servers=0), "servers"),
        (lambda: attacks.Gambler(server=20), "counted from 0"),
        (lambda: attacks.ALittleIsEnough(view="none"), "view"),
        (lambda: attacks.ALittleIsEnough(sign=0), "sign"),
        (lambda: attacks.ALittleIsEnough(z="max"), "zmax"),
        (lambda: attacks.InnerProduct(epsilon=float("inf")), "epsilon"),
        (lambda: attacks.MinMax(direction="up"), "MinMax: direction must be"),
        (lambda: attacks.Mimic(worker=-1), "counted from 0"),
        (lambda: attacks.Mimic(worker=True), "counted from 0"),
        (lambda: attacks.SignFlip(of="none"), "SignFlip: of must be"),
        (lambda: attacks.Infinite(sign=2), "Infinite: sign"),
        (lambda: attacks.OptimalALittleIsEnough("median", sign=0), "OptimalALittleIsEnough: sign"),
        (lambda: attacks.OptimalInnerProduct("medien"), "unknown rule 'medien': did you mean 'median'"),
        (
            lambda: attacks.OptimalInnerProduct("krum"),
            "OptimalInnerProduct: rule 'krum'|missing its option f",
        ),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("rows", "byzantine", "options", "error", "message"),
    [
        ([[1.0]], [0], {}, TypeError, "NumPy array, got list"),
        (np.zeros(3), [0], {}, ValueError, r"shape \(n, width\), got \(3,\)"),
        (np.zeros((2, 2), int), [0], {}, ValueError, "float32 or float64, got int64"),
        (np.zeros((2, 2), np.float16), [0], {}, ValueError, "float32 or float64"),
        (np.broadcast_to(np.zeros(2), (2, 2)), [0], {}, ValueError, "read-only"),
        (np.zeros((2, 2)), [2], {}, ValueError, r"there are n = 2 rows"),
        (np.zeros((2, 2)), [-1], {}, ValueError, r"use indices in \[0, 2\)"),
        (np.zeros((2, 2)), [0, 0], {}, ValueError, "twice"),
        (np.zeros((2, 2)), [True, False], {}, ValueError, "not a mask"),
        (np.zeros((2, 2)), [0], {"d": 1}, ValueError, "at least 2"),
        (np.zeros((2, 2)), [0], {"offset": -1}, ValueError, "offset"),
        (np.zeros((2, 2)), [0], {"step": -1}, ValueError, "step"),
        (np.zeros((2, 2)), [0], {"seed": -1}, ValueError, "seed"),
    ],
)
@every_attack
def test_bad_calls(attack, rows, byzantine, options, error, message):
    before = np.array(rows)
    with pytest.raises(error, match=message):
        attack(rows, byzantine, **options)
    assert np.array_equal(before, rows)


def test_gambler_needs_d_on_a_part():
    with pytest.raises(ValueError, match="pass d="):
        attacks.Gambler()(np.zeros((2, 2)), [0], offset=2)


@pytest.mark.parametrize("attack", [attack for attack in EXAMPLES if attack.needs_whole_rows], ids=repr)
def test_attacks_on_whole_rows_refuse_a_part(attack):
    for options in ({"d": 3}, {"offset": 1}):
        with pytest.raises(ValueError, match='got 2 of 3 coordinates: collect rows "symmetric"'):
            attack(np.zeros((4, 2)), [0], **options)


def test_byzantine_may_be_a_numpy_array_in_any_order():
    rows = gradients(5, 30)
    expected = attacked(attacks.Gaussian(), rows, [1, 3])
    assert same_bits(attacked(attacks.Gaussian(), rows, np.array([3, 1])), expected)
