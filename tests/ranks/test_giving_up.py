"""Ranks that gave up a wait and go on without a new start of Horovod.

Version 0.2.0: the operation that a rank no longer waited for stayed in Horovod's queue. The rank's next one
ended in Horovod's ValueError (duplicate name); or the others took its old bytes for new ones, and accused a
rank that had done nothing (EquivocationError, HeaderMismatchError).
"""

import pytest

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("giving_up")]

REMEDY = {"gloo": "call hvd.shutdown(), hvd.init() and optimizer.rebind()", "mpi": "start the job again"}


@pytest.fixture(params=["gloo", "mpi"], scope="module")
def backend(request):
    return request.param


@pytest.fixture
def answers(results, backend):
    return lambda check: results(check, 3, backend, "giving_up")


def test_the_late_rank_is_named_by_those_that_waited_and_by_itself(answers):
    for rank in answers("check_going_on_without_a_new_start"):
        assert rank["late"]["kind"] == "LateRanksError", rank["late"]
        assert rank["late"]["ranks"] == [2], rank["late"]


@pytest.mark.parametrize("what", ["again", "other optimizer", "binding", "join"])
def test_what_begins_after_it_is_refused_with_the_remedy(answers, backend, what):
    for rank in answers("check_going_on_without_a_new_start"):
        assert rank[what]["kind"] == "TransportError", rank[what]
        assert rank[what]["ranks"] == []
        assert "cannot begin: this rank gave up the" in rank[what]["text"]
        assert REMEDY[backend] in rank[what]["text"]


def test_training_goes_on_after_a_new_start(answers, backend):
    ranks = answers("check_going_on_after_a_new_start")
    assert all(rank == ranks[0] for rank in ranks)
    assert (ranks[0] is None) == (backend == "mpi")


def test_a_rank_that_was_interrupted_is_named_and_refused_likewise(answers, backend):
    ranks = answers("check_interrupt")
    if backend == "mpi":
        pytest.skip("after the checks above nothing begins any more under MPI")
    assert ranks[1]["wait"]["kind"] == "KeyboardInterrupt"
    assert (ranks[0]["wait"]["kind"], ranks[0]["wait"]["ranks"]) == ("LateRanksError", [1])
    assert "KeyboardInterrupt" in ranks[0]["wait"]["text"]
    for rank in ranks[:2]:
        assert rank["again"]["kind"] == "TransportError"
        assert REMEDY[backend] in rank["again"]["text"]
    assert len({rank["after"] for rank in ranks}) == 1
