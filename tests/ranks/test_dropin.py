"""`hb.DistributedOptimizer` in scripts where ranks see different things; see checks/dropin.py."""

import pytest

from rank_jobs import jobs

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("dropin")]

# With three ranks a majority exists, so that the odd rank can be named; sums of three show an order.
job = jobs((3, "gloo"), (2, "mpi"))


def test_ranks_step_together_whatever_a_scaler_saw(checked):
    """0.1.0: a rank that saw an overflow left its step out, and the others waited until time ran out."""
    ranks = checked("check_loss_scaling")
    for case in ranks[0]:
        cases = [rank[case] for rank in ranks]
        assert len({c["bits"] for c in cases}) == 1, case
        late = case.endswith("overflows")
        assert all(c["moved"] == [True, True, True, True, not late, True] for c in cases), case
        # Each rank's scale follows what that rank saw, or, after synchronize(), what all saw.
        own = [1 + (rank == 1) if not case.startswith("horovods") else 1 for rank in range(len(ranks))]
        halved = own if late else [0] * len(ranks)
        assert [c["scale"] for c in cases] == [1024.0 / 2**times for times in halved], case


def test_all_recipes_take_the_same_steps(checked):
    for rank in checked("check_loss_scaling"):
        assert rank["plain-plain-clean"]["bits"] == rank["horovods-plain-clean"]["bits"]


def test_a_loss_scale_is_a_ranks_own_affair(checked):
    assert all(rank["same"] for rank in checked("check_a_rank_with_another_scale"))


@pytest.mark.parametrize("case", ["wolfe", "tolerance", "backtracking"])
def test_optimizers_that_decide_by_the_loss_decide_alike(checked, case):
    """0.1.0: each rank decided by its own loss; the models drifted apart, or one rank waited for another."""
    cases = [rank[case] for rank in checked("check_optimizers_that_decide_by_the_loss")]
    assert len({c["bits"] for c in cases}) == 1
    assert len({tuple(c["losses"]) for c in cases}) == 1
    assert cases[0]["calls"] > 4
    assert cases[0]["losses"][-1] < cases[0]["losses"][0]


@pytest.mark.parametrize("name", ["SparseAdam", "Adagrad", "SGD"])
def test_a_batch_that_leaves_a_sparse_table_out(checked, name):
    """0.1.0: that rank got a dense gradient, which SparseAdam refuses."""
    cases = [rank[name] for rank in checked("check_sparse_batches")]
    assert len({c["bits"] for c in cases}) == 1
    assert cases[0]["finite"]


@pytest.mark.parametrize("collect", ["symmetric", "root", "sharded"])
@pytest.mark.parametrize("change", ["weight", "bias", "momentum", "lr"])
def test_a_rank_whose_state_differs_is_named(checked, job, change, collect):
    """0.1.0: the ranks' parameters drifted apart to the end of the run, without an error."""
    for rank in checked("check_states_that_differ"):
        result = rank[f"{change}-{collect}"]
        assert result["kind"] == "StateMismatchError", result
        assert result["steps"] == 3  # changed at step 1, compared at step 3
        assert result["ranks"] == ([job[0] - 1] if job[0] > 2 else [])  # of two ranks either may be right
        assert f"rank {job[0] - 1}" in result["text"]


@pytest.mark.parametrize("collect", ["symmetric", "root", "sharded"])
def test_equal_states_are_left_alone(checked, collect):
    for rank in checked("check_states_that_differ"):
        assert rank[f"nothing-{collect}"]["kind"] == "none"
        assert rank[f"nothing-{collect}"]["steps"] == 8


def test_a_forgotten_broadcast(checked):
    for rank in checked("check_models_that_were_not_broadcast"):
        assert rank["kind"] == "StateMismatchError"
        assert "broadcast" in rank["text"]
        assert rank["unchecked"] == "none"


def test_another_default_device(checked):
    """0.1.0: a crash."""
    ranks = checked("check_another_default_device")
    assert all(text == "" for rank in ranks for text in rank["kinds"].values())
    assert len({rank["bits"] for rank in ranks}) == 1


def test_a_model_converted_after_wrapping(checked):
    """0.1.0: float64 gradients went through a row of float32."""
    ranks = checked("check_a_model_converted_on_all_ranks")
    assert {(rank["row"], rank["step"]) for rank in ranks} == {("float64", 3)}
    assert len({rank["bits"] for rank in ranks}) == 1


@pytest.mark.source
@pytest.mark.checks("recipes")
def test_the_recipes_of_the_documentation(checked, job):
    ranks = checked("check_recipes")
    # The first recipe of docs/horovod.md twice; that of docs/redundancy.md needs three ranks.
    assert len(ranks[0]) == (12 if job[0] >= 3 else 11)
    for name, result in ranks[0].items():
        assert result["moved"], name
        assert len({rank[name]["bits"] for rank in ranks}) == 1, name
    assert ranks[0]["resumed"]["bits"] != ranks[0]["Resume from a checkpoint 0"]["bits"]
