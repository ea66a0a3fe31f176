"""A rank's damaged state is located, and replaced by the majority's, on real ranks."""

import re

import pytest

from rank_jobs import jobs

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("states")]

job = jobs((3, "gloo"), (3, "mpi"))
TENSORS = {
    "parameter": "0.weight",
    "mantissa": "3.weight",
    "exp_avg": "0.weight, exp_avg of 0.weight",
    "step": "3.bias, step of 3.bias",
}


@pytest.mark.parametrize("collect", ["symmetric", "root", "sharded"])
@pytest.mark.parametrize("damage", TENSORS)
def test_the_final_model_is_bit_equal_to_the_clean_runs(checked, damage, collect):
    """Version 0.2.0: StateMismatchError ended the job, without the name of a tensor."""
    ranks = checked("check_repairs")
    clean = {rank[f"nothing-{case}"]["bits"] for rank in ranks for case in ("symmetric", "root", "sharded")}
    assert len(clean) == 1
    for rank in ranks:
        case = rank[f"{damage}-{collect}"]
        assert case["bits"] in clean
        (evidence,) = case["evidence"]
        assert evidence[:4] == [10, "proof", "state", 1]  # damaged before step 7, compared at step 10
        assert (
            evidence[4]
            == f"{TENSORS[damage]} differ{'' if ',' in TENSORS[damage] else 's'} from 2 of 3 ranks"
        )
        (action,) = case["actions"]
        assert action[:3] == [10, "repair", 1]


def test_nothing_is_entered_where_nothing_is_damaged(checked):
    for rank in checked("check_repairs"):
        assert rank["nothing-symmetric"]["evidence"] == rank["nothing-symmetric"]["actions"] == []


@pytest.mark.parametrize("case", ["median", "dedicated"])
def test_ranks_agree_after_a_repair_with_any_rule(checked, case):
    ranks = checked("check_repair_beside_other_batches")
    assert len({rank[case]["bits"] for rank in ranks}) == 1
    assert all([e[3] for e in rank[case]["evidence"]] == [1] for rank in ranks)


def test_the_start_by_vote(checked):
    for rank in checked("check_start_by_vote"):
        assert rank["odd"] == [0]
        assert rank["again"] == []
        assert rank["bits"] == rank["want"]
        assert rank["tie"]["kind"] == "StateMismatchError"
        assert rank["tie"]["ranks"] == []
        assert re.search(r"rank 0\b.* and rank 1\b.* and rank 2", rank["tie"]["text"])
