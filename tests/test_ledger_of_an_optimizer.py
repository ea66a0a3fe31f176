"""A ledger and its optimizer: whose it is, and what of both a copy, a reset and a readmission keep."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.collect import HeaderMismatchError, Symmetric
from horovod_byz.collect.session import Job
from horovod_byz.host.place import Place
from horovod_byz.ledger import endings
from horovod_byz.ledger.log import LOGGER
from horovod_byz.optimizer import recording
from horovod_byz.optimizer.synchronizer import Synchronizer
from test_policy import N, Run, nan
from thread_ranks import on_ranks_that_fail


def wrapped(**options):
    parameter = torch.nn.Parameter(torch.ones(2))
    return parameter, hb.DistributedOptimizer(torch.optim.SGD([parameter], lr=0.1), **options)


def step(pair):
    parameter, optimizer = pair
    optimizer.zero_grad()
    parameter.sum().backward()
    optimizer.step()


class TestShared:
    """One ledger of two optimizers counted the steps of both, and tested rows of unlike parameters."""

    def test_the_second_optimizer_is_refused_when_it_binds(self):
        ledger = hb.Ledger()
        first, second = wrapped(ledger=ledger), wrapped(ledger=ledger)
        step(first)
        with pytest.raises(ValueError, match=r"belongs to another .* a ledger, and a folder, of its own"):
            step(second)
        step(first)
        assert ledger.steps == 2

    def test_so_is_one_that_takes_it_later(self):
        first, second = wrapped(ledger=hb.Ledger()), wrapped()
        step(first)
        step(second)
        with pytest.raises(ValueError, match="belongs to another"):
            second[1].ledger = first[1].ledger

    def test_a_shallow_copy_shares_it_too(self):
        first = wrapped()
        step(first)
        first[1].zero_grad()
        with pytest.raises(ValueError, match="already belongs to a DistributedOptimizer"):
            copy.copy(first[1])

    def test_an_optimizer_that_is_done_gives_it_up(self):
        ledger = hb.Ledger()
        first = wrapped(ledger=ledger)
        step(first)
        first[1].remove_hooks()
        step(wrapped(ledger=ledger))
        dropped = wrapped(ledger=ledger)
        del dropped
        step(wrapped(ledger=ledger))
        assert ledger.steps == 3

    def test_it_is_bound_again_after_an_elastic_reset(self):
        ledger = hb.Ledger()
        pair = wrapped(ledger=ledger)
        step(pair)
        pair[1].rebind()
        step(pair)
        pair[1].rebind()  # a script may make its optimizer anew instead
        step(wrapped(ledger=ledger))
        assert ledger.steps == 3


class TestCopied:
    """A copy of an optimizer forgot whom its policy had excluded."""

    @pytest.mark.parametrize("copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
    def test_it_keeps_the_exclusions(self, copier):
        run = Run(hb.Policy("exclude", probation=3))
        run.step(nan(2))
        run.step()
        pair = wrapped(policy=hb.Policy("exclude", probation=3))
        pair[1]._enforcer = run.enforcer
        twin = copier(pair)[1]
        assert twin.excluded == pair[1].excluded == (2,)
        assert twin._enforcer is not run.enforcer
        assert twin._enforcer.policy == twin.policy
        run.sync = Synchronizer(run.session, run.rule, hb.Ledger(), enforcer=twin._enforcer)
        assert run.step().excluded == (2,)
        run.step()
        assert twin.excluded == ()  # three clean steps, of which the copied one had seen the first
        run.step(nan(2))
        assert twin._enforcer._excluded[2].needed == 6  # the second time
        assert pair[1].excluded == (2,)

    def test_a_reset_readmits_everybody_as_before(self):
        pair = wrapped(policy="exclude")
        pair[1]._enforcer._excluded[2] = None
        pair[1].rebind()
        assert pair[1].excluded == ()


class TestHistory:
    """Ranks with unlike histories decided unlike: one stopped, and the others called it late."""

    def test_it_is_compared_where_the_policy_acts_on_the_test(self, monkeypatch):
        said = []

        def told(self, d, dtype, *, layout, **options):
            said.append(layout)
            return bound(self, d, dtype, layout=layout, **options)

        bound = Symmetric.bind
        monkeypatch.setattr(Symmetric, "bind", told)
        for policy in ("exclude", hb.Policy(on_suspicion="stop"), hb.Policy(on_excess="stop")):
            for steps in (0, 3):
                pair = wrapped(policy=policy, ledger=seasoned(steps))
                step(pair)
                pair[1].ledger.load_state_dict(seasoned(5).state_dict())  # in the middle of a run
                step(pair)
                step(pair)
        warns, acts = said[:2], said[2:]
        assert len(set(warns)) == 1
        assert len(acts) == 8
        assert len(set(acts)) == 6  # of each policy: no history, 3 steps, 5 steps

    def test_a_rank_with_another_is_named(self):
        def work(transport):
            ledger = seasoned(4 if transport.rank == 1 else 2)
            Symmetric().session(Job(transport, 3, np.float32, shared=ledger.history))

        for error in on_ranks_that_fail(3, work):
            assert isinstance(error, HeaderMismatchError)
            assert error.ranks == (1,)
            assert "the ledger's history differs" in str(error)

    def test_a_reset_begins_the_test_anew_where_it_decides(self):
        for policy, begins in ((hb.Policy(on_suspicion="exclude"), True), ("exclude", False)):
            pair = wrapped(policy=policy, ledger=seasoned(4))
            pair[1].rebind()
            assert (pair[1].ledger.history == "") == begins
            assert pair[1].ledger.steps == 4


class TestTerminated:
    """A rank that failed at the process's end was entered in the ledgers of runs that were over."""

    def test_only_a_ledger_in_use_learns_who_failed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(endings._Process, "ledgers", {})
        done, dropped, used = (wrapped(ledger=tmp_path / name) for name in ("done", "dropped", "used"))
        for pair in (done, dropped, used):
            step(pair)
        ledgers = [pair[1].ledger for pair in (done, dropped, used)]
        done[1].remove_hooks()
        dropped[1].ledger = hb.Ledger()
        recording.terminated("Terminated: it was ended by SIGTERM", [3])
        assert [[e.rank for e in ledger.evidence] for ledger in ledgers] == [[], [], [3]]
        for name, ranks in (("done", []), ("dropped", []), ("used", [3])):
            (end,) = [r for r in lines(tmp_path / name / "ledger.rank0.jsonl") if r["record"] == "end"]
            assert end["reason"].startswith("Terminated")
            assert end["ranks"] == ranks

    def test_a_ledger_that_a_program_bound_itself_is_in_use(self, tmp_path, monkeypatch):
        monkeypatch.setattr(endings._Process, "ledgers", {})
        ledger = hb.Ledger(tmp_path)
        ledger.bind([Place(rank, (rank,)) for rank in range(4)], rank=0)
        recording.terminated("Terminated", [3])
        assert [(e.reason, e.worker) for e in ledger.evidence] == [("late", 3)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def seasoned(steps):
    """A ledger of so many steps."""
    ledger, rng = hb.Ledger(), np.random.default_rng(0)
    for _ in range(steps):
        ledger.add(hb.aggregate(rng.standard_normal((N, 4)), hb.Median()))
    return ledger


def odd(x):
    x[4] *= 9


@pytest.mark.parametrize("test", ["exchangeable", "own past"])
def test_a_readmitted_worker_is_suspected_again(test, caplog):
    # Symptom: it was named once in a run, so after its probation nothing excluded it any more.
    def change(x):
        if not calm:
            odd(x)

    def until(action, most):
        for _ in range(most):
            run.step(change)
            if run.actions() and run.actions()[-1][1] == action:
                return run.actions()[-1]
        raise AssertionError(run.actions())

    run = Run(hb.Policy(on_suspicion="exclude", probation=10), ledger=hb.Ledger(test=test))
    run.ledger.rank = 0
    LOGGER.propagate = True
    calm = True
    for _ in range(45):
        run.step(change)
    for times in (1, 2):
        calm = False
        assert until("exclude", 150)[2] == 4
        assert run.ledger.account(4).suspicions.total() == times
        calm = True
        assert until("readmit", 60)[2] == 4
        assert run.ledger.suspicion.log10(4) < 0.1
        for _ in range(96 if test == "own past" else 0):  # a past of its own again
            run.step(change)
    named = [e for e in run.ledger.evidence if e.kind == "suspicion"]
    assert [e.worker for e in named] == [4, 4]
    assert sum(line.startswith("suspicion at") for line in caplog.messages) == 2


def test_a_worker_that_is_kept_in_is_reported_again_after_a_readmission():
    run = Run(hb.Policy("exclude", limit=1, probation=2))
    for change in (nan(1), nan(2), None, nan(2), None, None, nan(1), nan(2)):
        run.step(*([] if change is None else [change]))
    actions = [action for _, action, worker in run.actions() if worker == 2]
    assert actions == ["keep", "exclude", "readmit", "keep"]
