"""`launch/hosts.sh` on several hosts, emulated on this machine."""

from __future__ import annotations

import pathlib
import sys

import pytest

from rank_jobs import finish

pytestmark = [pytest.mark.horovod, pytest.mark.multihost, pytest.mark.slow, pytest.mark.source]

HOSTS_SH = pathlib.Path(__file__).parents[2] / "launch" / "hosts.sh"


@pytest.mark.parametrize("collect", ["symmetric", "root:dedicated=true", "sharded"])
def test_three_hosts_give_the_numbers_of_one_process(cluster, ranks, collect, tmp_path):
    env = cluster.prepare(tmp_path, ranks)
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("".join(f"{address} slots=1\n" for address in cluster.addresses))
    train = [sys.executable, "-m", "horovod_byz.cli", "train", "--data", "digits", "--workers", "6"]
    train += ["--byzantine", "1", "--attack", "omniscient", "--rule", "multi-krum", "--steps", "20"]
    train += ["--evaluate-every", "10", "--batch", "16", "--collect", collect]

    far = tmp_path / "far"
    start = [tmp_path / "on", "1", HOSTS_SH, "--nic", "eth0", hostfile, *train, "--out", far]
    done = finish(start, env)
    assert done.returncode == 0, done.stdout
    assert set((tmp_path / "reached").read_text().split()) == {"2", "3"}
    here = tmp_path / "here"
    train[train.index(collect)] = "root" if "dedicated" in collect else collect
    alone = finish([*train, "--out", str(here)], ranks)
    assert alone.returncode == 0, alone.stdout
    assert (far / "metrics.jsonl").read_bytes() == (here / "metrics.jsonl").read_bytes()
