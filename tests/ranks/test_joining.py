"""hvd.join(): Horovod 0.28.1 crashes on Gloo when a rank that joined meets an alltoall of the others.

Cause: its response cache answers for ranks that joined. Version 0.1.0 of this library went there, and under
MPI reported a crash of the rank that joined.
"""

import pytest

from rank_jobs import jobs

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("joining")]

job = jobs((4, "gloo"), (4, "mpi"))


def named(result, ranks):
    assert result["kind"] == "JoinedRanksError", result
    assert result["ranks"] == ranks
    assert "called hvd.join() while" in result["text"]
    assert "DistributedSampler" in result["text"]


def test_after_equal_steps_all_ranks_join(checked):
    ranks = checked("check_equal_steps_then_join")
    for collect, case in ranks[0].items():
        assert all(0 <= last < 4 for last in case["last"])
        assert all(rank[collect] == case for rank in ranks)


def test_ranks_that_join_while_others_step_are_named_on_every_rank_at_once(checked):
    for rank, cases in enumerate(checked("check_uneven_steps")):
        for name, case in cases.items():
            assert (rank, name, case["kind"]) == (rank, name, "JoinedRanksError")
            named(case, case["early"])
            assert case["steps"] == 2


def test_join_imported_by_name_before_is_caught(checked):
    for result in checked("check_the_name_imported_before"):
        named(result, [2])


def test_the_others_may_be_in_another_session_or_bind_one(checked):
    for result in checked("check_other_sessions"):
        named(result["stepping"], [2])
        named(result["binding"], [2])


def test_a_rank_without_any_data_is_named(checked):
    for result in checked("check_a_rank_without_any_step"):
        named(result, [2])


def test_horovods_join_is_its_own_where_nothing_is_bound(checked):
    for result in checked("check_without_sessions"):
        assert result == {"total": 1.0, "after": 1.0}
