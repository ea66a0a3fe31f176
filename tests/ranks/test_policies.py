"""A policy decides alike on real ranks, and messages of another length name their sender."""

import pytest

from rank_jobs import jobs

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("policies")]

job = jobs((4, "gloo"), (4, "mpi"))


def test_all_ranks_exclude_and_readmit_alike_in_every_way_to_collect(checked):
    ranks = checked("check_exclusion")
    for rank in ranks:
        for run in rank.values():
            assert run["excluded"] == [[], [2], [2], [2], [], [], []]
            assert run["stopped"] is None
    assert len({run["bits"] for rank in ranks for run in rank.values()}) == 1


def test_all_ranks_stop_at_the_step_and_their_models_stay(checked):
    for rank in checked("check_stop"):
        step, workers, words = rank["stopped"]["stopped"]
        assert (step, workers) == (1, [2])
        assert "worker 2" in words
        assert "NaN" in words
        assert rank["stopped"]["bits"] == rank["before"]["bits"]


def test_a_message_of_another_length_names_its_sender(checked):
    for rank, seen in enumerate(checked("check_lengths")):
        for at, length in enumerate((0, 1, 1000)):
            named, after = seen[2 * at : 2 * at + 2]
            assert after == [[sender] * 8 for sender in range(4)]
            if rank != 1:
                assert named[0] == [1]
                assert f"rank 1: {length} elements, not 100" in named[1]
