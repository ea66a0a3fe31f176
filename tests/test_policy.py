"""Policies: who is excluded, readmitted or stopped at, decided alike on all ranks."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.collect import LateRanksError, Root, Sharded, Symmetric, bind
from horovod_byz.collect.session import Job
from horovod_byz.host.place import Place
from horovod_byz.ledger import exclusions
from horovod_byz.ledger.enforcement import Enforcer
from horovod_byz.ledger.evidence import Evidence
from horovod_byz.ledger.hearing import books_of, hearing
from horovod_byz.ledger.policy import as_policy
from horovod_byz.ledger.truth import GroundTruth
from horovod_byz.optimizer.synchronizer import Synchronizer
from thread_ranks import on_ranks, succeeded

N, D = 7, 50
DISCOVER = Path(__file__).parents[1] / "launch" / "discover_hosts.py"
COLLECTORS = [Symmetric(), Root(), Sharded(), Sharded(replicas=3)]


def rows(seed=0):
    return np.random.default_rng(seed).standard_normal((N, D)).astype(np.float32)


class Board:
    """A listener that keeps the actions."""

    def __init__(self):
        self.actions = []

    def acted(self, ledger, action):
        self.actions.append(action if isinstance(action, dict) else action.to_json())

    def bound(self, *_): ...
    def entered(self, *_): ...
    def stepped(self, *_): ...
    def ended(self, *_): ...


class Run:
    """Steps of one process, each with the rows as `change` leaves them."""

    def __init__(self, policy, rule=None, ledger=None):
        self.session = bind("symmetric", D, np.float32, N)
        self.rule = hb.Median() if rule is None else rule
        self.ledger, self.board = hb.Ledger() if ledger is None else ledger, Board()
        books_of(self.ledger)[0].listeners.append(self.board)
        self.enforcer = Enforcer(policy)
        self.sync = Synchronizer(self.session, self.rule, self.ledger, enforcer=self.enforcer)

    def step(self, change=lambda x: None, x=None):
        x = rows(self.session.next_step) if x is None else x
        change(x)
        return self.sync.step(x)

    def actions(self):
        return [(a["step"], a["action"], a["worker"]) for a in self.board.actions]


def nan(*workers):
    def change(x):
        x[list(workers), 3] = np.nan

    return change


class TestValue:
    def test_it_is_a_value_with_a_repr_that_round_trips(self):
        policy = hb.Policy("exclude", "stop", after=3, within=1000, limit=2, probation=50, on_excess="stop")
        assert eval(repr(policy), vars(hb)) == policy
        assert pickle.loads(pickle.dumps(policy)) == policy
        assert hash(policy) == hash(replace(policy))
        assert policy != hb.Policy()
        assert hb.Policy("exclude", excluded_hosts=Path("a") / "b").excluded_hosts == "a/b"

    def test_words_and_functions_stand_for_policies(self):
        assert as_policy(None) == hb.Policy() == as_policy(hb.Policy())
        assert as_policy("exclude") == hb.Policy(on_proof="exclude")
        assert as_policy(len).on_suspicion is len

    @pytest.mark.parametrize(
        ("options", "kind", "words"),
        [
            (
                {"on_proof": "drop"},
                ValueError,
                "on_proof must be 'warn' or 'exclude' or 'stop', or a function",
            ),
            ({"on_proof": None}, TypeError, "on_proof must be"),
            ({"on_suspicion": int}, TypeError, "on_suspicion must be"),
            ({"on_excess": "exclude"}, ValueError, "on_excess must be 'warn' or 'stop', got 'exclude'"),
            ({"otherwise": "exclude"}, ValueError, "otherwise must be 'warn' or 'stop'"),
            ({"after": 0}, ValueError, "after must be >= 1"),
            ({"after": 3, "within": 2}, ValueError, "within must be >= 3"),
            ({"limit": -1}, ValueError, "limit must be >= 0"),
            ({"limit": 1.5}, TypeError, "limit must be a whole number"),
            ({"probation": 0}, ValueError, "probation must be >= 1"),
            ({"excluded_hosts": "x", "readmit_after": 0}, ValueError, "readmit_after must be over 0"),
            ({"excluded_hosts": "x", "readmit_after": "1 h"}, TypeError, "a number of seconds, got '1 h'"),
            ({"readmit_after": 60}, ValueError, "give excluded_hosts"),
        ],
    )
    def test_what_it_does_not_take_is_refused(self, options, kind, words):
        with pytest.raises(kind, match=words):
            hb.Policy(**options)

    @pytest.mark.parametrize("policy", [hb.Policy, 3, "drop", ("exclude",)])
    def test_what_is_no_policy_is_refused_by_the_optimizer(self, policy):
        net = torch.nn.Linear(2, 2)
        with pytest.raises((TypeError, ValueError), match="policy"):
            hb.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), policy=policy)


class TestExclusion:
    def test_the_default_excludes_nobody(self):
        run = Run(hb.Policy())
        for _ in range(3):
            run.step(nan(2))
        assert run.enforcer.excluded == ()
        assert run.actions() == []

    def test_a_proof_excludes_from_the_next_step_on(self):
        run = Run(hb.Policy("exclude"))
        assert run.step(nan(2)).excluded == ()
        result = run.step()
        assert run.enforcer.excluded == result.excluded == (2,)
        x = rows(1)
        np.testing.assert_array_equal(result.value, hb.Median()(np.delete(x, 2, axis=0)))
        assert result.weights[2] == 0
        assert run.actions() == [(0, "exclude", 2)]
        assert "worker 2 sent NaN or infinite values (1 value); excluded" in run.board.actions[0]["detail"]

    def test_so_many_proofs_in_so_many_steps(self):
        run = Run(hb.Policy("exclude", after=3, within=10))
        for step in range(30):
            if step in (0, 8, 16, 21, 25):  # 16, 21 and 25 are the first three within ten steps
                run.step(nan(2))
            else:
                run.step()
        assert run.actions() == [(25, "exclude", 2)]

    def test_the_limit_and_the_rules_condition_bound_it_and_the_ledger_is_told_why(self):
        run = Run(hb.Policy("exclude", limit=1))
        for _ in range(3):
            run.step(nan(2, 4))
        assert run.enforcer.excluded == (2,)
        assert run.actions() == [(0, "exclude", 2), (0, "keep", 4)]
        assert "that would be 2 workers of 7, and the policy's limit is 1" in run.board.actions[1]["detail"]
        run = Run(hb.Policy("exclude"), hb.Krum(f=2))
        run.step(nan(2))
        assert run.enforcer.excluded == ()
        assert "Krum(f=2) needs n > 2f + 2 = 6 rows, got n = 6" in run.board.actions[0]["detail"]

    @pytest.mark.parametrize(
        ("rule", "excluded"), [(hb.Median(), (2,)), (hb.TrimmedMean(f=1), ()), (hb.MultiKrum(f=0), ())]
    )
    def test_the_rules_least_number_of_rows_decides_in_a_small_job(self, rule, excluded):
        session = bind("symmetric", D, np.float32, 3)
        enforcer = Enforcer(hb.Policy("exclude"))
        sync = Synchronizer(session, rule, hb.Ledger(), enforcer=enforcer)
        for worker in (2, 1):  # the second is one too many in any case
            x = rows()[:3].copy()
            x[worker, 0] = np.nan
            sync.step(x)
            assert enforcer.excluded == excluded
        assert sync.step(rows()[:3]).excluded == excluded

    def test_fewer_than_half_are_excluded_by_default(self):
        run = Run(hb.Policy("exclude"), hb.Mean())
        for worker in range(4):
            run.step(nan(worker))
        assert run.enforcer.excluded == (0, 1, 2)

    def test_where_it_cannot_exclude_it_stops_when_asked(self):
        run = Run(hb.Policy("exclude", otherwise="stop"), hb.Krum(f=2))
        with pytest.raises(hb.PolicyStopError, match=r"step 0: worker 2 sent NaN.*cannot be excluded.*Krum"):
            run.step(nan(2))
        assert run.actions() == [(0, "stop", 2)]

    def test_overflow_on_most_workers_excludes_nobody(self):
        run = Run(hb.Policy("exclude", on_excess="stop"))
        run.step(nan(*range(N)))
        run.step(nan(0, 1, 2, 3))
        assert run.enforcer.excluded == ()
        assert run.actions() == []
        run = Run(hb.Policy("exclude"))
        run.step(nan(0, 1, 2))
        assert run.enforcer.excluded == (0, 1, 2)

    def test_an_excluded_group_member_is_dropped_from_its_group(self):
        groups = hb.Redundancy(r=5, groups=((0, 1, 2, 3, 4), (5,), (6,)))
        run = Run(hb.Policy("exclude"), hb.Detox(groups, hb.Mean(), hb.Mean()))

        def flip(x):
            x[1:5] = x[0]
            x[3, 7] *= 2

        run.step(flip)
        result = run.step(flip)
        assert result.excluded == (3,)
        assert result.verdicts[3].reason == "outvoted"
        np.testing.assert_allclose(result.weights, [1 / 3, 0, 0, 0, 0, 1 / 3, 1 / 3])

    def test_a_group_of_three_keeps_its_member_which_it_outvotes_anyway(self):
        groups = hb.Redundancy(r=3, groups=((0, 1, 2), (3, 4, 5, 6)))
        run = Run(hb.Policy("exclude"), hb.Detox(groups, hb.Mean(), hb.Mean()))

        def flip(x):
            x[1:3], x[4:] = x[0], x[3]
            x[1, 7] *= 2

        for _ in range(2):
            run.step(flip)
        assert run.actions() == [(0, "keep", 1)]
        assert "(0, 1, 2) keeps 2 of its 3 replicas" in run.board.actions[0]["detail"]

    def test_buffers_rules_are_checked_too(self):
        enforcer, ledger = Enforcer(hb.Policy("exclude")), hb.Ledger()
        run = Run(hb.Policy())
        x = rows()
        nan(2)(x)
        with hearing(ledger) as evidence:
            result = run.session.step(x, hb.Median())
            ledger.add(result)
        enforcer.settled(result, evidence, (hb.Median(), hb.Krum(f=2)), None, ledger)
        assert enforcer.excluded == ()
        assert not any(type(listener).__name__ == "_Heard" for listener in ledger.listeners)

    def test_the_trainers_ledger_works_too(self):
        run = Run(hb.Policy("exclude"), ledger=GroundTruth(N, lambda step: (2,)))
        run.step(nan(2, 5))
        assert run.enforcer.excluded == (2, 5)


class TestProbation:
    def test_clean_steps_readmit_and_each_further_exclusion_doubles_them(self):
        run = Run(hb.Policy("exclude", probation=3))
        for step in range(20):
            if step in (0, 2, 10):
                run.step(nan(2))
            else:
                run.step()
        # Steps 3, 4, 5 are clean; the second exclusion needs 6: 11 to 16.
        assert run.actions() == [
            (0, "exclude", 2),
            (5, "readmit", 2),
            (10, "exclude", 2),
            (16, "readmit", 2),
        ]

    def test_a_far_row_is_not_clean(self):
        run = Run(hb.Policy("exclude", probation=2))

        def far(x):
            x[2] *= 100

        run.step(nan(2))
        for _ in range(5):
            run.step(far)
        assert run.enforcer.excluded == (2,)

    def test_without_probation_nobody_returns(self):
        run = Run(hb.Policy("exclude"))
        run.step(nan(2))
        for _ in range(30):
            run.step()
        assert run.enforcer.excluded == (2,)


class Suspecting(hb.Ledger):
    """Enters given evidence with each step, as the statistical tests do."""

    def __init__(self, *evidence):
        super().__init__()
        self.given = evidence

    def add(self, result, step=None, groups=None):
        super().add(result, step, groups)
        for kind, reason, worker, detail in self.given:
            self.enter(Evidence(step, kind, reason, worker, None, detail))


class TestSuspicionAndExcess:
    def test_suspicion_has_an_action_of_its_own(self):
        ledger = Suspecting(("suspicion", "unlike the others", 4, ""))
        run = Run(hb.Policy("stop", on_suspicion="exclude"), ledger=ledger)
        run.step()
        assert run.actions() == [(0, "exclude", 4)]
        with pytest.raises(hb.PolicyStopError, match="worker 1 sent NaN"):
            run.step(nan(1))

    def test_a_function_answers_from_the_evidence(self):
        asked = []

        def decide(evidence):
            asked.append((evidence.step, evidence.worker))
            return "exclude" if evidence.step == 2 else None

        run = Run(hb.Policy(decide))
        for _ in range(4):
            run.step(nan(2))
        assert asked == [(0, 2), (1, 2), (2, 2)]
        assert run.enforcer.excluded == (2,)

    def test_a_function_that_answers_otherwise_is_an_error(self):
        run = Run(hb.Policy(lambda evidence: "ban"))
        with pytest.raises(TypeError, match=r"<lambda> must return 'warn', .* got 'ban'"):
            run.step(nan(2))

    @pytest.mark.parametrize(
        "reason", ["late", "two stories", "aggregate", "complaint", "altered in transit"]
    )
    def test_what_ranks_may_see_differently_decides_nothing(self, reason):
        run = Run(hb.Policy("stop", "stop", "stop"), ledger=Suspecting(("proof", reason, 4, "")))
        run.step()
        assert run.actions() == []

    @pytest.mark.parametrize(
        ("rule", "wrong", "stops"),
        [(hb.Krum(f=2), (1, 2), False), (hb.Krum(f=1), (1, 2), True), (hb.Median(), (1, 2, 3), False)],
    )
    def test_more_accused_than_the_rule_covers(self, rule, wrong, stops):
        run = Run(hb.Policy(on_excess="stop"), rule)
        if stops:
            with pytest.raises(hb.PolicyStopError, match=r"accuses 2 workers \(1, 2\), more than the 1") as e:
                run.step(nan(*wrong))
            assert (e.value.step, e.value.workers) == (0, (1, 2))
        else:
            run.step(nan(*wrong))
        run = Run(hb.Policy(), rule)
        for _ in range(3):
            run.step(nan(*wrong))
        assert [a["action"] for a in run.board.actions] == ["warn"] * stops

    def test_two_camps_are_nobodys_proof_and_stop_when_asked(self):
        camps = ("notice", "two camps", None, "")
        run = Run(hb.Policy("exclude"), ledger=Suspecting(camps))
        run.step()
        run.step()
        assert run.actions() == [(0, "warn", None)]
        with pytest.raises(hb.PolicyStopError, match="the rows form two camps"):
            Run(hb.Policy(on_excess="stop"), ledger=Suspecting(camps)).step()

    @pytest.mark.parametrize("policy", [hb.Policy("exclude"), hb.Policy("exclude", on_excess="stop")])
    def test_a_group_without_majority_accuses_nobody_and_stops_at_the_second_time(self, policy):
        groups = hb.Redundancy(r=5, groups=((0, 1, 2, 3, 4), (5,), (6,)))
        run = Run(policy, hb.Detox(groups, hb.Mean(), hb.Mean()))

        def split(x):
            x[1:3], x[3] = x[0], x[4]
            x[2, 0] += 1

        run.step(split)
        assert run.actions() == []
        if policy.on_excess == "stop":
            with pytest.raises(
                hb.PolicyStopError, match=r"group \(0, 1, 2, 3, 4\) had no majority in 2 steps"
            ):
                run.step(split)
        else:
            run.step(split)
            assert run.actions() == [(1, "warn", None)]
        assert run.enforcer.excluded == ()

    def test_no_majority_as_a_notice_counts_for_rules_that_mark_nobody(self):
        given = ("notice", "no majority", None, "group 1")
        run = Run(hb.Policy(on_excess="stop"), ledger=Suspecting(given))
        run.step()
        with pytest.raises(hb.PolicyStopError, match="group 1 had no majority in 2 steps"):
            run.step()


@pytest.mark.parametrize("collector", COLLECTORS, ids=repr)
def test_all_ranks_decide_alike_in_every_way_to_collect(collector):
    x = rows()[:5]

    def work(transport):
        session = collector.session(Job(transport, D, np.float32))
        enforcer, ledger = Enforcer(hb.Policy("exclude", probation=2), transport.rank), hb.Ledger()
        sync = Synchronizer(session, hb.Median(), ledger, enforcer=enforcer)
        excluded = []
        for step in range(5):
            row = x[transport.rank : transport.rank + 1].copy()
            if transport.rank == 3 and step == 1:
                row[0, 0] = np.inf
            value = sync.step(row).value.copy()
            excluded.append(enforcer.excluded)
        return excluded, value.tobytes()

    results = succeeded(on_ranks(5, work))
    assert all(result == results[0] for result in results)
    assert results[0][0] == [(), (3,), (3,), (), ()]


def test_a_new_binding_readmits_everybody():
    """A rank that comes new knows of nobody that was excluded, and worker i may be another one."""
    x = rows()[:5]

    def work(transport):
        session = Symmetric().session(Job(transport, D, np.float32))
        enforcer, ledger = Enforcer(hb.Policy("exclude"), transport.rank), hb.Ledger()
        sync = Synchronizer(session, hb.Median(), ledger, enforcer=enforcer)
        row = x[transport.rank : transport.rank + 1].copy()
        spoilt = np.full_like(row, np.nan) if transport.rank == 3 else row
        sync.step(spoilt)
        before = enforcer.excluded
        if transport.rank == 2:  # replaced: it binds, while the others step
            session = Symmetric().session(Job(transport, D, np.float32))
            enforcer = Enforcer(hb.Policy("exclude"), transport.rank)
            sync = Synchronizer(session, hb.Median(), hb.Ledger(), enforcer=enforcer)
        result = sync.step(row)
        return before, result.excluded, enforcer.excluded, result.value.tobytes()

    for result in succeeded(on_ranks(5, work)):
        assert result == ((3,), (), (), hb.Median()(x).tobytes())


class TestOptimizer:
    def test_buffers_stay_as_they_were_where_the_policy_stops(self):
        net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        optimizer = hb.DistributedOptimizer(
            torch.optim.SGD(net.parameters(), lr=0.1),
            named_parameters=net.named_parameters(),
            buffers=net.named_buffers(),
            policy=hb.Policy(on_suspicion="stop"),
        )
        written = []
        optimizer._buffers.write = lambda: written.append(1)
        for given in ((), (("suspicion", "unlike its own past", 0, ""),)):
            optimizer.ledger = Suspecting(*given)
            net(torch.randn(4, 3)).sum().backward()
            if given:
                with pytest.raises(hb.PolicyStopError):
                    optimizer.step()
            else:
                optimizer.step()
        assert written == [1]

    def test_the_optimizer_takes_a_policy_and_stops_before_the_model_moves(self):
        net = torch.nn.Linear(3, 1)
        optimizer = hb.DistributedOptimizer(
            torch.optim.SGD(net.parameters(), lr=0.1), policy=hb.Policy(on_suspicion="stop")
        )
        optimizer.ledger = Suspecting(("suspicion", "unlike its own past", 0, ""))
        before = net.weight.detach().clone()
        net(torch.ones(2, 3)).sum().backward()
        with pytest.raises(hb.PolicyStopError, match=r"worker 0 .*its own earlier ones"):
            optimizer.step()
        assert torch.equal(net.weight, before)
        assert optimizer.excluded == ()

    def test_it_keeps_its_policy_when_copied(self):
        net = torch.nn.Linear(3, 1)
        optimizer = hb.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), policy="exclude")
        optimizer.remove_hooks()
        assert pickle.loads(pickle.dumps(optimizer)).policy == hb.Policy("exclude")


def places(*hosts):
    return [Place(rank, (rank,), host) for rank, host in enumerate(hosts)]


class TestHosts:
    def run(self, tmp_path, *hosts, **options):
        run = Run(hb.Policy("exclude", excluded_hosts=tmp_path / "out.json", **options))
        run.ledger.places = tuple(places(*hosts))
        return run

    def test_the_host_of_an_excluded_worker_is_written(self, tmp_path):
        run = self.run(tmp_path, *"aabbccd", readmit_after=60)
        run.step(nan(2))
        entry = exclusions.read(tmp_path / "out.json")["b"]
        assert entry["reason"] == "worker 2: non-finite"
        assert (entry["times"], round(entry["until"] - entry["since"])) == (1, 60)
        assert "worker 2 (rank 2 on b (local rank 0, cpu)) sent NaN" in run.board.actions[0]["detail"]
        assert run.board.actions[0]["rank"] == 2

    def test_each_further_time_doubles_it(self, tmp_path):
        for _ in range(2):
            exclusions.exclude(str(tmp_path / "x"), "b", "why", 60)
        entry = exclusions.exclude(str(tmp_path / "x"), "b", "why", 60)
        assert round(entry["until"] - entry["since"]) == 240
        assert exclusions.exclude(str(tmp_path / "x"), "b", "why")["until"] is None
        assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "x.lock"]

    @pytest.mark.parametrize("hosts", ["???????", "bbbbbbb", ""])
    def test_an_unknown_host_and_the_only_host_stay(self, tmp_path, caplog, hosts):
        run = self.run(tmp_path, *hosts)
        with caplog.at_level(logging.WARNING):
            run.step(nan(2))
        assert run.enforcer.excluded == (2,)
        assert exclusions.read(tmp_path / "out.json") == {}
        assert "host" in caplog.text

    def test_the_last_host_that_is_available_stays(self, tmp_path):
        run = self.run(tmp_path, *"aaaabbb")
        run.step(nan(0))
        run.step(nan(5))
        assert set(exclusions.read(tmp_path / "out.json")) == {"a"}

    def test_a_file_that_cannot_be_read_is_said_and_the_run_goes_on(self, tmp_path, caplog):
        (tmp_path / "out.json").write_text("hosts: b")
        run = self.run(tmp_path, *"aabbccd")
        run.step(nan(2))
        assert run.enforcer.excluded == (2,)
        assert "is no JSON" in caplog.text
        assert (tmp_path / "out.json").read_text() == "hosts: b"

    def test_the_lowest_rank_that_is_there_writes_the_hosts_of_late_ranks(self, tmp_path):
        ledger = hb.Ledger()
        ledger.bind(places(*"abcd"))
        policy = hb.Policy(excluded_hosts=tmp_path / "out.json")
        for rank in (2, 3, 1):
            Enforcer(policy, rank).late((0, 3), ledger)
            assert set(exclusions.read(tmp_path / "out.json")) == ({"a", "d"} if rank == 1 else set())

    def test_the_synchronizer_tells_of_late_ranks(self, tmp_path, monkeypatch):
        run = self.run(tmp_path, "a", "b")
        monkeypatch.setattr(run.session.layout.__class__, "workers", lambda self, rank: range(rank, rank + 1))

        def late(*_):
            raise LateRanksError("rank 1 is late", [1])

        monkeypatch.setattr(type(run.session), "step", late)
        with pytest.raises(LateRanksError):
            run.sync.step(rows())
        assert exclusions.read(tmp_path / "out.json")["b"]["reason"] == "rank 1: did not arrive in time"

    @pytest.mark.source
    def test_horovods_elastic_driver_reads_hosts_and_slots_from_the_script(self, tmp_path):
        discovery = pytest.importorskip("horovod.runner.elastic.discovery", exc_type=ImportError)
        (tmp_path / "hosts").write_text("a:2\nb:1\nc\n")
        exclusions.exclude(str(tmp_path / "out.json"), "b", "why")
        script = f"{sys.executable} {DISCOVER} {tmp_path / 'hosts'} {tmp_path / 'out.json'}"
        asked = discovery.HostDiscoveryScript(script, 4)
        assert asked.find_available_hosts_and_slots() == {"a": 2, "c": 4}

    def discovered(self, tmp_path, hosts, excluded):
        (tmp_path / "hosts").write_text(hosts)
        if excluded is not None:
            (tmp_path / "out.json").write_text(excluded)
        command = [sys.executable, DISCOVER, tmp_path / "hosts", tmp_path / "out.json"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    @pytest.mark.source
    def test_the_discovery_script_leaves_them_out_until_their_time_is_over(self, tmp_path):
        now = time.time()
        entries = {"a": now + 1000, "b.example.com": None, "c": now - 1, "10.0.0.7": None}
        excluded = json.dumps({"hosts": {host: {"until": until} for host, until in entries.items()}})
        hosts = "a:2\nb:1  # rack 3\n\nc:1\nd\na.example.com:1\n10.0.0.7:1\n10.0.0.8:1\n"
        done = self.discovered(tmp_path, hosts, excluded)
        assert done.stdout.split() == ["c:1", "d", "10.0.0.8:1"]
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.source
    def test_the_discovery_script_reads_what_the_policy_writes(self, tmp_path):
        exclusions.exclude(str(tmp_path / "out.json"), "b", "why", 600)
        assert self.discovered(tmp_path, "a:1\nb:1\n", None).stdout == "a:1\n"

    @pytest.mark.source
    @pytest.mark.parametrize("excluded", ["", "b", "[]", '{"hosts": ["b"]}', '{"hosts": {"b": 1}}', "{}"])
    def test_the_discovery_script_fails_with_a_message_where_the_file_is_none(self, tmp_path, excluded):
        done = self.discovered(tmp_path, "a:1\nb:1\n", excluded)
        assert done.returncode == 1
        assert done.stdout == ""
        assert "cannot be read" in done.stderr

    @pytest.mark.source
    def test_no_file_excludes_nobody(self, tmp_path):
        assert self.discovered(tmp_path, "a:1\nb:1\n", None).stdout == "a:1\nb:1\n"


def answer(evidence):
    return "stop"


class TestAgreement:
    """Ranks with unlike policies stopped alone, and the others named them as late."""

    @pytest.mark.parametrize(
        ("own", "others"),
        [
            (("stop", {}), ("warn", {})),
            ((answer, {}), ("stop", {})),
            ((hb.Policy("exclude", after=2), {}), ("exclude", {})),
            ((hb.Policy(on_suspicion="stop"), {"alpha": 1e-2}), (hb.Policy(on_suspicion="stop"), {})),
            ((hb.Policy(on_excess="stop"), {"test": None}), (hb.Policy(on_excess="stop"), {})),
        ],
    )
    def test_what_ranks_decide_by_is_compared(self, own, others):
        terms = {as_policy(policy).terms(hb.Ledger(**options)) for policy, options in (own, others)}
        assert len(terms) == 2

    @pytest.mark.parametrize(
        ("own", "others"),
        [
            ((None, {"alpha": 1e-2}), (None, {})),  # nothing is decided from it
            ((hb.Policy(excluded_hosts="/a"), {}), (hb.Policy(excluded_hosts="/b"), {})),
        ],
    )
    def test_what_decides_nothing_may_differ(self, own, others):
        terms = {as_policy(policy).terms(hb.Ledger(**options)) for policy, options in (own, others)}
        assert len(terms) == 1

    def test_functions_are_compared_by_name_not_by_address(self):
        class Decides:
            def __call__(self, evidence):
                return None

        assert as_policy(Decides()).terms(hb.Ledger()) == as_policy(Decides()).terms(hb.Ledger())

    def test_the_ranks_agree_on_it_and_again_when_it_changes(self, monkeypatch):
        said = []

        def told(self, d, dtype, *, layout, **options):
            said.append(layout)
            return bound(self, d, dtype, layout=layout, **options)

        bound = Symmetric.bind
        monkeypatch.setattr(Symmetric, "bind", told)
        parameter = torch.nn.Parameter(torch.ones(2))
        optimizer = hb.DistributedOptimizer(torch.optim.SGD([parameter], lr=0.1), policy="exclude")

        def step():
            parameter.sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        step()
        step()
        assert len(said) == 1
        optimizer.policy = hb.Policy(on_suspicion="exclude")
        step()
        optimizer.ledger = hb.Ledger(alpha=1e-4)
        step()
        step()
        assert len(said) == len(set(said)) == 3
        assert optimizer.last.step == 4

    def test_a_policy_that_is_set_later_acts(self):
        """It was shown by the attribute, and never carried out."""
        parameter = torch.nn.Parameter(torch.ones(2))
        optimizer = hb.DistributedOptimizer(torch.optim.SGD([parameter], lr=0.1))
        optimizer.policy = "stop"
        assert optimizer._enforcer.policy == optimizer.policy == hb.Policy("stop")
        with pytest.raises(ValueError, match="'warn' or 'exclude' or 'stop'"):
            optimizer.policy = "shout"
