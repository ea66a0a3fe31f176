"""Who is Byzantine when: schedules, scripts and the wire."""

import tomllib

import numpy as np
import pytest

from horovod_byz import attacks
from horovod_byz.attacks import (
    Constant,
    Event,
    Gaussian,
    NotANumber,
    Omniscient,
    Script,
    Zero,
)


def test_fixed():
    schedule = attacks.Fixed((5, 1, 3))
    assert schedule.workers(0) == schedule.workers(99) == (1, 3, 5)
    assert attacks.Fixed().workers(0) == ()
    assert attacks.draw(10, 3, "first") == attacks.Fixed((0, 1, 2))


def test_fixed_at_random():
    schedule = attacks.FixedAtRandom(20, 6, seed=1)
    assert schedule.workers(0) == schedule.workers(99)
    assert len(set(schedule.workers(0))) == 6
    assert len({attacks.FixedAtRandom(20, 6, seed).workers(0) for seed in range(50)}) > 45


def test_redrawn_is_uniform():
    schedule = attacks.Redrawn(20, 6, seed=1)
    counts = np.zeros(20)
    for step in range(2000):
        workers = schedule.workers(step)
        assert list(workers) == sorted(set(workers))
        assert len(workers) == 6
        counts[list(workers)] += 1
    assert np.abs(counts - 600).max() < 4.5 * np.sqrt(2000 * 0.3 * 0.7)
    assert schedule.workers(7) == attacks.Redrawn(20, 6, seed=1).workers(7)
    assert schedule.workers(7) != attacks.Redrawn(20, 6, seed=2).workers(7)


@pytest.mark.parametrize("mode", ["first", "fixed", "redrawn"])
def test_none_and_all(mode):
    assert attacks.draw(5, 0, mode).workers(3) == ()
    assert attacks.draw(5, 5, mode).workers(3) == (0, 1, 2, 3, 4)


SCHEDULES = [
    attacks.Fixed((2, 1)),
    attacks.FixedAtRandom(5, 2, seed=9),
    attacks.Redrawn(5, 2),
    Script({10: {3: Gaussian()}}),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_are_values(schedule):
    assert eval(repr(schedule), vars(attacks)) == schedule
    assert hash(eval(repr(schedule), vars(attacks))) == hash(schedule)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: attacks.draw(5, 6), r"f must lie in 0\.\.n = 5, got 6"),
        (lambda: attacks.draw(5, 1.5), "f must be an integer"),
        (lambda: attacks.draw(5, 2, "sometimes"), "first"),
        (lambda: attacks.draw(5, 2, seed=-1), "seed"),
        (lambda: attacks.Fixed((1, 1)), "twice"),
        (lambda: attacks.Fixed((-1,)), ">= 0"),
        (lambda: Script({(5, 5): {1: Zero()}}), r"no step lies in \[5, 5\)"),
        (lambda: Script({-1: {1: Zero()}}), "begin and end"),
        (lambda: Script({1: Zero()}), "must map workers to attacks"),
        (lambda: Script({"1": {1: Zero()}}), "a key must be a step"),
        (lambda: Script({1: {1: "zero"}}), r"attacks\.Gaussian\(\)"),
        (lambda: Script([Zero()]), "expected events"),
        (lambda: Script.from_data([{"step": 1, "workers": [1]}]), "an event needs"),
        (lambda: Script.from_data([{"step": "1", "workers": [1], "attack": "zero"}]), "an event needs"),
        (lambda: Script.from_data([{"step": 1, "workers": [1], "attack": "zeros"}]), "unknown attack"),
        (lambda: attacks.Wire(attacks.Fixed((1,))), "needs an attack"),
        (lambda: attacks.Wire(Script(), Zero()), "needs an attack, unless"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


PLAN = Script(
    {10: {3: NotANumber()}, (20, 30): {(0, 5): Gaussian(), 7: Zero()}, (100, None): {1: Constant()}}
)


def test_script_in_both_notations():
    fluent = (
        Script()
        .at(10, 3, NotANumber())
        .during(20, 30, (0, 5), Gaussian())
        .during(20, 30, 7, Zero())
        .during(100, None, 1, Constant())
    )
    assert fluent == PLAN


def test_script_workers():
    expected = {9: (), 10: (3,), 11: (), 19: (), 20: (0, 5, 7), 29: (0, 5, 7), 30: (), 100: (1,), 10**6: (1,)}
    assert {step: PLAN.workers(step) for step in expected} == expected


def test_script_from_toml():
    text = """
        [[event]]
        step = 10
        workers = [3]
        attack = "nan"
        [[event]]
        steps = [20, 30]
        workers = [0, 5]
        attack = {name = "gaussian", std = 200}
        [[event]]
        steps = [20, 30]
        workers = 7
        attack = "zero"
        [[event]]
        steps = [100]
        workers = [1]
        attack = "constant"
    """
    assert Script.from_data(tomllib.loads(text)["event"]) == PLAN
    assert Script.from_data(PLAN.to_data()) == PLAN


def test_script_acts_on_its_workers_only():
    rows = np.ones((8, 50))
    PLAN(rows, step=9)
    assert (rows == 1).all()
    PLAN(rows, step=10)
    assert np.isnan(rows[3]).all()
    assert (np.delete(rows, 3, axis=0) == 1).all()


def test_script_confines_dimensional_attacks():
    rows = np.ones((8, 50), np.float32)
    Script({0: {2: attacks.BitFlip()}})(rows, step=0)
    assert (rows[2] != 1).all()
    assert (np.delete(rows, 2, axis=0) == 1).all()


def test_script_attacks_know_all_byzantine_workers_of_the_step():
    """The omniscient sum leaves out worker 0, whom another event attacks at the same step."""
    rows = np.ones((4, 2))
    Script({0: {0: Constant(500), 3: Omniscient(scale=1)}})(rows, step=0)
    assert np.array_equal(rows, [[500, 500], [1, 1], [1, 1], [-2, -2]])


def test_script_applies_events_in_order():
    rows = np.ones((2, 2))
    Script().at(0, 1, Constant(3)).at(0, 1, attacks.ReversedGradient(c=2))(rows, step=0)
    assert np.array_equal(rows[1], [-6, -6])


def test_script_names_a_worker_that_does_not_exist():
    with pytest.raises(ValueError, match="n = 2 rows"):
        PLAN(np.ones((2, 2)), step=10)


def test_script_with_poisoned_data_leaves_rows_alone():
    rows = np.ones((4, 3))
    Script({0: {3: attacks.LabelFlip()}})(rows, step=0)
    assert (rows == 1).all()


def test_wire_is_the_attack_on_the_schedule():
    rows = np.random.default_rng(0).standard_normal((20, 300))
    wire = attacks.Wire(attacks.Redrawn(20, 6, seed=4), Gaussian(), seed=8, start=2)
    expected, whole, parts = rows.copy(), rows.copy(), rows.copy()
    Gaussian()(expected, attacks.Redrawn(20, 6, seed=4).workers(5), seed=8, step=5)
    wire(whole, 0, 300, 5)
    for begin, end in [(0, 100), (100, 101), (101, 300)]:
        wire(parts[:, begin:end], begin, 300, 5)
    assert np.array_equal(whole, expected)
    assert np.array_equal(parts, expected)
    assert wire.workers(1) == ()
    wire(whole, 0, 300, 1)
    assert np.array_equal(whole, expected)


def test_wire_with_a_script():
    rows = np.ones((8, 5))
    attacks.Wire(PLAN)(rows, 0, 5, 20)
    assert (rows[7] == 0).all()
    assert attacks.Wire(PLAN, start=25).workers(20) == ()


def test_event_is_half_open():
    event = Event(2, 4, (0,), Zero())
    assert [event.active(step) for step in range(6)] == [False, False, True, True, False, False]


def test_draws_stay_what_they_are():
    """Results name their seed, so a new version must draw the same workers and hit the same values."""
    assert attacks.FixedAtRandom(20, 6, seed=1).workers(0) == (2, 5, 8, 9, 10, 17)
    assert attacks.Redrawn(20, 6, seed=1).workers(3) == (2, 3, 4, 8, 9, 11)
    rows = np.ones((20, 8), np.float32)
    attacks.BitFlip()(rows, (0,), seed=1, step=2)
    assert (rows != 1).argmax(axis=0).tolist() == [9, 9, 8, 19, 8, 8, 11, 3]
