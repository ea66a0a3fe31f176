"""The ledger's file, the log and the callback of a job; and how ranks end that the launcher ends."""

import json
import re
from pathlib import Path

import pytest

from rank_jobs import BACKENDS, HOROVODRUN, built, finish, jobs

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("journal")]

job = jobs((4, "gloo"), (4, "mpi"))
PROGRAM = Path(__file__).parents[1] / "programs" / "ends_early.py"


def records(text, kind):
    return [record for record in map(json.loads, text.splitlines()) if record["record"] == kind]


def test_every_rank_learns_where_all_run(checked):
    ranks = checked("check_ledger")
    assert all(rank["places"] == ranks[0]["places"] for rank in ranks)
    for number, (rank, workers, host, local_rank, device) in enumerate(ranks[0]["places"]):
        assert (rank, workers, local_rank, device) == (number, [number], number, "cpu")
        assert host not in ("", "?", "localhost")


def test_the_culprit_is_heard_of_on_every_rank_at_once(checked):
    for rank in checked("check_ledger"):
        assert rank["heard"] == [[step, 2, 2, "non-finite"] for step in range(0, 21, 3)]


def test_the_culprit_is_on_the_screen_of_rank_0_once(checked):
    ranks = checked("check_ledger")
    (line,) = [line for line in ranks[0]["lines"] if "non-finite" in line]
    assert re.match(r"proof at step 0: worker 2 \(rank 2, host \S+, local rank 2, cpu\): non-finite", line)
    assert all(rank["lines"] == [] for rank in ranks[1:])


def test_the_file_has_the_run_the_evidence_and_a_window(checked):
    text = checked("check_ledger")[0]["file"]
    (run,) = records(text, "run")
    assert (run["workers"], run["rule"], len(run["places"])) == (4, "Median()", 4)
    assert [e["step"] for e in records(text, "evidence") if e["kind"] == "proof"] == list(range(0, 21, 3))
    window = records(text, "window")[0]
    assert window["workers"][2]["proofs"] == 7
    assert [rank["compute"] > 0 for rank in window["ranks"]] == [True] * 4


def test_every_rank_knows_the_seconds_of_all(checked):
    for rank in checked("check_ledger"):
        assert rank["paces"] == [[number, True, True, True] for number in range(4)]


def test_an_error_between_ranks_names_the_host_and_is_in_every_ranks_own_file(checked):
    for rank in checked("check_error"):
        assert rank["kind"] == "HeaderMismatchError"
        assert re.match(r"rank 2 \(host \S+\) would send something else", rank["text"])
        assert rank["evidence"] == [["header", 2]]
        (end,) = records(rank["own"], "end")
        assert end["ranks"] == [2]
        assert "HeaderMismatchError: rank 2" in end["reason"]


@pytest.mark.parametrize(("backend", "how"), [("gloo", "raise"), ("gloo", "kill"), ("mpi", "raise")])
def test_when_the_launcher_ends_the_ranks_the_name_gets_out_first(ranks, python, tmp_path, backend, how):
    """Version 0.2: the launcher's SIGTERM ended ranks before their errors had named the one that failed."""
    if not built(backend):
        pytest.skip(f"Horovod was built without {backend}")
    command = [*HOROVODRUN, "-np", "3", *BACKENDS[backend], *python(), PROGRAM, tmp_path, "1", how]
    done = finish(command, ranks)
    assert done.returncode != 0
    assert re.search(r"rank 1 \(host \S+\) (left or failed|did not arrive)", done.stdout), done.stdout[-5000:]
    (end,) = records((tmp_path / "ledger.rank0.jsonl").read_text(), "end")
    assert end["ranks"] == [1]
    assert [e["worker"] for e in records((tmp_path / "ledger.jsonl").read_text(), "evidence")] == [1]
    # Rank 2 computed: it names nobody, and nobody names it.
    (other,) = records((tmp_path / "ledger.rank2.jsonl").read_text(), "end")
    assert (other["ranks"], other["reason"][:12]) == ([], "Terminated: ")
    own = tmp_path / "ledger.rank1.jsonl"
    if how == "raise":
        assert records(own.read_text(), "end")[0]["reason"] == "ValueError: the data is gone"
    else:
        assert not own.exists()  # a killed process says nothing; the others do
