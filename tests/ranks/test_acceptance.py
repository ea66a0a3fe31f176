"""From a fault to the screen, and to the first line of the report."""

import re

import pytest

from rank_jobs import jobs

pytestmark = [
    pytest.mark.horovod,
    pytest.mark.slow,
    pytest.mark.source,
    pytest.mark.checks("acceptance"),
]

job = jobs((3, "gloo"))  # `make chaos` has MPI


def test_a_mantissa_bit_flipped_once_is_named(checked):
    ranks = checked("check_a_bit_of_a_gradient")
    line, code = ranks[0]["report"]
    assert ranks[0]["steps"] == 250
    assert re.fullmatch(
        rf"worker 1 \(rank 1, host \S+\): lost 1 vote, at step {ranks[0]['at']}, transient; "
        r"suggest: watch \S+, drain it at the next",
        line,
    )
    assert code == 2
    assert all(rank["same"] for rank in ranks)


def test_a_bit_of_a_parameter_is_located_to_the_tensor_and_repaired(checked):
    ranks = checked("check_a_bit_of_a_parameter")
    line, code = ranks[0]["report"]
    assert re.fullmatch(
        r"worker 1 \(rank 1, host \S+\): lost \d votes? and held another state than most ranks, once "
        r"\(weight differs from 2 of 3 ranks\), .*, transient, repaired at step 10; "
        r"suggest: watch \S+, drain it at the next",
        line,
    )
    assert code == 2
    assert all(rank["same"] for rank in ranks)


def test_the_examples_culprit_is_on_the_screen_during_the_run_and_in_the_report_after_it(checked):
    ranks = checked("check_example")
    screen = ranks[0]["screen"]
    proof = re.search(
        r"proof at step 0: worker 1 \(rank 1, host \S+, local rank 1, \S+\): non-finite", screen
    )
    assert proof, screen
    assert proof.start() < screen.index("epoch 1  step 1/")
    line, code = ranks[0]["report"]
    assert re.match(r"worker 1 \(rank 1, host \S+\): sent NaN or infinite values in \d+ steps, ", line)
    assert "first at step 0, periodic (every 3 steps)" in line
    assert code == 2
