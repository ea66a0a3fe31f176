"""Horovod's own collectives beside ours: its stall check, which `make setup` fixes, names who is late."""

from __future__ import annotations

import sys
import textwrap

import pytest

from rank_jobs import HOROVODRUN, finish

pytestmark = [pytest.mark.horovod, pytest.mark.slow]

LATE = """
    import time, torch, horovod.torch as hvd
    hvd.init()
    hvd.barrier()  # both are there, however long they took to start
    if hvd.rank() == 1:
        time.sleep(5)
    assert hvd.allreduce(torch.ones(2), name="x").tolist() == [1, 1]
"""


def test_the_stall_check_names_the_late_rank_on_gloo(ranks):
    """Horovod 0.28.1: with Gloo a stalled rank is never reported, whatever HOROVOD_STALL_CHECK_TIME_SECONDS
    says. Cause: gloo_controller.cc reserves room for the ranks' numbers where it must resize."""
    command = [*HOROVODRUN, "--gloo", "-np", "2", sys.executable, "-c", textwrap.dedent(LATE)]
    env = {**ranks, "HOROVOD_STALL_CHECK_TIME_SECONDS": "2"}
    job = finish(command, env)
    assert job.returncode == 0, job.stdout
    assert "1: [allreduce.x]" in job.stdout
