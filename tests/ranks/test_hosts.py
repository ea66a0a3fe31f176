"""`launch/hosts.sh` on several hosts, emulated on this machine."""

from __future__ import annotations

import os
import pathlib
import sys

import pytest

from rank_jobs import environment, finish, need_horovod, one_at_a_time, trained_here

pytestmark = [pytest.mark.horovod, pytest.mark.multihost, pytest.mark.slow, pytest.mark.source]

HOSTS_SH = pathlib.Path(__file__).parents[2] / "launch" / "hosts.sh"
EACH = pathlib.Path(__file__).parents[1] / "programs" / "train_each.py"
WAYS = ["symmetric", "root:dedicated=true", "sharded"]
RUN = ["--data", "digits", "--workers", "6", "--byzantine", "1", "--attack", "omniscient", "--batch", "16"]
RUN += ["--rule", "multi-krum", "--steps", "20", "--evaluate-every", "10"]


@pytest.fixture(scope="module")
def trained(cluster, tmp_path_factory):
    """The folder of the runs that three hosts made, numbered as `WAYS`."""
    need_horovod()
    folder = tmp_path_factory.mktemp("hosts")
    env = cluster.prepare(folder, {**os.environ, **environment()})
    hostfile = folder / "hostfile"
    hostfile.write_text("".join(f"{address} slots=1\n" for address in cluster.addresses))
    start = [folder / "on", "1", HOSTS_SH, "--nic", "eth0", hostfile]
    with one_at_a_time():
        done = finish([*start, sys.executable, EACH, folder, *WAYS, "--", *RUN], env)
    assert done.returncode == 0, done.stdout
    assert set((folder / "reached").read_text().split()) == {"2", "3"}
    return folder


@pytest.mark.parametrize("collect", WAYS)
def test_three_hosts_give_the_numbers_of_one_process(trained, collect, tmp_path):
    alone = "root" if "dedicated" in collect else collect
    trained_here(*RUN, "--collect", alone, "--out", tmp_path)
    far = trained / str(WAYS.index(collect))
    assert (far / "metrics.jsonl").read_bytes() == (tmp_path / "metrics.jsonl").read_bytes()
