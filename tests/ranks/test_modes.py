"""Symmetric, root and sharded collection are interchangeable: the same bits on every rank."""

import pytest

from rank_jobs import jobs

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("modes")]

job = jobs((2, "gloo"), (4, "gloo"), (4, "mpi"))
BITWISE = [
    "Median()",
    "TrimmedMean(f=2)",
    "MeanAroundMedian(f=2)",
    "Phocas(f=2)",
    "Krum(f=2)",
    "MultiKrum(f=2",
    "Bulyan(f=2)",
    "CAF(f=2)",
    "Pipeline(NNM(f=2)",
    "Pipeline(Bucketing(s=2",
    "Detox(",
]


def _of(rank, rule):
    (name,) = [name for name in rank if name.startswith(rule)]
    return rank[name]


@pytest.mark.parametrize("rule", BITWISE)
def test_the_same_parameters_bit_for_bit_after_many_steps(checked, rule):
    """50 for some rules on two ranks with Gloo, 6 otherwise."""
    ranks = [_of(rank, rule) for rank in checked("check_modes")]
    assert len({bits for rank in ranks for bits in rank["bits"].values()}) == 1
    assert all(rank["finite"] for rank in ranks)


@pytest.mark.parametrize("rule", ["Median", "MultiKrum", "Detox"])
def test_the_same_parameters_as_one_process(checked, alone, job, rule):
    """So the bits over Gloo, MPI and torch.distributed are equal: see test_torch_distributed."""
    modes = alone("modes")
    (value,) = [each for each in modes.RULES if type(each).__name__ == rule]
    want = modes.alone(value, modes.LONG if job == (2, "gloo") else modes.SHORT)
    for rank in checked("check_modes"):
        assert set(rank[repr(value)]["bits"].values()) == {want}


@pytest.mark.parametrize("name", ["bfloat16", "float16", "sign"])
def test_packed_rows_give_the_same_parameters_as_one_process(checked, alone, name):
    want = alone("modes").packed_alone(name)
    for rank in checked("check_packed_rows"):
        assert set(rank[name]) == {want}


def test_geometric_median_is_the_same_within_1e_6(checked):
    ranks = [_of(rank, "GeometricMedian") for rank in checked("check_modes")]
    assert all(gap < 1e-6 for rank in ranks for gap in rank["gaps"].values())
    for collector in ranks[0]["bits"]:  # and within a mode, all ranks hold the same bits
        assert len({rank["bits"][collector] for rank in ranks}) == 1


def test_a_dedicated_root_gives_the_same_parameters(checked):
    dedicated = set(checked("check_dedicated_root"))
    assert dedicated == {
        bits for rank in checked("check_modes") for bits in _of(rank, "Median()")["bits"].values()
    }


def test_optimizers_end_with_the_bits_of_one_process_in_every_mode(checked, alone, job):
    """After 50 steps on two ranks, 6 on four; also where gradients leave during the backward pass."""
    want = alone("modes").in_one_process(job[0])
    for rank in checked("check_optimizers_in_every_mode"):
        assert {rule: set(bits.values()) for rule, bits in rank["bits"].items()} == {
            rule: {bits} for rule, bits in want.items()
        }
        # Four buckets, and none at a first step, which compares the ranks' states.
        assert rank["early"] == 4 * rank["steps"]


def test_operations_are_split_at_horovods_limit(checked):
    ranks = checked("check_pieces")
    assert len({bits for rank in ranks for pair in rank.values() for bits in pair}) == 1


def test_the_ledger_names_the_byzantine_workers_on_every_rank(checked):
    ranks = checked("check_accounts")
    assert all(rank == ranks[0] for rank in ranks)
    # Being far is no accusation, and five steps are too few for the test of suspicion.
    assert ranks[0]["suspects"] == [7]
    by_worker = {account["worker"]: account for account in ranks[0]["report"]["workers"]}
    assert by_worker[7]["reasons"] == {"non-finite": 5}
    assert by_worker[1]["reasons"] == {"far": 5}
    assert by_worker[1]["mean_weight"] == 0.0
    assert "non-finite 5" in ranks[0]["table"]
