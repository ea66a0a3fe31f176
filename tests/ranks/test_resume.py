"""Horovod's recipe to resume: rank 0 loads a checkpoint, `hvd.broadcast_optimizer_state` gives it to all.

Version 0.1.0: it called our step(), a collective, on the ranks without a state only, and hung.
"""

import pytest

from rank_jobs import jobs

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("resume")]

job = jobs((2, "gloo"), (2, "mpi"))


@pytest.fixture
def cases(checked):
    """For each optimizer, what each rank had."""
    ranks = checked("check_broadcasts")
    assert len(ranks[0]) >= 15
    return {label: [rank[label] for rank in ranks] for label in ranks[0]}


def test_every_optimizer_that_horovods_wrapper_can_broadcast(cases):
    for label, ranks in cases.items():
        for kind in ("fresh", "resumed"):
            for rank in ranks:
                theirs, ours = rank[f"horovod-{kind}"], rank[f"ours-{kind}"]
                assert ours["error"] == theirs["error"], label
                assert ours["error"] == "" or label.startswith("LBFGS"), label


def test_no_parameter_moves_and_no_step_is_counted(cases):
    for label, ranks in cases.items():
        for rank in ranks:
            for kind in ("ours-fresh", "ours-resumed"):
                assert not rank[kind]["moved"], label
                assert rank[kind]["phantom"] == 0, label


def test_all_ranks_go_on_alike(cases):
    for label, ranks in cases.items():
        if not label.startswith("LBFGS"):
            for kind in ("ours-fresh", "ours-resumed"):
                assert {rank[kind]["lr"] for rank in ranks} == {0.05}, label
                assert len({(rank[kind]["state"], rank[kind]["end"]) for rank in ranks}) == 1, label


def test_a_resumed_run_is_as_with_horovods_wrapper(cases):
    """But where Horovod's moved the parameters of ranks without a state, as by weight decay."""
    alike = 0
    for label, ranks in cases.items():
        if not label.startswith("LBFGS"):
            theirs, ours = ranks[0]["horovod-resumed"], ranks[0]["ours-resumed"]
            assert ours["state"] == theirs["state"], label
            if not any(rank["horovod-resumed"]["moved"] for rank in ranks):
                assert ours["end"] == theirs["end"], label
                alike += 1
    assert alike >= 8


def test_a_fresh_run_is_as_without_a_broadcast(cases):
    for label, ranks in cases.items():
        if not label.startswith("LBFGS"):
            assert all(rank["ours-fresh"]["end"] == rank["never"]["end"] for rank in ranks), label
