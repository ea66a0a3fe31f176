"""The examples for Horovod and for torchrun are one script: they differ in their first lines only."""

import pathlib

import pytest

pytestmark = pytest.mark.source
EXAMPLES = pathlib.Path(__file__).parents[1] / "launch" / "examples"
MARK = "# From here on mnist.py and mnist_torchrun.py are equal.\n"


def test_the_examples_differ_in_their_first_lines_only():
    heads, rests = zip(
        *((EXAMPLES / name).read_text().split(MARK) for name in ("mnist.py", "mnist_torchrun.py")),
        strict=True,
    )
    assert rests[0] == rests[1]
    assert "hvd" not in rests[0]
    assert "dist." not in rests[0]
    assert all(head.count("\n") < 50 for head in heads)
    assert "DistributedOptimizer(  # changed line 2 of 2" in rests[0]
    assert all("import horovod_byz as hb  # changed line 1 of 2" in head for head in heads)
    assert "horovod.torch" not in heads[1]
