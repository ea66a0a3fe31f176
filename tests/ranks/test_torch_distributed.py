"""Ranks that torchrun started, without Horovod: the same bits, and the same errors in the same time."""

import os
import pathlib
import re
import signal

import pytest

from rank_jobs import TORCHRUN, Job, environment, jobs, one_at_a_time

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.horovod,  # it starts ranks
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed"),
]

# On four ranks the modes take minutes: `make test-torchrun`.
job = jobs((2, "torch"), pytest.param((4, "torch"), marks=pytest.mark.many))
PROGRAM = pathlib.Path(__file__).parents[1] / "programs" / "torchrun_fault.py"
checks = pytest.mark.checks


@checks("modes")
@pytest.mark.parametrize("rule", ["Median", "MultiKrum", "Detox", "Bulyan"])
def test_the_same_parameters_as_one_process_in_every_mode(checked, job, alone, rule):
    """50 steps on two ranks, but for Bulyan, and 6 on four, which `make test-torchrun` starts."""
    modes = alone("modes")
    (value,) = [each for each in modes.RULES if type(each).__name__ == rule]
    long = job[0] == 2 and isinstance(value, modes.LONGER)
    want = modes.alone(value, modes.LONG if long else modes.SHORT)
    for rank in checked("check_modes"):
        assert set(rank[repr(value)]["bits"].values()) == {want}


@checks("modes")
def test_optimizers_end_with_the_bits_of_one_process_in_every_mode(checked, alone, job):
    """After 50 steps on two ranks, 6 on four; also where gradients leave during the backward pass."""
    want = alone("modes").in_one_process(job[0])
    for rank in checked("check_optimizers_in_every_mode"):
        assert {rule: set(bits.values()) for rule, bits in rank["bits"].items()} == {
            rule: {bits} for rule, bits in want.items()
        }
        # Four buckets, and none at a first step, which compares the ranks' states.
        assert rank["early"] == 4 * rank["steps"]


@checks("modes")
def test_a_dedicated_root_gives_the_same_parameters(checked):
    (want,) = {rank["Median()"]["bits"]["Sharded(replicas=1)"] for rank in checked("check_modes")}
    assert set(checked("check_dedicated_root")) == {want}


@checks("modes")
def test_operations_are_split_at_the_limit(checked):
    assert len({bits for rank in checked("check_pieces") for pair in rank.values() for bits in pair}) == 1


@checks("modes")
def test_packed_rows_as_one_process(checked, alone):
    modes = alone("modes")
    for rank in checked("check_packed_rows"):
        assert {name: set(bits) for name, bits in rank.items()} == {n: {modes.packed_alone(n)} for n in rank}


@pytest.mark.many
@checks("dedicated")
def test_the_trainer_trains_the_model_of_one_process(results, alone):
    here = alone("dedicated")
    want = {name: dict.fromkeys(here.COLLECTORS, here.model(name, "root")) for name in here.EXPERIMENTS}
    for rank in results("check_dedicated", 4, "torch", "dedicated"):
        assert rank["models"] == want


@checks("failures")
class TestFailures:
    def test_training_goes_on_and_the_nan_worker_is_named(self, results):
        for rank in results("check_nan_worker", 4, "torch", "failures"):
            for name, case in rank.items():
                assert case["finite"], name
                assert case["suspects"] == [1], name

    def test_a_wrong_aggregator_is_outvoted(self, results):
        for rank in results("check_wrong_aggregator", 4, "torch", "failures"):
            assert all(case["same"] and case["ranks"] == [1] for case in rank.values())

    def test_the_rank_that_would_send_something_else_is_named(self, results):
        for rank in results("check_headers", 4, "torch", "failures"):
            for case in ("step", "rule", "length", "mode", "dtype", "model"):
                assert rank[case]["kind"] == "HeaderMismatchError", case
                assert rank[case]["ranks"] == [2], case

    def test_a_rank_that_skips_a_step_is_named_at_the_next(self, results):
        for rank in results("check_skipped_step", 4, "torch", "failures"):
            assert rank["kind"] == "HeaderMismatchError"
            assert rank["ranks"] == [2]

    @checks("late")
    @pytest.mark.parametrize("check", ["check_late"])
    def test_a_late_rank_is_named_within_the_timeout(self, results, check):
        ranks = results(check, 4, "torch", "late")
        for rank in (0, 1, 3):
            assert ranks[rank]["kind"] == "LateRanksError"
            assert ranks[rank]["ranks"] == [2]
            assert re.search(r"rank 2 \(.*\) did not arrive", ranks[rank]["text"])


@checks("torchrun")
@pytest.mark.parametrize("job", [(4, "torch")], indirect=True, ids=["4-torch"])
class TestTorch:
    def test_a_new_process_group_is_noticed(self, checked):
        ranks = checked("check_initialised_anew")
        assert all(rank["current"] == [False, False] and not rank["bound"] for rank in ranks)
        assert len({rank["bits"] for rank in ranks}) == 1

    def test_the_error_after_destroy_process_group_says_so(self, checked):
        for rank in checked("check_destroyed"):
            assert rank["kind"] == "TransportError"
            assert rank["ranks"] == []
            assert "the process group was destroyed: call dist.init_process_group()" in rank["text"]

    def test_all_ranks_hold_the_same_model_in_every_mode(self, checked):
        assert len({bits for rank in checked("check_optimizers") for bits in rank.values()}) == 1

    @pytest.mark.parametrize("check", ["check_pieces_of_any_length_and_kind", "check_messages_of_any_length"])
    def test_messages_arrive_whole(self, checked, check):
        assert all(wrong == [] for wrong in checked(check))

    def test_pieces_of_unequal_length_are_gathered(self, checked):
        assert all(rank == {"tiled": True, "in turns": True} for rank in checked("check_allgather"))

    def test_a_rank_at_another_operation_is_named_and_all_go_on(self, checked, job):
        """torch matches operations by order: without the preamble one's bytes arrive in the other."""
        odd = job[0] - 1
        for rank in checked("check_another_operation"):
            assert rank["error"]["kind"] == "HeaderMismatchError"
            assert rank["error"]["ranks"] == [odd]
            assert f"rank {odd}: second part (other)" in rank["error"]["text"]
            assert rank["after"] == list(range(job[0]))

    def test_a_rank_that_sends_too_much_is_named(self, checked):
        """torch 2.13: "terminate called after throwing an instance of 'gloo::EnforceNotMet'"."""
        for rank in checked("check_another_length")[1:]:
            assert rank["error"]["kind"] == "HeaderMismatchError"
            assert rank["error"]["ranks"] == [0]
            assert "gave up" in rank["again"]["text"]
            assert "dist.init_process_group()" in rank["again"]["text"]

    def test_a_gloo_group_is_made_beside_another_backend(self, checked, job):
        for rank in checked("check_group_beside_the_default"):
            assert rank == {"value": (job[0] - 1) / 2, "beside": True, "shared": True}

    def test_a_model_inside_ddp_is_refused(self, checked):
        for rank in checked("check_ddp_is_refused"):
            assert rank["inside"]["kind"] == "ValueError"
            assert "train the bare model (ddp.module)" in rank["inside"]["text"]
            assert rank["beside"]["kind"] == "none"

    def test_the_sampler_asks_torch_for_the_rank(self, checked, job):
        ranks = checked("check_sampler")
        assert all(rank["alike"] == ranks[0]["alike"] for rank in ranks)
        drawn = [index for rank in ranks for index in rank["different"]]
        assert sorted(drawn) == sorted(set(drawn))
        assert len(drawn) == 40


def test_a_killed_rank_and_a_stopped_one_are_named_under_torchrun():
    """torchrun ends the others 0.1 s after a rank died: the named error must come out nevertheless. Rank 2
    computes when rank 1 is killed, and is not accused with it."""
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "3", "--max-restarts", "1"]
    # Else torch 2.13's restarted ranks may read the last attempt's addresses from the shared store.
    env = {**os.environ, **environment(), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    named = {0: set(), 1: set()}
    stopped = None
    with one_at_a_time(), Job([*command, str(PROGRAM)], env, limit=240) as running:
        for line in running.lines():
            if match := re.search(r"attempt 1: pid (\d+)", line):
                stopped = int(match[1])
            if match := re.search(r"attempt (\d): rank (\d) names \((.*?),?\): (.*)", line):
                attempt, rank, late, text = match.groups()
                named[int(attempt)].add((int(rank), late))
                assert "did not arrive, without a sign of life" in text
            if {rank for rank, _ in named[1]} == {0, 2} and stopped:
                os.kill(stopped, signal.SIGKILL)  # torchrun waits 30 s before it does
                stopped = None
        printed = running.printed
    assert (0, "1") in named[0], printed[-5000:]
    assert {late for _, late in named[0]} == {"1"}
    assert named[1] == {(0, "1"), (2, "1")}, printed[-5000:]
