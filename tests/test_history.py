"""Reading a ledger's file: whole, cut short, resumed, damaged, of a later version, of several ranks."""

import json

import pytest

import ledger_files
from horovod_byz.ledger.history import files, read
from horovod_byz.ledger.lines import LedgerFileError
from ledger_files import SCENARIOS, Writer, end, lost, rank_ends


def file_of(tmp_path, text, name="ledger.jsonl"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_is_read_from_its_folder_and_from_its_file(tmp_path, name):
    folder = SCENARIOS[name]().into(tmp_path)
    history = read(folder)
    assert history.entries or name == "clean"
    assert (history.binding.workers, len(history.binding.places)) in ((8, 8), (6, 6))
    alone = read(folder / "ledger.jsonl")
    assert (alone.entries, alone.windows, alone.ends) == (history.entries, history.windows, history.ends)
    assert not history.notes


def test_places_steps_and_means_are_read(tmp_path):
    history = read(lost([412]).into(tmp_path))
    place = history.binding.place_of(3)
    assert (place.rank, place.host, place.local_rank, place.device) == (
        3,
        "b",
        1,
        "cuda:1 NVIDIA H200 GPU-b1",
    )
    assert (history.steps, history.last_step, history.windows[0].phases["compute"]) == (1000, 1000, 0.2)
    assert history.totals[3].proofs == {"outvoted": 1}
    assert history.ends[0].reason == ""


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_last_line_that_is_not_whole_is_skipped_with_a_note(tmp_path, cut):
    text = lost([412]).text()
    whole = read(file_of(tmp_path, text.rsplit("\n", 2)[0] + "\n"))
    history = read(file_of(tmp_path, text[:-cut]))
    if cut == 1:  # only the end of the line is missing: the record is whole
        assert history.ends
        assert not history.notes
    else:
        assert history.entries == whole.entries
        assert not history.ends
        assert "skipped" in history.notes[0]


@pytest.mark.parametrize("between", ["", "\n"])
def test_a_run_that_is_resumed_after_a_line_was_cut_short_is_read_whole(tmp_path, between):
    before, after = Writer().evidence(3, "outvoted", 3).text(), Writer().evidence(9, "outvoted", 3).text()
    history = read(file_of(tmp_path, before + '{"record": "evid' + between + after))
    assert [entry.evidence.step for entry in history.entries] == [3, 9]
    assert len(history.bindings) == 2
    assert "line 3" in history.notes[0]


def test_zeros_that_a_power_failure_left_are_skipped(tmp_path):
    history = read(file_of(tmp_path, Writer().windows(20).text().encode() + bytes(512)))
    assert len(history.windows) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("garbage", r"line 3 is no record of a ledger, got 'garbage'"),
        ("[1, 2]", "line 3 is no record"),
        (
            '{"record": "evidence", "step": "x", "kind": "proof", "reason": "late"}',
            "line 3: 'step' must be a number",
        ),
        (
            '{"record": "evidence", "kind": "proof", "reason": "late"}',
            "line 3: 'step' must be a number from 0",
        ),
        (
            '{"record": "evidence", "step": 1.5, "kind": "proof"}',
            "line 3: 'step' must be a whole number, got 1.5",
        ),
        (
            '{"record": "window", "first": 0, "last": 1, "workers": 7}',
            "line 3: 'workers' must be a list, got 7",
        ),
        (
            '{"record": "window", "first": 0, "last": 1, "workers": [7]}',
            "'workers' must be a list of objects",
        ),
        ('{"record": "run", "workers": 8, "groups": [["a"]]}', "'groups' must be a list of whole numbers"),
        ('{"record": "run", "places": [{"rank": 0, "host": 7}]}', "'host' must be a text, got 7"),
        ('{"record": "run", "format": 99}', "format 99 is newer than 1.*upgrade"),
    ],
)
def test_what_is_no_ledger_is_refused_by_file_and_line(tmp_path, line, message):
    text = Writer().evidence(1, "outvoted", 3).text() + line + "\n" + json.dumps(end(5)) + "\n"
    with pytest.raises(LedgerFileError, match=rf"ledger\.jsonl, {message}" if "line" in message else message):
        read(file_of(tmp_path, text))


@pytest.mark.parametrize("content", ["hello\n", "a,b\n1,2\n", b"\x89PNG\r\n\x1a\n\xff\xfe"])
def test_another_file_is_refused(tmp_path, content):
    with pytest.raises(LedgerFileError, match="line 1 is no record of a ledger"):
        read(file_of(tmp_path, content, "other.txt"))


def test_a_folder_without_a_ledger_and_no_folder_say_so(tmp_path):
    with pytest.raises(LedgerFileError, match=r"holds no ledger\.jsonl"):
        read(tmp_path)
    with pytest.raises(LedgerFileError, match="does not exist"):
        read(tmp_path / "nowhere")


def test_records_keys_and_kinds_of_a_later_version_are_passed_over(tmp_path):
    writer = Writer().evidence(3, "smells", 3, kind="hunch", colour="red")
    writer.records.append({"record": "weather", "rain": True})
    history = read(writer.into(tmp_path))
    assert [entry.evidence.kind for entry in history.entries] == ["notice"]  # accuses nobody


def test_numbers_that_are_not_finite_are_none(tmp_path):
    text = Writer().window(0, 19).text().replace('"distance": 1.0,', '"distance": NaN,')
    assert read(file_of(tmp_path, text)).windows[0].workers[0].distance is None


def test_names_are_printable_and_short(tmp_path):
    named = ledger_files.places()
    named[0]["host"] = "a\x1b[2J\x07\u202e" + "x" * 200
    host = read(Writer(places=named).into(tmp_path)).binding.places[0].host
    assert host.startswith("a?[2J??x")
    assert len(host) == 64


def test_the_same_evidence_counts_once(tmp_path):
    writer = Writer().evidence(3, "outvoted", 3).evidence(3, "outvoted", 3).evidence(3, "non-finite", 3)
    assert len(read(writer.into(tmp_path)).entries) == 2


class TestFilesOfRanks:
    """Each rank that ends by an error writes a file of its own: run, evidence, totals, end."""

    def test_their_ends_are_read_with_the_rank(self, tmp_path):
        folder = ledger_files.late_rank(tmp_path)
        ends = read(folder).ends
        assert sorted((e.source, e.ranks) for e in ends) == [(0, (1,)), (2, (1,)), (3, (0, 1))]
        assert [path.name for path in files(folder)][1:] == [f"ledger.rank{rank}.jsonl" for rank in (0, 2, 3)]

    def test_they_are_enough_alone(self, tmp_path):
        writer = Writer().evidence(3, "outvoted", 3).end(5, "LateRanksError: rank 1", [1])
        (tmp_path / "ledger.rank2.jsonl").write_text(writer.text())
        history = read(tmp_path)
        assert (history.binding.workers, history.ends[0].source, len(history.entries)) == (8, 2, 1)

    def test_an_end_before_a_new_binding_is_past(self, tmp_path):
        """Elastic: the job went on without the rank, and then ended well."""
        ledger_files.elastic().into(tmp_path)
        old = Writer(started="2026-11-26T16:00:00.250+00:00").end(15, "LateRanksError: rank 0", [0])
        new = Writer(started="2026-11-26T16:10:00.250+00:00").end(60, "ValueError: mine")
        (tmp_path / "ledger.rank2.jsonl").write_text(old.text())
        assert [e.reason for e in read(tmp_path).ends] == [""]
        (tmp_path / "ledger.rank2.jsonl").write_text(old.text() + new.text())
        assert sorted(e.reason for e in read(tmp_path).ends) == ["", "ValueError: mine"]

    def test_evidence_that_they_repeat_counts_once(self, tmp_path):
        folder = lost([412], run=420).without_end().into(tmp_path)
        again = Writer(started="2026-11-26T16:00:00.100+00:00").evidence(412, "outvoted", 3)
        rank_ends(folder, {0: end(419, "ValueError: mine")})
        (folder / "ledger.rank5.jsonl").write_text(again.end(419, "ValueError: mine").text())
        history = read(folder)
        assert len(history.entries) == 1
        assert len(history.ends) == 2

    def test_an_error_counts_once_where_ranks_count_their_steps_differently(self, tmp_path):
        """0.3 in the making: a rank that skipped a step was reported for two header mismatches, at two steps.
        Cause: the others enter the error at their step, and the rank itself at its own."""
        folder = Writer().evidence(5, "header", 2).without_end().into(tmp_path)
        own = Writer(started="2026-11-26T16:00:00.100+00:00").evidence(6, "header", 2)
        others = Writer(started="2026-11-26T16:00:00.100+00:00").evidence(6, "header", 4)
        (folder / "ledger.rank2.jsonl").write_text(own.end(6, "HeaderMismatchError: rank 2", [2]).text())
        (folder / "ledger.rank3.jsonl").write_text(others.end(6, "HeaderMismatchError: rank 4", [4]).text())
        known = [(entry.evidence.step, entry.evidence.worker) for entry in read(folder).entries]
        assert known == [(5, 2), (6, 4)]


def test_a_job_that_was_started_again_in_the_same_folder_is_told_by_its_last_run(tmp_path):
    first = lost([12], run=60).text()
    second = Writer(resumed=False, started="2026-11-26T18:00:00+00:00").windows(40).end(40).text()
    history = read(file_of(tmp_path, first + second))
    assert (history.entries, history.steps, len(history.bindings)) == ((), 40, 1)
    assert "earlier run" in history.notes[0]
