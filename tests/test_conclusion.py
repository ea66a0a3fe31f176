"""Whom a run's evidence names, in which pattern, and what to do: scenario by scenario."""

import dataclasses
from pathlib import Path

import pytest

import ledger_files
from horovod_byz.ledger.conclusion import conclude
from horovod_byz.ledger.history import History, read
from horovod_byz.ledger.parsed import Binding
from horovod_byz.ledger.pattern import pattern
from ledger_files import SCENARIOS, Writer, end, lost, places, rank_ends


def concluded(writer, tmp_path):
    return conclude(read(writer.into(tmp_path)))


LINES = {
    "example": (
        2,
        "worker 3 (rank 3, host b, GPU 1): lost 3 votes, first at step 412, last at step 871, "
        "transient; suggest: drain b",
    ),
    "clean": (
        0,
        "no worker is proven or suspected wrong in 100 steps of 8 workers; test: exchangeable, at"
        " most 1 false alarm in 1,000 runs",
    ),
    "transient": (
        2,
        "worker 3 (rank 3, host b, GPU 1): lost 1 vote, at step 412, transient; suggest: watch b,"
        " drain it at the next",
    ),
    "periodic": (
        2,
        "worker 3 (rank 3, host b, GPU 1): lost 142 votes, first at step 7, periodic (every 7 "
        "steps); suggest: drain b",
    ),
    "persistent": (
        2,
        "worker 3 (rank 3, host b, GPU 1): lost 588 votes, first at step 412, persistent; suggest: drain b",
    ),
    "nan": (
        2,
        "worker 5 (rank 5, host c, GPU 1): sent NaN or infinite values in 60 steps, first at step"
        " 40, persistent; suggest: look at the worker's data; if they are sound, drain c",
    ),
    "killed": (
        2,
        "worker 3 (rank 3, host b, GPU 1): lost 1 vote, at step 12, transient; suggest: watch b, "
        "drain it at the next",
    ),
    "host": (
        2,
        "host b (ranks 2 and 3, all of its ranks): sent NaN or infinite values in 4 steps, first "
        "at step 50, last at step 95, transient; suggest: drain b",
    ),
    "suspicion": (
        2,
        "worker 5 (rank 5, host c, GPU 1): suspected, not proven: sends gradients unlike the "
        "others', since step 210, at most 1 false alarm in 1,000 runs if workers draw their data alike "
        "(shuffled); suggest: watch c, look at "
        "its data",
    ),
    "two camps": (
        2,
        "no worker is named; warning: the rows form two camps in 80 steps: more workers than the "
        "rule tolerates, perhaps the majority, may be wrong (first at step 20)",
    ),
    "state": (
        2,
        "worker 2 (rank 2, host b, GPU 0): held another state than most ranks, once "
        "(layer1.weight, tile 7), at step 400, transient, repaired at step 400; suggest: watch b,"
        " drain it at the next",
    ),
    "slow": (
        0,
        "no worker is proven or suspected wrong in 100 steps of 8 workers; test: exchangeable, at"
        " most 1 false alarm in 1,000 runs",
    ),
    "elastic": (
        2,
        "worker 1 (rank 1, host b, GPU 1): lost 3 votes, first at step 10, last at step 35, "
        "transient; suggest: drain b",
    ),
    "hostile": (
        2,
        "2 culprits: worker 3 (rank 3, host <script>alert(1)</script>, GPU 1); worker 4 (rank 4, "
        "host [red]b[/red]?[31m, {{); look first at <script>alert(1)</script>",
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_first_line_and_the_exit_code(tmp_path, name):
    conclusion = concluded(SCENARIOS[name](), tmp_path)
    assert (conclusion.code, conclusion.line) == LINES[name]


def test_votes_that_a_damaged_state_loses_until_its_repair_are_part_of_it(tmp_path):
    """0.3 in the making: a flipped bit that was repaired was "lost 1 vote and ...; suggest: drain b"."""
    lines = {}
    for name, steps in (("until", (397, 398, 399, 400)), ("after", (397, 398, 399, 400, 401))):
        writer = Writer().windows(420)
        writer.evidence(400, "state", rank=2, detail="layer1.weight differs from 7 of 8 ranks")
        for step in steps:
            writer.evidence(step, "outvoted", 2)
        writer.action(400, "repair", rank=2)
        lines[name] = conclude(read(writer.end(420).into(tmp_path / name))).line
    assert lines["until"].endswith("transient, repaired at step 400; suggest: watch b, drain it at the next")
    assert lines["after"].endswith("suggest: drain b, restart from a checkpoint")


def test_the_rank_that_most_errors_name_is_late_and_those_that_left_before_others_are_not(tmp_path):
    conclusion = conclude(read(ledger_files.late_rank(tmp_path)))
    assert conclusion.line == (
        "worker 1 (rank 1, host a, GPU 1): did not arrive in time, once, at step 30; suggest: look whether a "
        "is up, and at its log; restart without it if it is not"
    )


def test_a_rank_that_is_late_only_for_those_that_ended_after_it_is_not_accused(tmp_path):
    """Rank 3 ended last, found rank 0 gone, and wrote so in its own file."""
    folder = ledger_files.late_rank(tmp_path)
    last = Writer(started="2026-11-26T16:00:00.100+00:00").evidence(30, "late", 0).evidence(30, "late", 1)
    (folder / "ledger.rank3.jsonl").write_text(last.end(30, "LateRanksError: ranks 0, 1", [0, 1]).text())
    assert [c.charge.workers for c in conclude(read(folder)).culprits] == [(1,)]


def test_errors_name_a_rank_that_the_ledger_does_not(tmp_path):
    """A rank was killed before rank 0 could enter anything."""
    folder = Writer().windows(20).into(tmp_path)
    rank_ends(folder, {2: end(20, "LateRanksError: rank 5", [5]), 0: end(20, "LateRanksError: rank 5", [5])})
    conclusion = conclude(read(folder))
    assert conclusion.line.startswith(
        "worker 5 (rank 5, host c, GPU 1): is named by the error that ended the run"
    )
    assert conclusion.code == 2


@pytest.mark.parametrize("silent", [(3,), (3, 4), ()])
def test_a_rank_that_alone_left_no_word_is_where_to_look_first_and_no_culprit(tmp_path, silent):
    """0.3 in the making: under Open MPI the report of a killed rank named the rank 0 that mpirun ended."""
    folder = Writer().windows(20).without_end().into(tmp_path)
    ended = "Terminated: the launcher ended this rank (SIGTERM) in the header exchange of step 20"
    rank_ends(folder, {rank: end(19, ended) for rank in range(8) if rank not in silent})
    conclusion = conclude(read(folder))
    assert (conclusion.verdict, conclusion.code, conclusion.culprits) == ("error", 0, ())
    hint = (
        "no worker is named; the launcher ended the run after step 19, and rank 3 (host b, GPU 1) alone left "
        "no word: look there first"
    )
    plain = f"no worker is named; rank 0 ended by an error at step 19: {ended}"
    assert conclusion.line == (hint if len(silent) == 1 else plain)


def test_the_rank_that_ended_the_run_is_the_first_to_look_at(tmp_path):
    writer = lost([5, 6, 7], run=20).without_end().evidence(20, "late", 6)
    rank_ends(writer.into(tmp_path), {0: end(19, "LateRanksError: rank 6", [6])})
    conclusion = conclude(read(tmp_path))
    assert [c.charge.workers for c in conclusion.culprits] == [(6,), (3,)]
    assert conclusion.line.endswith("look first at d")


def test_a_place_without_a_gpu_is_its_host(tmp_path):
    named = places("ab")
    named[1]["device"] = "cpu"
    line = concluded(Writer(workers=2, places=named).evidence(9, "outvoted", 1), tmp_path).line
    assert line.startswith("worker 1 (rank 1, host b): lost 1 vote, at step 9")


def test_a_script_that_fails_on_a_rank_is_told_with_its_own_error(tmp_path):
    folder = Writer().windows(20).into(tmp_path)
    rank_ends(folder, {5: end(20, "ValueError: mine"), 0: end(20, "LateRanksError: rank 5", [5])})
    assert "ended by its own error: ValueError: mine" in conclude(read(folder)).line


def test_an_error_that_all_ranks_end_by_is_not_the_own_error_of_a_culprit(tmp_path):
    folder = Writer().windows(20).evidence(20, "non-finite", 5).into(tmp_path)
    rank_ends(folder, {rank: end(20, "PolicyStopError: step 20") for rank in range(6)})
    assert "own error" not in conclude(read(folder)).line


def test_an_error_that_names_nobody_is_no_culprit(tmp_path):
    rank_ends(Writer().windows(20).into(tmp_path), {1: end(20, "MemoryError")})
    conclusion = conclude(read(tmp_path))
    assert (conclusion.code, conclusion.verdict) == (0, "error")
    assert conclusion.line == "no worker is named; rank 1 ended by an error at step 20: MemoryError"


class TestNobodyIsAccusedFalsely:
    def test_nan_on_over_half_of_the_workers_is_an_overflow(self, tmp_path):
        writer = Writer()
        for worker in range(6):
            writer.evidence(7, "non-finite", worker)
        writer.evidence(7, "overflow", kind="notice").evidence(9, "non-finite", 2)
        conclusion = concluded(writer.windows(20).end(20), tmp_path)
        assert [(c.charge.workers, c.charge.counts) for c in conclusion.culprits] == [
            ((2,), {"non-finite": 1})
        ]

    def test_a_group_in_which_all_lost_had_no_majority(self, tmp_path):
        writer = lost([], run=40)
        for worker in (0, 3, 6):
            writer.evidence(7, "outvoted", worker)
        conclusion = concluded(writer, tmp_path)
        assert conclusion.culprits == ()
        assert (conclusion.verdict, conclusion.warnings[0].reason) == ("warning", "no majority")

    def test_suspicion_beside_two_camps_is_not_the_first_line(self, tmp_path):
        conclusion = concluded(ledger_files.two_camps(), tmp_path)
        assert conclusion.verdict == "warning"
        assert "perhaps of the honest minority" in conclusion.suspects[0].sentence

    def test_a_victim_and_a_slow_rank_are_notices(self, tmp_path):
        writer = ledger_files.slow_rank().evidence(3, "altered in transit", 6, kind="notice")
        conclusion = concluded(writer, tmp_path)
        assert conclusion.code == 0
        assert [w.text for w in conclusion.warnings] == [
            "worker 4 (rank 4, host c, GPU 0) keeps the others waiting (first at step 40)",
            "worker 6 (rank 6, host d, GPU 0) is the victim of a rank that relays its rows: altered in "
            "transit in 1 step (first at step 3)",
        ]

    def test_a_host_all_of_whose_ranks_are_wrong_is_not_blamed_where_every_host_is(self, tmp_path):
        writer = Writer(workers=4, places=places("aabb"))
        for worker in range(4):
            writer.evidence(5, "outvoted", worker)
        conclusion = concluded(writer, tmp_path)
        assert [c.charge.level for c in conclusion.culprits] == ["worker"] * 4
        assert not any(host.bad for host in conclusion.hosts)

    def test_a_single_host_is_not_blamed_for_its_ranks(self, tmp_path):
        writer = Writer(workers=2, places=places("aa")).evidence(5, "outvoted", 0).evidence(5, "outvoted", 1)
        assert [c.charge.level for c in concluded(writer, tmp_path).culprits] == ["worker", "worker"]


def test_proof_and_suspicion_of_a_worker_are_not_mixed(tmp_path):
    writer = lost([5], run=40).evidence(9, "unlike the others", 3, kind="suspicion")
    writer.evidence(11, "unlike the others", 4, kind="suspicion")
    conclusion = concluded(writer, tmp_path)
    assert [c.charge.counts for c in conclusion.culprits] == [{"outvoted": 1}]
    assert [c.charge.workers for c in conclusion.suspects] == [(4,)]
    assert "suspected" not in conclusion.line


def test_a_rank_stands_for_all_of_its_workers(tmp_path):
    writer = Writer(workers=6, places=places("ab", workers=3))
    for worker in (3, 4, 5):
        writer.evidence(9, "late", worker)
    (culprit,) = concluded(writer, tmp_path).culprits
    assert culprit.sentence.startswith(
        "rank 1 (host b, GPU 0, workers 3 to 5): did not arrive in time, once, at step 9"
    )


def test_a_rank_without_a_worker_is_named_as_a_rank(tmp_path):
    named = places("ab")
    named[0]["workers"] = []
    writer = Writer(workers=1, places=named).evidence(9, "aggregate", rank=0)
    assert concluded(writer, tmp_path).line.startswith(
        "rank 0 (host a, GPU 0): returned a wrong aggregate in 1 step"
    )


def test_without_places_workers_are_named_by_number(tmp_path):
    writer = Writer(places=[]).evidence(9, "outvoted", 3).evidence(11, "outvoted", 3)
    assert concluded(writer, tmp_path).line == (
        "worker 3: lost 2 votes, first at step 9, last at step 11, transient; suggest: drain worker 3"
    )


def test_more_culprits_than_f_are_a_warning(tmp_path):
    writer = Writer(f=1).evidence(9, "non-finite", 3).evidence(9, "non-finite", 6).windows(20)
    conclusion = concluded(writer, tmp_path)
    assert conclusion.warnings[0].text.startswith("2 workers are proven wrong and the rule tolerates f = 1")


def test_what_a_policy_did_is_said(tmp_path):
    writer = lost([5, 6], run=40).action(7, "exclude", 3)
    assert "excluded at step 7; suggest" in concluded(writer, tmp_path).line


def test_the_counts_of_the_totals_count_where_the_file_holds_only_some_evidence(tmp_path):
    writer = lost([], run=10_000)
    for step in [*range(100, 200), *range(200, 10_000, 500)]:  # as a writer with a budget does
        writer.evidence(step, "outvoted", 3)
    writer.reasons[3] = {"outvoted": 9900}
    (culprit,) = concluded(writer.totals(10_000), tmp_path).culprits
    assert culprit.charge.counts == {"outvoted": 9900}
    assert str(culprit.pattern) == "persistent"


def test_a_run_that_has_no_step_yet_is_not_called_clean(tmp_path):
    assert concluded(Writer(), tmp_path).line == "no step is recorded yet"


def test_no_test_is_said(tmp_path):
    line = concluded(Writer(test=None, alpha=None).windows(20), tmp_path).line
    assert line.endswith("in 20 steps of 8 workers; no statistical test ran")


@pytest.mark.parametrize(
    "reason", ["two stories", "header", "aggregate", "non-finite", "of a later {version}"]
)
def test_every_reason_has_a_sentence_and_a_suggestion(tmp_path, reason):
    (culprit,) = concluded(Writer().evidence(9, reason, 3), tmp_path).culprits
    assert "; suggest: " in culprit.sentence
    assert " b" in culprit.suggestion or "data" in culprit.suggestion


@pytest.mark.parametrize(
    ("steps", "end", "count", "expected"),
    [
        ([412], 1000, 0, "transient"),
        ([5, 400, 412], 1000, 0, "transient"),
        (range(7, 100, 7), 100, 0, "periodic (every 7 steps)"),
        ([7, 14, 28, 35, 42, 49], 50, 0, "periodic (every 7 steps)"),
        ([10, 20], 100, 0, "transient"),
        ([10, 12, 40], 100, 0, "transient"),
        (range(10, 30), 60, 0, "transient"),  # a burst that is over
        (range(10, 60), 60, 0, "persistent"),
        ([step for step in range(10, 60) if step % 9], 60, 0, "persistent"),
        ([97, 98, 99], 100, 0, "persistent"),
        ([*range(100), *range(100, 5000, 250)], 5000, 4900, "persistent"),
        ([*range(100), *range(100, 5000, 250)], 5000, 0, "persistent"),
        ([*range(0, 700, 7), *range(700, 5000, 700)], 5000, 712, "periodic (every 7 steps)"),
        ([*range(0, 1000, 10)], 5000, 0, "periodic (every 10 steps)"),
    ],
)
def test_patterns(steps, end, count, expected):
    assert str(pattern(steps, end, count)) == expected


def test_conclusions_are_values(tmp_path):
    history = read(SCENARIOS["host"]().into(tmp_path))
    assert conclude(history) == conclude(dataclasses.replace(history))


class TestTooFewWorkers:
    """Of two rows none is unlike the others: the clean line claimed a test all the same."""

    @pytest.mark.parametrize(
        ("workers", "groups", "ran"),
        [(2, None, False), (3, None, True), (6, ((0, 1, 2), (3, 4, 5)), False), (1, None, False)],
    )
    def test_no_test_is_claimed(self, workers, groups, ran):
        bound = Binding(workers=workers, groups=groups, alpha=1e-3, test="exchangeable")
        line = conclude(History(Path(), (bound,), steps=50)).line
        assert ("test: exchangeable" in line) == ran
        assert ("no statistical test ran, since" in line) == (not ran)
