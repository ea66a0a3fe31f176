"""Horovod Elastic: a host dies in the middle, and `launch/examples/elastic.py` trains on with the others."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import sys

import pytest

from rank_jobs import Job

pytestmark = [pytest.mark.horovod, pytest.mark.multihost, pytest.mark.slow, pytest.mark.source]

EXAMPLE = pathlib.Path(__file__).parents[2] / "launch" / "examples" / "elastic.py"


def test_training_goes_on_when_a_host_dies(cluster, ranks, tmp_path):
    env = {**cluster.prepare(tmp_path, ranks), "HOROVOD_GLOO_TIMEOUT_SECONDS": "5"}
    discover = tmp_path / "discover.sh"
    discover.write_text("".join(["#!/bin/sh\n", *(f"echo {address}:1\n" for address in cluster.addresses)]))
    discover.chmod(0o755)
    command = [tmp_path / "on", "1", "horovodrun", "--gloo", "-np", "3", "--min-np", "2", "--max-np", "3"]
    command += ["--host-discovery-script", discover, "--network-interface", "eth0", "--start-timeout", "200"]
    command += [sys.executable, EXAMPLE, "--dataset", "digits", "--epochs", "8"]
    killed = False
    with Job(command, env) as job:
        for line in job.lines():
            if " step 20 " in line and not killed:
                killed = True
                for pid, words in cluster.processes(3).items():
                    if str(EXAMPLE) in words and words[0] == sys.executable:
                        os.kill(pid, signal.SIGKILL)
        output = job.printed
        assert job.process.returncode == 0, output
    assert "3 workers train from epoch 0, step 0" in output
    (step,) = re.findall(r"2 workers train from epoch \d+, step (\d+)", output)
    assert int(step) % 10 == 0  # the last commit
    (accuracy,) = re.findall(r"done with 2 workers .* accuracy ([\d.]+) %", output)
    assert float(accuracy) > 90
