"""`hb.DistributedOptimizer` on real ranks: Horovod's own optimizer, and what that one cannot do."""

import pytest

from rank_jobs import jobs

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.checks("optimizers")]

job = jobs((2, "gloo"), (4, "gloo"), (2, "mpi"))
EQUAL = [
    "check_sgd_momentum",
    "check_adam_with_scheduler",
    "check_clipping",
    "check_backward_passes",
    "check_missing_gradients",
]


@pytest.mark.parametrize("check", EQUAL)
def test_mean_equals_horovods_optimizer(checked, job, check):
    for rank in checked(check):
        # Two gradients add up to the same bits in any order; of four, Horovod's ring rounds differently.
        assert rank["same"] if job[0] == 2 else rank["gap"] < 1e-6


def test_mean_equals_horovods_optimizer_in_every_mode(checked, job):
    for rank in checked("check_every_way_to_collect"):
        for collect in ("symmetric", "root", "sharded"):
            assert rank[collect]["same"] if job[0] == 2 else rank[collect]["gap"] < 1e-6


def test_state_dict_resumes_a_run_bit_for_bit(checked):
    for rank in checked("check_state_round_trip"):
        assert rank["same"]
        assert rank["loads_plain"]


def test_copies_train_on_like_the_original(checked):
    ranks = checked("check_copies")
    assert len({bits for rank in ranks for bits in rank.values()}) == 1


def test_mixed_dtypes(checked):
    for rank in checked("check_mixed_dtypes"):
        half, brain, single = rank["torch.float32"]["errors"]
        assert half < 2e-3
        assert brain < 2e-2
        assert single < 1e-6
        assert rank["torch.float32"]["row"] == "float32"
        assert rank["torch.float64"]["row"] == "float64"
        assert rank["torch.float64"]["errors"][1] < 1e-15


def test_half_precision_saturates(checked):
    for rank in checked("check_mixed_dtypes"):
        assert rank["torch.float32"]["largest"] == 65504
        assert rank["torch.float32"]["finite"]


def test_parameters_may_be_added_and_thawed(checked):
    ranks = checked("check_growing")
    assert [rank["sizes"] for rank in ranks] == [[99, 99, 739]] * len(ranks)
    assert {rank["step"] for rank in ranks} == {2}
    assert len({rank["bits"] for rank in ranks}) == 1


def test_horovods_compression_means_rows_of_float16(checked):
    assert checked("check_horovods_compression") == [True] * len(checked("check_refusals"))


def test_closure(checked):
    assert all(rank["same"] for rank in checked("check_closure"))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("hvd", "wrapped by hvd.DistributedOptimizer"),
        ("twice", "horovod_byz.DistributedOptimizer already"),
        ("parameters", "already belongs to a DistributedOptimizer"),
        ("adasum", "op=2 is not supported"),
        ("compression", "hb.HalfCompression() for 16 bits"),
        ("predivide", "leave it at 1.0"),
        ("rule", "Krum(f=3) needs n > 2f + 2 = 8 rows, got n = "),
        ("collect", "'symmetric', 'root', 'sharded'"),
    ],
)
def test_refusals_name_the_remedy(checked, case, words):
    for rank in checked("check_refusals"):
        assert rank[case]["kind"] == "ValueError"
        assert words in rank[case]["text"]


@pytest.mark.parametrize(
    ("case", "words"), [("passes", "backward_passes_per_step"), ("sealed", "zero_grad()")]
)
def test_surplus_backward_passes_are_errors(checked, case, words):
    for rank in checked("check_refusals"):
        assert rank[case]["kind"] == "RuntimeError"
        assert words in rank[case]["text"]


def test_batch_norm_statistics_are_aggregated(checked, job):
    ranks = checked("check_batch_norm")
    assert len({rank["bits"] for rank in ranks}) == 1
    for rank in ranks:
        assert rank["mean"] < 1.0
        assert rank["least"] >= 0.0
        assert rank["tracked"] == 3
        assert rank["ledger"] == 3
