"""Several hosts on one machine: network namespaces that a bridge joins, and programs to run on them."""

from __future__ import annotations

import os
import pathlib
import subprocess
from contextlib import suppress

import pytest

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
            probe = "mount --bind /etc/hosts /etc/hosts && hostname probe"
            inside = ["nsenter", f"--net=/run/netns/{self.namespaces[1]}", "unshare", "--mount", "--uts"]
            subprocess.run([*inside, "bash", "-c", probe], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"this machine lets nobody emulate hosts by namespaces: {error.stderr.strip()}")
        except FileNotFoundError as error:
            self.__exit__()
            pytest.skip(f"{error.filename} is not installed: apt install iproute2 util-linux")
        return self

    def __exit__(self, *exception):
        for namespace in self.namespaces:
            with suppress(FileNotFoundError):  # of the programs that were looked for above
                pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True)
                subprocess.run(["kill", "-9", *pids.stdout.split()], capture_output=True)
                subprocess.run(["ip", "netns", "del", namespace], capture_output=True)

    def prepare(self, folder, env):
        """Writes `on` and `ssh` into a folder; returns the environment with them first on PATH."""
        for name, text in {"on": ON, "ssh": SSH}.items():
            program = folder / name
            program.write_text(text.replace("{folder}", str(folder)).replace("{prefix}", self.prefix))
            program.chmod(0o755)
        return {**env, "PATH": f"{folder}{os.pathsep}{env['PATH']}"}

    def processes(self, host):
        """Ids and command lines of what runs on a host; the first is 1."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.namespaces[host]], capture_output=True, text=True
        )
        commands = {}
        for pid in listed.stdout.split():
            with suppress(OSError):  # it may have ended since
                commands[int(pid)] = pathlib.Path("/proc", pid, "cmdline").read_text().split("\0")
        return commands
