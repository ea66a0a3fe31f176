"""Ranks that send NaN, rewrite what they relay, bring another shape, or do not come."""

import pytest

pytestmark = [pytest.mark.horovod, pytest.mark.slow]

JOBS = [(4, "gloo"), (4, "mpi")]


@pytest.fixture(params=JOBS, ids=lambda job: f"{job[0]}-{job[1]}", scope="module")
def job(request):
    return request.param


@pytest.fixture
def found(results, job):
    return lambda check: results(check, *job, "joining", "failures")


def test_training_goes_on_and_the_nan_worker_is_named(found):
    for rank in found("check_nan_worker"):
        for name, case in rank.items():
            assert case["finite"], name
            assert case["losses"][1] < case["losses"][0], name
            assert case["suspects"] == [1], name
            assert case["reason"] == "non-finite", name


def test_a_row_rewritten_by_a_relay_is_found_and_fetched_directly(found):
    """Horovod 0.28.1: rank 1 overwrites rank 0's segment of its output while the ring allgather forwards it;
    ranks further down the ring then receive a falsified row. Cause: allgather relays through peers."""
    ranks = found("check_tampering")
    assert all(rank["same"] for rank in ranks)
    assert all(rank["rewritten"] == ranks[0]["rewritten"] for rank in ranks)
    assert [0] in ranks[0]["rewritten"]


def test_a_wrong_aggregator_is_outvoted(found):
    for rank in found("check_wrong_aggregator"):
        for case in rank.values():
            assert case["same"]
            assert case["ranks"] == [1]
            assert case["ledger"] == {"1": 1}


@pytest.mark.parametrize("case", ["step", "rule", "length", "mode", "dtype", "model"])
def test_the_rank_that_would_send_something_else_is_named(found, case):
    for rank in found("check_headers"):
        assert rank[case]["kind"] == "HeaderMismatchError"
        assert rank[case]["ranks"] == [2]
        assert "rank 2" in rank[case]["text"]


def test_collection_goes_on_after_a_mismatch(found):
    assert len({rank["after"] for rank in found("check_headers")}) == 1


def test_a_late_rank_is_named_within_the_timeout(found):
    """Horovod 0.28.1 waits for ever: its stall check loops over nobody on Gloo; under MPI it hangs itself."""
    ranks = found("check_late")
    for rank in (0, 1, 3):
        assert ranks[rank]["kind"] == "LateRanksError"
        assert ranks[rank]["ranks"] == [2]
        assert "rank 2 did not arrive" in ranks[rank]["text"]
        assert ranks[rank]["elastic"]


def test_a_rank_may_leave_before_the_others_have_read_its_last_message(results, job):
    """Horovod 0.28.1 shut down on every rank while rank 0 still read: "MPI was finalised", or an abort.
    Cause: the first rank to leave ends MPI everywhere, whatever the calling threads still do."""
    assert len(set(results("check_slow_reader", *job, "leaving"))) == 1
