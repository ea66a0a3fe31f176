"""The judge of `make chaos` can find fault with every part of an outcome."""

from __future__ import annotations

import dataclasses

import pytest

import horovod_byz as hb
from chaos.judge import Launched, Reported, judge, launcher_names
from chaos.page import text
from chaos.run import judged
from chaos.scenarios import AT, STEPS, TABLE, Scenario, launches, repeated

FLIP = hb.Faults().bitflip(worker=2, bit=0, at=AT)
SURVIVES = Scenario("gloo", 3, "root", "detox", FLIP, named=(2,), reason="outvoted")
LATE = Scenario(
    "gloo", 3, "root", "mean", hb.Faults().stall(rank=2, at=AT), ends="LateRanksError", named=(2,)
)
KILLED = dataclasses.replace(LATE, faults=hb.Faults().kill(rank=2, at=AT), killed=True)
STATE = dataclasses.replace(SURVIVES, ends="StateMismatchError", reason="", expects_state="stop")
REPAIRED = dataclasses.replace(
    SURVIVES, faults=hb.Faults().flip_parameter(rank=2, at=AT), reason="state", expects_state="repair"
)
CLEAN = "a"
CULPRIT = "worker 2 (rank 2, host a): lost 1 vote (0.bias differs), at step {}, transient; suggest: watch a"
NOBODY = "no worker is proven or suspected wrong in 12 steps of 3 workers; no statistical test ran"


def proof(step=AT, rank=2, kind="proof", reason="outvoted"):
    return {"step": step, "kind": kind, "reason": reason, "worker": rank, "rank": rank, "detail": ""}


def records(who=(0, 1, 2), **more):
    common = {"host": "a", "ends": "survives", "text": "", "ranks": [], "seconds": 1.0, "steps": STEPS}
    common |= {"evidence": [proof()], "digest": CLEAN, "finite": True, "places": {"2": "a"}}
    return [{**common, "rank": rank, **more} for rank in who]


def late(who=(0, 1), named=(2,)):
    return records(who, ends="LateRanksError", ranks=list(named), steps=AT, evidence=[])


def said(scenario):
    """What the report must say of a scenario."""
    return Reported(CULPRIT.format(scenario.seen_at), 2) if scenario.named else Reported(NOBODY, 0)


def wrong(scenario, written, launched=None, clean=CLEAN, report=None):
    launched = dataclasses.replace(launched or Launched(), report=report or said(scenario))
    return judge(scenario, written, launched, clean).wrong


def test_what_must_come_of_it_is_green():
    assert wrong(SURVIVES, records()) == []
    assert wrong(LATE, late()) == []
    assert wrong(KILLED, late()) == []
    killed = Launched(printed="Process name: 2\nExit code: 137")
    silent = (
        "no worker is named; the launcher ended the run after step 4, and rank {} (host a) alone left no word"
    )
    assert wrong(KILLED, [], killed, report=Reported(silent.format(2), 0)) == []
    assert wrong(KILLED, [], killed, report=Reported(silent.format(1), 0)) == [
        f"the report names another: {silent.format(1)}"
    ]
    stopped = records(ends="StateMismatchError", ranks=[2], evidence=[])
    stopped[2]["digest"] = "b"
    assert wrong(STATE, stopped) == []
    assert wrong(REPAIRED, records(evidence=[proof(AT + 1, reason="state")])) == []


@pytest.mark.parametrize(
    ("scenario", "line", "code", "message"),
    [
        (SURVIVES, CULPRIT.format(AT), 0, "the report's exit code is 0"),
        (SURVIVES, NOBODY, 2, "does not begin with rank 2 on a"),
        (SURVIVES, CULPRIT.format(AT).replace("host a", "host b"), 2, "does not begin with rank 2 on a"),
        (SURVIVES, f"2 culprits: {CULPRIT.format(AT)}", 2, "does not begin with rank 2 on a"),
        (SURVIVES, CULPRIT.format(AT + 1), 2, f"does not say 'at step {AT},'"),
        (REPAIRED, CULPRIT.format(AT + 1).replace("0.bias", "state"), 2, "names no tensor"),
        (dataclasses.replace(SURVIVES, named=(), reason=""), CULPRIT.format(AT), 0, "without a culprit says"),
    ],
)
def test_a_report_that_names_nobody_or_another_is_red(scenario, line, code, message):
    entered = [proof(scenario.seen_at, reason=scenario.reason)] if scenario.named else []
    reasons = wrong(scenario, records(evidence=entered), report=Reported(line, code))
    assert all(line in reason or "exit code" in reason for reason in reasons)
    assert any(message in reason for reason in reasons)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ends": "RuntimeError"}, "rank 0 ended with RuntimeError"),
        ({"evidence": []}, "ranks [2] were not named"),
        ({"evidence": [proof(), proof(rank=1)]}, "innocent ranks [1] were named"),
        ({"evidence": [proof(), proof(rank=1, kind="suspicion", reason="far")]}, "innocent ranks [1]"),
        ({"evidence": [proof(step=AT + 1)]}, f"named first at {AT + 1}"),
        ({"evidence": [proof(), proof(step=AT + 1)]}, "in some of which nothing was wrong"),
        ({"finite": False}, "3 ranks have NaN or Inf"),
        ({"digest": "b"}, "not that of the run without faults"),
    ],
)
def test_a_run_that_survived_wrongly_is_red(more, message):
    assert any(message in reason for reason in wrong(SURVIVES, records(**more)))


def test_ranks_whose_parameters_differ_are_red():
    written = records()
    written[1]["digest"] = "b"
    assert wrong(SURVIVES, written) == ["1 ranks have other parameters than most"]


def test_a_missing_notice_is_red():
    relay = dataclasses.replace(SURVIVES, named=(), reason="", notice="altered in transit")
    assert wrong(relay, records(evidence=[])) == ["no notice 'altered in transit' was entered"] * 3
    assert wrong(relay, records(evidence=[proof(0, 0, "notice", "altered in transit")])) == []


def test_errors_that_name_nobody_or_an_innocent_are_red():
    assert "ranks [2] were not named" in wrong(LATE, late(named=()))
    assert "innocent ranks [1] were named" in wrong(LATE, late(named=(1, 2)))
    assert "ranks [1] ended without a word" in wrong(LATE, late(who=(0,)))
    assert "ranks [2] were not named" in wrong(KILLED, [], Launched(printed="Process name: 1\n"))


@pytest.mark.parametrize(
    ("printed", "named"),
    [
        ("Process name: 2\nExit code: 137\n", [2]),
        ("prterun noticed that process rank 2 with PID 18037 on node vm exited on\nsignal 9 (Killed).", [2]),
        ("   Process name: [prterun-vm-18116@1,2]\n   Exit code:    1\n", [2]),
        ("[2]<stderr>:REHEARSAL: step 5: injected kill(rank=2, at=5)\nProcess name: 12\n", []),
    ],
)
def test_what_launchers_say(printed, named):
    assert [rank for rank in range(4) if launcher_names(printed, rank)] == named


def test_a_launch_that_hung_or_left_something_is_red():
    launched = Launched(ended=False, seconds=60.0, processes=1, files=2)
    assert wrong(SURVIVES, records(), launched) == [
        "did not end within its limit of 60 s",
        "1 processes left behind",
        "2 files left behind",
    ]


def test_the_table_has_no_scenario_twice_and_covers_everything():
    assert repeated() == []
    assert len(TABLE) >= 60
    assert {s.collect for s in TABLE} == {"symmetric", "root", "sharded", "replicas"}
    assert {s.backend for s in TABLE} == {"gloo", "mpi"}
    assert sorted(s.name for launch in launches(TABLE) for s in launch) == sorted(s.name for s in TABLE)
    assert all(len(launch) == 1 for launch in launches(TABLE) if launch[0].fatal)


def test_the_page_shows_red_scenarios():
    row = judge(SURVIVES, records(finite=False), Launched(report=said(SURVIVES)), CLEAN).row
    common = {"seconds": 1, "cores": 2, "date": "d", "horovod_byz": "v", "horovod": "v", "torch": "v"}
    page = text({**common, "scenarios": [row]})
    assert "0 of 1 scenarios are green" in page
    assert f"* `{SURVIVES.name}`: {CULPRIT.format(AT)}\n" in page
    assert "| RED | gloo | 3 | root | detox | `bitflip(worker=2, bit=0, at=5)` | survives |" in page
    assert "3 ranks have NaN or Inf" in page


def test_a_launch_that_hung_speaks_against_the_scenarios_that_did_not_end():
    first, second, last = (dataclasses.replace(SURVIVES, collect=c) for c in ("root", "sharded", "replicas"))
    hung = Launched(ended=False, processes=2)
    written = records() + records((0, 1))
    for record, scenario in zip(written, [first] * 3 + [second] * 2, strict=True):
        record["scenario"] = scenario.name
    reports = {scenario.name: said(scenario) for scenario in (first, second, last)}
    verdicts = judged((first, second, last), written, hung, reports)
    assert [bool(verdict.wrong) for verdict in verdicts] == [False, True, True]
    assert [verdict.row["processes_left"] for verdict in verdicts] == [0, 0, 2]
