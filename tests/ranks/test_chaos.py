"""The short form of `make chaos`: some of its scenarios in one launch, judged likewise."""

import pytest

from chaos.run import run
from chaos.scenarios import SHORT
from rank_jobs import built, need_horovod, one_at_a_time

pytestmark = [pytest.mark.horovod, pytest.mark.slow]


def test_every_culprit_is_named_and_nobody_else(python):
    need_horovod()
    if not built("gloo"):
        pytest.skip("Horovod was built without gloo")
    with one_at_a_time():
        verdicts = run(SHORT, python())
    assert [(verdict.row["scenario"], verdict.wrong) for verdict in verdicts if verdict.wrong] == []
