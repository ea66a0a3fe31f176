"""Centered clipping: its definition, and its memory, which is the last result on all ranks."""

from __future__ import annotations

import copy
import functools
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

import horovod_byz as hb
import reference
from cases import DTYPES, random_case
from horovod_byz import rules
from horovod_byz.collect import buckets
from horovod_byz.kernels.rows import TILE
from horovod_byz.optimizer.remembered import LastResult
from sharding import run_sharded

COUNT = np.arange(1.0, 10.0).reshape(3, 3)


@functools.cache
def cases():
    return [
        random_case(seed, lambda f: 2 * f + 1, DTYPES[seed % 2], most_rows=12, most_coordinates=12)
        for seed in range(1000)
    ]


def test_a_rule_equals_its_definition():
    wrong = []
    for seed, case in enumerate(cases()):
        rng = np.random.default_rng(seed)
        honest = np.delete(case.rows, case.bad, axis=0).astype(np.float64)
        size = float(np.abs(honest).max()) or 1.0
        tau, iterations = size * rng.uniform(0.1, 5.0), 1 + seed % 3
        last = (size * rng.normal(size=case.rows.shape[1])).astype(case.rows.dtype) if seed % 4 else None
        rule = hb.CenteredClipping(tau, iterations)
        result = hb.aggregate(case.rows, rule, memory=last)
        expected = reference.centered_clipping(case.rows, tau, iterations, last)
        assert result.value.dtype == case.rows.dtype
        scale = np.maximum(np.abs(expected), 3 * size + tau)
        slack = 256 * np.finfo(case.rows.dtype).eps * scale
        if not np.all(np.abs(result.value - expected) <= slack):
            wrong.append((case, rule, result.value, expected))
    assert not wrong, f"{len(wrong)} cases differ, first: {wrong[0]}"


@pytest.mark.parametrize(
    ("rule", "memory", "value"),
    [
        # From zeros the rows are sqrt(14), sqrt(77) and sqrt(194) away.
        (
            hb.CenteredClipping(tau=math.sqrt(14)),
            None,
            (COUNT[0] + COUNT[1] * math.sqrt(14 / 77) + COUNT[2] * math.sqrt(14 / 194)) / 3,
        ),
        (hb.CenteredClipping(tau=100.0), None, [4.0, 5.0, 6.0]),
        # From the middle row the others are sqrt(27) away, in opposite directions.
        (hb.CenteredClipping(tau=1.0), [4.0, 5.0, 6.0], [4.0, 5.0, 6.0]),
        # From the first row: 0, sqrt(27) and sqrt(108); two steps of length 1 in the direction (1, 1, 1).
        (hb.CenteredClipping(tau=1.0), [1.0, 2.0, 3.0], COUNT[0] + 2 / 3 / math.sqrt(3)),
        # Two steps of 0.1, so 0.2 / 3 on; from there the first row is less than 0.1 back, the others are far.
        (
            hb.CenteredClipping(tau=0.1, iterations=2),
            [1.0, 2.0, 3.0],
            COUNT[0] + (0.2 / 3 + (0.2 - 0.2 / 3) / 3) / math.sqrt(3),
        ),
    ],
)
def test_three_rows_by_hand(rule, memory, value):
    last = None if memory is None else np.array(memory)
    np.testing.assert_allclose(hb.aggregate(COUNT, rule, memory=last).value, value, rtol=1e-12)


def test_a_row_within_reach_is_not_cut_and_the_mean_keeps_its_bits():
    rows = np.random.default_rng(0).normal(size=(9, 200)).astype(np.float32)
    rule = hb.CenteredClipping(tau=1e6)
    np.testing.assert_array_equal(rule(rows), hb.Mean()(rows))
    assert hb.aggregate(rows, rule, memory=rows[3]).weights.tolist() == [1 / 9] * 9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("huge", [1e30, 1e38, 1e200, 8e307])
def test_huge_rows_move_the_centre_by_a_step_each(dtype, huge):
    huge = min(huge, float(np.finfo(dtype).max) / 2)
    rows = np.zeros((11, 30), dtype)
    rows[4] = huge
    for iterations in (1, 3):
        value = hb.CenteredClipping(tau=2.0, iterations=iterations)(rows)
        assert np.linalg.norm(value) <= iterations * 2.0 / 11 * (1 + 1e-5)
    rows[:] = huge  # all of them: the centre moves by tau, unless float64 cannot say how far they are
    moves = 2.0 if huge < 1e307 else 0.0
    np.testing.assert_allclose(np.linalg.norm(hb.CenteredClipping(tau=2.0)(rows)), moves, rtol=1e-5)


def test_rows_that_are_not_finite_are_left_out():
    rows = np.random.default_rng(0).normal(size=(5, 30))
    rule, last = hb.CenteredClipping(tau=1.0, iterations=2), np.ones(30)
    expected = hb.aggregate(rows[[0, 1, 3]], rule, memory=last)
    rows[2, 7], rows[4, 29] = np.nan, -np.inf
    result = hb.aggregate(rows, rule, memory=last)
    np.testing.assert_array_equal(result.value, expected.value)
    assert result.weights[[2, 4]].tolist() == [0, 0]
    assert [v.reason for v in result.verdicts if v.worker in (2, 4)] == ["non-finite", "non-finite"]
    rows[:] = np.nan
    np.testing.assert_array_equal(hb.aggregate(rows, rule, memory=last).value, last)
    np.testing.assert_array_equal(rule(rows), np.zeros(30))


RULES = [
    hb.CenteredClipping(tau=20.0),
    hb.CenteredClipping(tau=20.0, iterations=3),
    hb.Pipeline(hb.Bucketing(s=2), hb.CenteredClipping(tau=20.0, iterations=2)),
    hb.Pipeline(hb.NNM(f=2), hb.CenteredClipping(tau=20.0)),
    hb.Hierarchical(hb.CenteredClipping(tau=20.0), hb.Median(), groups=3),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
def test_shards_and_threads_give_the_same_bits(rule, dtype):
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(12, 3 * TILE + 100)).astype(dtype)
    rows[3, 17] = np.nan
    rows[7] *= 1e6
    last = rng.normal(size=rows.shape[1]).astype(dtype)
    expected = hb.aggregate(rows, rule, step=3, memory=last, threads=2)
    assert not np.array_equal(expected.value, hb.aggregate(rows, rule, step=3).value)
    for count in (2, 3):
        value, outcomes = run_sharded(rule, rows, count, memory=last, step=3)
        np.testing.assert_array_equal(value, expected.value)
        for outcome in outcomes:
            np.testing.assert_array_equal(outcome.weights, expected.weights)
            assert [str(v) for v in outcome.verdicts] == [str(v) for v in expected.verdicts]


def test_a_rule_with_such_a_part_remembers():
    assert all(rule.remembers for rule in RULES)
    assert rules.excluding(RULES[0], [1]).remembers
    assert not any(
        rule.remembers for rule in (hb.Mean(), hb.Krum(f=1), hb.Pipeline(hb.NNM(f=1), hb.Krum(f=1)))
    )


def test_it_is_a_value_with_a_name():
    assert rules.as_rule("centered-clipping:tau=10") == hb.CenteredClipping(10.0)
    assert repr(hb.CenteredClipping(tau=1, iterations=2)) == "CenteredClipping(tau=1.0, iterations=2)"
    assert [hb.CenteredClipping(1.0).max_byzantine(n) for n in (1, 10, 11, 45)] == [0, 0, 1, 4]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: hb.CenteredClipping(tau=0), "tau must be a finite number over 0, got 0"),
        (lambda: hb.CenteredClipping(tau=math.nan), "tau must be a finite number over 0, got nan"),
        (lambda: hb.CenteredClipping(tau="1"), "tau must be a number over 0, got '1'"),
        (lambda: hb.CenteredClipping(tau=1, iterations=0), "iterations must be >= 1, got 0"),
        (
            lambda: hb.aggregate(COUNT, hb.CenteredClipping(1.0), memory=np.zeros(2)),
            "memory must be a last result, d = 3 finite numbers, got the shape (2,)",
        ),
        (
            lambda: hb.aggregate(COUNT, hb.CenteredClipping(1.0), memory=np.array([1, np.nan, 1.0])),
            "d = 3 finite numbers, got NaN or infinities",
        ),
    ],
)
def test_errors_name_the_remedy(make, words):
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        make()


RULE = hb.CenteredClipping(tau=0.5, iterations=2)


class Job:
    """An optimizer on one rank whose gradients the test gives."""

    def __init__(self, rule=RULE, **options):
        self.parameter = nn.Parameter(torch.zeros(5))
        inner = torch.optim.SGD([self.parameter], lr=1.0)
        self.optimizer = hb.DistributedOptimizer(inner, rule=rule, timeout=20, **options)

    def step(self, gradient):
        self.optimizer.zero_grad()
        self.parameter.grad = torch.tensor(gradient)
        self.optimizer.step()
        return self.optimizer.last.value.copy()

    @property
    def memory(self):
        return self.optimizer._remembered.last.value


def chain(steps, rule=RULE, last=None):
    """The results of steps of rows, each from the last."""
    values = []
    for rows in steps:
        values.append(last := hb.aggregate(rows, rule, step=len(values), memory=last).value)
    return values


@pytest.fixture
def steps():
    return np.random.default_rng(0).normal(size=(6, 4, 5)).astype(np.float32)


COLLECTORS = ["symmetric", "root", "sharded", hb.Sharded(replicas=3)]


@pytest.mark.parametrize("collect", COLLECTORS, ids=str)
def test_all_ways_to_collect_start_from_the_last_result(on_threads, steps, collect):
    steps[2, 1, 3] = np.nan
    want = chain(steps)

    def work(transport):
        job = Job(collect=collect)
        return [job.step(rows[transport.rank]) for rows in steps], job.memory.copy()

    for values, memory in on_threads(4, work):
        np.testing.assert_array_equal(values, want)
        np.testing.assert_array_equal(memory, want[-1])


def test_parts_that_leave_during_backward_start_from_it_too(on_threads, monkeypatch):
    """Then a rank holds several ranges of coordinates."""
    monkeypatch.setattr(buckets, "_WIDTH", TILE)
    d, rule = 9 * TILE + 5, hb.CenteredClipping(tau=30.0, iterations=2)
    steps = np.random.default_rng(0).normal(size=(4, 3, d)).astype(np.float32)

    def work(transport):
        parameter = nn.Parameter(torch.zeros(d))
        optimizer = hb.DistributedOptimizer(
            torch.optim.SGD([parameter], lr=0.0), rule=rule, collect=hb.Sharded(overlap=True), timeout=20
        )
        for rows in steps:
            optimizer.zero_grad()
            (parameter * torch.tensor(rows[transport.rank])).sum().backward()
            optimizer.step()
        return optimizer.last.value.copy()

    want = chain(steps, rule)[-1]
    for value in on_threads(3, work):
        np.testing.assert_array_equal(value, want)


@pytest.mark.filterwarnings("ignore:step left out")
def test_a_step_that_is_left_out_leaves_the_memory_as_it_was(on_threads, steps):
    steps[2, 1:, 0] = np.nan

    def work(transport):
        job = Job()
        for rows in steps[:2]:
            job.step(rows[transport.rank])
        before = job.memory.copy()
        job.step(steps[2, transport.rank])
        assert job.optimizer.last.overflowed
        return before, job.memory.copy()

    for before, after in on_threads(4, work):
        np.testing.assert_array_equal(before, after)


def test_a_checkpoint_goes_on_and_forget_begins_anew(steps, tmp_path):
    rows = steps[:, :1]
    want = chain(rows)
    first, second = Job(), Job()
    for row in rows[:3, 0]:
        first.step(row)
    hb.save_checkpoint({"optimizer": first.optimizer.state_dict()}, tmp_path / "run.pt")
    second.optimizer.load_state_dict(hb.load_checkpoint(tmp_path / "run.pt")["optimizer"])
    other = copy.deepcopy(first.optimizer)
    np.testing.assert_array_equal(second.step(rows[3, 0]), want[3])
    (parameter,) = other.param_groups[0]["params"]
    parameter.grad = torch.tensor(rows[3, 0])
    other.step()
    np.testing.assert_array_equal(other.last.value, want[3])
    second.optimizer.forget()
    np.testing.assert_array_equal(second.step(rows[4, 0]), chain(rows[4:5])[0])
    second.optimizer.load_state_dict(torch.optim.SGD([nn.Parameter(torch.zeros(5))], lr=1.0).state_dict())
    assert second.memory is None


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (torch.zeros(4), r"must hold d = 5 numbers, got \(4,\)"),
        ([0.0] * 5, "must hold d = 5 numbers, got list"),
        (torch.full((5,), math.inf), "NaN or infinities"),
    ],
)
def test_a_checkpoint_that_does_not_fit(saved, message):
    job = Job()
    state = {**job.optimizer.state_dict(), "last_aggregate": saved}
    with pytest.raises(ValueError, match=message):
        job.optimizer.load_state_dict(state)


def test_rules_that_do_not_remember_keep_nothing(steps):
    job = Job(rule=hb.Median())
    job.step(steps[0, 0])
    assert job.memory is None
    assert "last_aggregate" not in job.optimizer.state_dict()


def test_where_a_rank_is_new_all_begin_with_zeros(on_threads, steps):
    def work(transport):
        job = Job(check_state_every=0)
        for step, rows in enumerate(steps):
            if (step, transport.rank) == (3, 2):
                job = Job(check_state_every=0)
            value = job.step(rows[transport.rank])
        return value

    want = chain(steps[3:])[-1]
    for value in on_threads(4, work):
        np.testing.assert_array_equal(value, want)


def test_damage_to_a_ranks_memory_is_replaced_and_named(on_threads, steps):
    def work(transport):
        job = Job(collect="root", check_state_every=1)
        for step, rows in enumerate(steps):
            if (step, transport.rank) == (3, 0):
                job.memory[2] += 1.0
            value = job.step(rows[transport.rank])
        return value, [(entry.rank, entry.reason) for entry in job.optimizer.ledger.evidence]

    with pytest.warns(UserWarning, match="last aggregate of the rule replaced"):
        results = on_threads(4, work)
    for value, evidence in results:
        np.testing.assert_array_equal(value, chain(steps)[-1])
        assert evidence == [(0, "state")]


def test_parameters_that_come_and_go_take_their_part_along():
    job, gradient = Job(rule=hb.CenteredClipping(tau=1.0)), np.full(5, 9.0, np.float32)
    job.step(gradient)
    before = job.memory.copy()
    new = nn.Parameter(torch.zeros(2))
    job.optimizer.add_param_group({"params": [new]})
    new.grad = torch.zeros(2)
    job.step(gradient)
    rows = np.concatenate([gradient, np.zeros(2, np.float32)])[None]
    last = np.concatenate([before, np.zeros(2, np.float32)])
    np.testing.assert_array_equal(job.memory, hb.aggregate(rows, job.optimizer.rule, memory=last).value)


def test_rows_of_another_length_do_not_start_from_it():
    class Rows:
        d, dtype = 3, np.dtype(np.float32)

    last = LastResult()
    last.value = np.zeros(4, np.float32)
    assert last.for_rows(Rows()) is None
