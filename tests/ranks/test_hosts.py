"""Several hosts on one machine: `launch/hosts.sh` over network namespaces that a bridge joins."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.horovod, pytest.mark.multihost, pytest.mark.slow, pytest.mark.source]

HOSTS_SH = pathlib.Path(__file__).parents[2] / "launch" / "hosts.sh"
NETWORK = "10.213.77"
# Runs a command on a host: `on NUMBER COMMAND...`. As on Debian, the host's own name is that of its loopback.
ON = """#!/bin/bash
here={folder} host=$1; shift
printf '127.0.0.1 localhost\\n127.0.1.1 host%s\\n' "$host" >"$here/hosts$host"
exec nsenter --net="/run/netns/{prefix}$host" unshare --mount --uts bash -c \\
    "mount --bind '$here/hosts$host' /etc/hosts && hostname host$host && exec \\"\\$@\\"" - "$@"
"""
# What horovodrun calls in place of ssh: options before and after the address of a host, then a command.
SSH = """#!/bin/bash
options() { while [[ ${arguments[0]} == -* ]]; do arguments=("${arguments[@]:2}"); done; }
arguments=("$@")
options; host=${arguments[0]##*.}; arguments=("${arguments[@]:1}"); options
echo "$host" >>"{folder}/reached"
exec "{folder}/on" "$host" bash -c "${arguments[*]}"
"""


def ip(*arguments, namespace=None):
    command = ["ip", *(("-n", namespace) if namespace else ()), *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True)


class Cluster:
    """`size` network namespaces, each with eth0 on one bridge, which is in a namespace of its own."""

    def __init__(self, size):
        self.prefix = f"hb{os.getpid()}-"
        self.addresses = [f"{NETWORK}.{i}" for i in range(1, size + 1)]
        self.switch = f"{self.prefix}0"
        self.namespaces = [self.switch, *(f"{self.prefix}{i}" for i in range(1, size + 1))]

    def __enter__(self):
        try:
            for namespace in self.namespaces:
                ip("netns", "add", namespace)
                ip("link", "set", "lo", "up", namespace=namespace)
            ip("link", "add", "br0", "type", "bridge", namespace=self.switch)
            ip("link", "set", "br0", "up", namespace=self.switch)
            for i, (namespace, address) in enumerate(zip(self.namespaces[1:], self.addresses, strict=True)):
                cable = ("type", "veth", "peer", "name", f"port{i}", "netns", self.switch)
                ip("link", "add", "eth0", *cable, namespace=namespace)
                ip("addr", "add", f"{address}/24", "dev", "eth0", namespace=namespace)
                ip("link", "set", "eth0", "up", namespace=namespace)
                ip("link", "set", f"port{i}", "master", "br0", namespace=self.switch)
                ip("link", "set", f"port{i}", "up", namespace=self.switch)
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"this machine lets nobody make network namespaces: {error.stderr.strip()}")
        except FileNotFoundError:
            pytest.skip("no program `ip`: install iproute2")
        return self

    def __exit__(self, *exception):
        for namespace in self.namespaces:
            pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True)
            subprocess.run(["kill", "-9", *pids.stdout.split()], capture_output=True)
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)


@pytest.fixture(scope="module")
def cluster():
    with Cluster(3) as found:
        yield found


@pytest.mark.parametrize("collect", ["symmetric", "root:dedicated=true", "sharded"])
def test_three_hosts_give_the_numbers_of_one_process(cluster, collect, tmp_path):
    pytest.importorskip("horovod.torch", reason="Horovod is not installed", exc_type=ImportError)
    for name, text in {"on": ON, "ssh": SSH}.items():
        program = tmp_path / name
        program.write_text(text.replace("{folder}", str(tmp_path)).replace("{prefix}", cluster.prefix))
        program.chmod(0o755)
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("".join(f"{address} slots=1\n" for address in cluster.addresses))
    env = {
        **os.environ,
        "PATH": f"{tmp_path}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    train = [sys.executable, "-m", "horovod_byz.cli", "train", "--data", "digits", "--workers", "6"]
    train += ["--byzantine", "1", "--attack", "omniscient", "--rule", "multi-krum", "--steps", "20"]
    train += ["--evaluate-every", "10", "--batch", "16", "--collect", collect]

    far = tmp_path / "far"
    start = [tmp_path / "on", "1", HOSTS_SH, "--nic", "eth0", hostfile, *train, "--out", far]
    done = subprocess.run(start, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set((tmp_path / "reached").read_text().split()) == {"2", "3"}
    here = tmp_path / "here"
    train[train.index(collect)] = "root" if "dedicated" in collect else collect
    alone = subprocess.run([*train, "--out", str(here)], capture_output=True, text=True, timeout=300)
    assert alone.returncode == 0, alone.stderr
    assert (far / "metrics.jsonl").read_bytes() == (here / "metrics.jsonl").read_bytes()
