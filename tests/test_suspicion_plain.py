"""The test "unlike the others" in arrays, several steps together, beside plain loops, step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from horovod_byz.aggregation.verdict import Table, Verdict, judge
from horovod_byz.ledger.account import Account, Sums
from horovod_byz.ledger.bets import STAKES, TOGETHER, Bets, entering
from horovod_byz.ledger.exchangeable import Exchangeable, most
from horovod_byz.ledger.own_past import OwnPast
from horovod_byz.ledger.suspicion import TESTS, Suspicion

N, STEPS = 12, 90


class Plain:
    """The money of each worker's bettors, as docs/ledger.md states the bets."""

    def __init__(self, n):
        self.n, self.step = n, 0
        self.money = [[[0.0] * len(STAKES) for _ in range(18)] for _ in range(n)]

    def observe(self, scores):
        self.step += 1
        third, honest = most(self.n), self.n - (self.n - 1) // 2
        counts = (1, -(-third // 3), third)
        for worker in range(self.n):
            for event in range(18):
                side, score, c = event // 9, event // 3 % 3, counts[event % 3]
                own, sign = scores[score][worker], 1 - 2 * side
                hit = sum(sign * other >= sign * own for other in scores[score]) <= c
                self._bet(self.money[worker][event], hit, c / honest)

    def _bet(self, money, hit, chance):
        for k, stake in enumerate(STAKES):
            stake = stake if chance < 1 else 0.0
            factor = 1 - stake + stake / chance if hit else 1 - stake
            money[k] = min((money[k] + entering(self.step) / 54) * factor, 1e200)

    def e_value(self, worker):
        return float(np.sum(self.money[worker])) + 1 / math.log2(self.step + 2)


def scores_of(rng, step, odd=4, start=30):
    scores = np.stack([rng.uniform(1, 2, N), rng.uniform(1, 2, N), rng.uniform(0, 1, N)])
    if step % 7 == 3:
        scores = np.rint(4 * scores)  # ties
    if step >= start:
        scores[0, odd] = 90.0
    return scores


def table_of(scores):
    return Table.of_verdicts(
        [Verdict(i, 0.1, 0, *scores[:1, i].tolist(), "", *scores[1:, i].tolist(), True) for i in range(N)]
    )


def test_the_money_is_that_of_plain_loops_bit_for_bit():
    rng, plain, suspicion = np.random.default_rng(0), Plain(N), Suspicion(1e-3, "exchangeable")
    crossed = []
    for step in range(STEPS):
        scores = scores_of(rng, step)
        plain.observe(scores.tolist())
        named = suspicion.observe(step, table_of(scores)).named
        if named:
            crossed.append((step, named, {4: plain.e_value(4)}))
            break
        assert step < 39 or plain.e_value(4) < N * 1000
    (step, named, wanted), *_ = crossed
    assert named == wanted
    assert [suspicion.log10(worker) for worker in range(N)] == [
        math.log10(plain.e_value(worker)) for worker in range(N)
    ]


@pytest.mark.parametrize("test", list(TESTS))
@pytest.mark.parametrize("odd", [None, 4])
def test_steps_that_wait_for_one_another_change_nothing(test, odd):
    rng, waiting, prompt = np.random.default_rng(1), Suspicion(1e-3, test), Suspicion(1e-3, test)
    waited, named = 0, []
    for step in range(220):
        scores = scores_of(rng, step, odd=odd or 0, start=150 if odd else 10**9)
        table = table_of(scores)
        prompt._free = (0, 0)
        said = waiting.observe(step, table), prompt.observe(step, table)
        assert said[0] == said[1]
        waited += bool(waiting._pending)
        assert not prompt._pending
        named += list(said[0].named)
    assert repr(waiting.state_dict()) == repr(prompt.state_dict())  # NaN is equal to NaN
    assert waited > 110  # else this test compares nothing
    assert named == ([] if odd is None else [odd])


def test_two_camps_are_entered_at_the_same_step_too():
    steps = []
    for prompt in (False, True):
        rng, suspicion = np.random.default_rng(2), Suspicion(1e-3, "exchangeable")
        for step in range(150):
            scores = scores_of(rng, step, start=10**9)
            scores[:, ::2] += 3
            if prompt:
                suspicion._free = (0, 0)
            if suspicion.observe(step, table_of(scores)).camps:
                steps.append(step)
    assert len(steps) == 2
    assert steps[0] == steps[1]


@pytest.mark.parametrize("kind", [Exchangeable, OwnPast])
def test_no_e_value_reaches_what_it_is_said_to_stay_below(kind):
    # A worker that meets every event that it can, as fast as one can.
    test, limit = kind(), 50.0
    growth = test.growth(N)
    rng = np.random.default_rng(3)
    for _ in range(40):
        hits = rng.random((N, test.bets.events)) < 0.3
        test.bets.bet(np.arange(N), hits, np.full(test.bets.events, 0.5))
    below = test.bets.steps_below(limit, growth)
    assert 0 < below < TOGETHER
    # The chances that the growth stands for: (1 - s + s / u) of each stake.
    chances = STAKES[0] / (growth.reshape(-1, len(STAKES))[:, 0] - 1 + STAKES[0])
    for _ in range(below):
        test.bets.bet(np.arange(N), np.ones((N, test.bets.events), bool), chances)
        assert test.bets.money().max() < limit


def test_money_is_cut_off_as_if_it_were_at_each_step():
    bets, plain = Bets(1), 0.0
    for step in range(1, 900):
        bets.bet(np.array([0]), np.array([[step % 50 != 0]]), np.array([0.05]))
        plain = np.minimum((plain + entering(step) / 3) * _factor(step % 50 != 0), 1e200)
    assert bets.of(0) == float(np.sum(plain)) + 1 / math.log2(bets.step + 2)


def _factor(hit):
    return 1 - STAKES + STAKES / 0.05 if hit else 1 - STAKES


def test_sums_in_arrays_are_those_of_loops():
    rng, plain = np.random.default_rng(4), [Account(i) for i in range(5)]
    sums = Sums([Account(i) for i in range(5)])
    for step in range(30):
        far = rng.uniform(0, 1, 5)
        bad = np.array([0, 0, step % 4 == 0, 0, 0]).astype(np.int64)
        table = judge(rng.integers(0, 2, 5) / 2, bad, far, norms=far, norm=1.0)
        assert sums.is_of(table) or step == 0
        sums.add(table)
        for verdict, account in zip(table.verdicts, plain, strict=True):
            account.steps += 1
            account.weight += verdict.weight
            account.ignored += verdict.weight == 0
            account.nonfinite += verdict.nonfinite
            if math.isfinite(verdict.distance):
                account.distance += verdict.distance
                account.measured += 1
    sums.write()
    assert [vars(a) for a in sums._accounts] == [vars(a) for a in plain]
