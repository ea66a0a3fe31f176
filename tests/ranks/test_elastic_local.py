"""Horovod Elastic on this machine: workers are added, replaced and removed while others train."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
import torch

from horovod_byz.ledger import exclusions
from rank_jobs import HOROVODRUN

pytestmark = [pytest.mark.horovod, pytest.mark.slow, pytest.mark.source]

DISCOVER = pathlib.Path(__file__).parents[2] / "launch" / "discover_hosts.py"
WORKER = pathlib.Path(__file__).parents[1] / "programs" / "elastic_worker.py"
# Three names of this machine, which Horovod takes for three hosts. Ranks 0 and 1 are there throughout.
FIRST, SECOND, THIRD = "localhost:2", "127.0.0.1:1", f"{socket.gethostname()}:1"
LIMIT = 180


def start_from(path):
    """A checkpoint after five steps of training."""
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, path)


def run(python, folder, env, hosts, *arguments, every=None):
    """Runs an elastic job, whose workers `python` starts, through a series of hosts; returns what it printed.

    Each change comes when all ranks of the hosts before have said that they train. With `every`, those hosts
    are there throughout, and a policy's file excludes the others.
    """
    listed, stop, checkpoint = folder / "hosts", folder / "stop", folder / "checkpoint.pt"
    start_from(checkpoint)
    discover = folder / "discover.sh"
    discover.write_text(f"#!/bin/sh\ncat '{listed}'\n")
    discover.chmod(0o755)
    if every is not None:
        listed.write_text("".join(f"{name}\n" for name in every))
        discover = f"{sys.executable} {DISCOVER} {listed} {folder / 'excluded.json'}"

    def announce(names):
        if every is not None:
            (folder / "excluded.json").unlink(missing_ok=True)
            for name in set(every) - set(names):
                exclusions.exclude(str(folder / "excluded.json"), name.rpartition(":")[0], "a test")
            return
        fresh = folder / "hosts.new"
        fresh.write_text("".join(f"{name}\n" for name in names))
        fresh.replace(listed)  # at once, or the launcher might read half of it

    announce(hosts[0])
    command = [*HOROVODRUN, "--gloo", "-np", "2", "--min-np", "2", "--max-np", "3"]
    command += [
        "--host-discovery-script",
        str(discover),
        "--network-interface",
        "lo",
        "--start-timeout",
        "120",
    ]
    command += [*python, str(WORKER), str(checkpoint), str(stop), *arguments]
    printed, training, place = [], set(), 0
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as job:
        limit = threading.Timer(LIMIT, os.killpg, (job.pid, signal.SIGTERM))
        limit.start()
        assert job.stdout is not None
        for line in job.stdout:
            printed.append(line)
            match = re.search(r"rank (\d) of (\d) in process (\d+) from step", line)
            if match is None or int(match[2]) != ranks_of(hosts[place]):
                continue
            training.add(match[1])
            if len(training) == ranks_of(hosts[place]):
                training.clear()
                place += 1
                if place == len(hosts):
                    stop.touch()
                    place -= 1
                else:
                    announce(hosts[place])
        limit.cancel()
    output = "".join(printed)
    assert job.returncode == 0, output
    return output


def ranks_of(hosts):
    return sum(int(host.rpartition(":")[2]) for host in hosts)


def test_an_excluded_host_joins_once_it_is_readmitted_and_leaves_when_it_is_excluded(ranks, python, tmp_path):
    """It is excluded at the start, since Horovod 0.28.1 gives the first ranks to a host drawn from a set."""
    env = {**ranks, "HOROVOD_GLOO_TIMEOUT_SECONDS": "60"}
    both = [FIRST, SECOND]
    output = run(python(), tmp_path, env, [[FIRST], both, [FIRST]], every=both)
    starts = re.findall(r"rank (\d) of (\d) in process (\d+) from step (\d+)", output)
    assert [size for rank, size, *_ in starts if rank == "0"] == ["2", "3", "2"], output
    assert len({process for rank, _, process, _ in starts if rank == "0"}) == 1
    assert len(re.findall(r"done: rank (\d) of 2", output)) == 2, output


def test_workers_are_added_replaced_and_removed(ranks, python, tmp_path):
    """0.1.0: a worker that joined waited in its constructor for the others, which were elsewhere.

    The one that takes another's place is the hard case: the ranks that stay keep rank and size.
    """
    env = {**ranks, "HOROVOD_GLOO_TIMEOUT_SECONDS": "60"}
    output = run(python(), tmp_path, env, [[FIRST], [FIRST, SECOND], [FIRST, THIRD], [FIRST]])
    starts = re.findall(r"rank (\d) of (\d) in process (\d+) from step (\d+)", output)
    assert [size for rank, size, *_ in starts if rank == "0"] == ["2", "3", "3", "2"], output
    assert len({process for rank, _, process, _ in starts if rank == "0"}) == 1
    assert len({process for rank, _, process, _ in starts if rank == "2"}) == 2
    done = re.findall(r"done: rank (\d) of 2, (\d+) steps, Adam at \{(\d+)\}, (\w+)", output)
    assert sorted(rank for rank, *_ in done) == ["0", "1"], output
    (steps, state, _) = done[0][1:]
    assert done[0][1:] == done[1][1:]
    assert int(state) == 5 + int(steps)  # on from the checkpoint, no step lost and none too many
