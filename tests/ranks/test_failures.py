"""Ranks that send NaN, rewrite what they relay, bring another shape, or do not come."""

import pathlib
import re
import subprocess
import sys

import pytest

from rank_jobs import BACKENDS, HOROVODRUN, built, jobs

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("failures")]

job = jobs((4, "gloo"), (4, "mpi"))
PROGRAMS = pathlib.Path(__file__).parents[1] / "programs"


def test_training_goes_on_and_the_nan_worker_is_named(checked):
    for rank in checked("check_nan_worker"):
        for name, case in rank.items():
            assert case["finite"], name
            assert case["losses"][1] < case["losses"][0], name
            assert case["suspects"] == [1], name
            assert case["reason"] == "non-finite", name


def test_a_row_rewritten_by_a_relay_is_found_and_fetched_directly(checked):
    """Horovod 0.28.1: rank 1 overwrites rank 0's segment of its output while the ring allgather forwards it;
    ranks further down the ring then receive a falsified row. Cause: allgather relays through peers."""
    ranks = checked("check_tampering")
    assert all(rank["same"] for rank in ranks)
    assert all(rank["rewritten"] == ranks[0]["rewritten"] for rank in ranks)
    assert [0] in ranks[0]["rewritten"]


def test_a_wrong_aggregator_is_outvoted(checked):
    for rank in checked("check_wrong_aggregator"):
        for case in rank.values():
            assert case["same"]
            assert case["ranks"] == [1]
            assert case["ledger"] == {"1": 1}


@pytest.mark.parametrize("case", ["step", "rule", "length", "mode", "dtype", "model"])
def test_the_rank_that_would_send_something_else_is_named(checked, case):
    for rank in checked("check_headers"):
        assert rank[case]["kind"] == "HeaderMismatchError"
        assert rank[case]["ranks"] == [2]
        assert "rank 2" in rank[case]["text"]


def test_collection_goes_on_after_a_mismatch(checked):
    assert len({rank["after"] for rank in checked("check_headers")}) == 1


@pytest.mark.checks("late")
def test_a_late_rank_is_named_within_the_timeout(results, job):
    """Horovod 0.28.1 waits for ever: its stall check loops over nobody on Gloo; under MPI it hangs itself."""
    ranks = results("check_late", *job, "late")
    for rank in (0, 1, 3):
        assert ranks[rank]["kind"] == "LateRanksError"
        assert ranks[rank]["ranks"] == [2]
        assert re.search(r"rank 2 \(host \S+\) did not arrive", ranks[rank]["text"])
        assert ranks[rank]["elastic"]


def test_ranks_that_wait_for_the_late_one_are_not_late(checked):
    """Version 0.1: of two ranks that waited for a third, one was accused. Cause: it had come less far."""
    ranks = checked("check_one_skips")
    for rank in (0, 1, 3):
        assert ranks[rank]["kind"] == "LateRanksError"
        assert ranks[rank]["ranks"] == [2]


def test_a_rank_that_skips_a_step_alone_is_named_at_the_next(checked):
    for rank in checked("check_skipped_step"):
        assert rank["kind"] == "HeaderMismatchError"
        assert rank["ranks"] == [2]
        assert "rank 2: step 2 where most have 1" in rank["text"]


@pytest.mark.checks("crashing")
def test_a_rank_that_comes_after_a_crash_is_not_accused_with_it(results):
    """Version 0.1: rank 1 was accused with the last, which had crashed. Under MPI the launcher ends all."""
    ranks = results("check_crash", 3, "gloo", "crashing")
    for rank in (0, 1):
        assert ranks[rank]["kind"] == "LateRanksError"
        assert ranks[rank]["ranks"] == [2]
        assert "of step 1" in ranks[rank]["text"]
        assert "without a sign of life" in ranks[rank]["text"]


@pytest.mark.checks("exiting")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rank_whose_script_ended_is_named(results, backend):
    """Version 0.1, MPI: "who is late could not be learnt". Cause: MPI had ended before anybody asked."""
    ranks = results("check_exit", 3, backend, "exiting")
    for rank in (0, 1):
        assert ranks[rank]["ranks"] == [2]
        assert re.search(
            r"rank 2 \(host \S+\) left or failed "
            r"\(its script ended; do all ranks take the same number of steps\?\)",
            ranks[rank]["text"],
        )


@pytest.mark.checks("shutting")
@pytest.mark.parametrize("backend", BACKENDS)
def test_after_a_shutdown_the_ranks_error_says_so_and_the_others_name_the_rank(results, backend):
    ranks = results("check_shutdown", 3, backend, "shutting")
    assert ranks[2]["kind"] == "TransportError"
    assert ranks[2]["ranks"] == []
    assert "Horovod was shut down: call hvd.init() and optimizer.rebind()" in ranks[2]["text"]
    for rank in (0, 1):
        assert ranks[rank]["kind"] == "LateRanksError"
        assert ranks[rank]["ranks"] == [2]


def test_the_error_of_a_single_process_says_that_it_shut_horovod_down(ranks):
    """Version 0.1: the error named late ranks."""
    if not built("gloo"):
        pytest.skip("Horovod was built without gloo, and a process can start MPI only once")
    command = [sys.executable, PROGRAMS / "shut_down.py"]
    env = {**ranks, "HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}
    job = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert job.returncode == 0, job.stderr
    message, went_on = job.stdout.splitlines()
    assert message.startswith(
        "TransportError the header exchange of step 1 cannot begin: Horovod was shut down"
    )
    assert message.endswith("call hvd.init() and optimizer.rebind()")
    assert went_on == "went on"


def test_a_stopped_rank_does_not_keep_the_others_from_leaving_mpi(ranks, python):
    """Version 0.1: the ranks that had raised hung in MPI_Finalize, which waits for the stopped rank."""
    command = [*HOROVODRUN, "-np", "3", *BACKENDS["mpi"], *python(), PROGRAMS / "stopped.py"]
    job = subprocess.run(command, env=ranks, capture_output=True, text=True, timeout=200)
    printed = job.stdout + job.stderr
    assert job.returncode != 0
    assert "LateRanksError: the header exchange of step 1" in printed
    assert re.search(r"rank 1 \(host \S+\) did not arrive", printed)
    assert "this process ends without it" in printed


@pytest.mark.checks("leaving")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rank_may_leave_before_the_others_have_read_its_last_message(results, backend):
    """Horovod 0.28.1 shut down on every rank while rank 0 still read: "MPI was finalised", or an abort.
    Cause: the first rank to leave ends MPI everywhere, whatever the calling threads still do."""
    assert len(set(results("check_slow_reader", 2, backend, "leaving"))) == 1
