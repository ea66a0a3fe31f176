"""Processes that tests started and did not end, recognised by a variable in their environment.

Ranks have sessions and process groups of their own, and a launcher that was killed leaves them to init, so
neither groups nor parents lead to them. Their environment does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "HOROVOD_BYZ_TESTS"  # names the pytest process whose tests started this one
HELPERS = ("multiprocessing.resource_tracker", "forks.py --serve")  # end with the process that started them


def identity(pid: int) -> str:
    """A process's name, which no later process with its number has; empty when it has ended."""
    with suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if state not in "ZX":
            return f"{pid}-{fields[18]}"  # the time it started, in clock ticks
    return ""


def command(pid: int) -> str:
    """The command line of a process, shortened; empty when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return ""


def marked(name: str = MARK) -> dict[int, str]:
    """The value of an environment variable in every process that has it, this one left out."""
    values, start = {}, f"{name}=".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended since, or belongs to another user
            for entry in (folder / "environ").read_bytes().split(b"\0"):
                if entry.startswith(start):
                    values[int(folder.name)] = entry.removeprefix(start).decode()
    values.pop(os.getpid(), None)
    return values


def with_value(name: str, value: str) -> list[int]:
    """The processes in whose environment the variable has that value."""
    return [pid for pid, set_to in marked(name).items() if set_to == value]


def started() -> list[int]:
    """What the tests of this process started: marked, or forked (a fork shows its parent's environment)."""
    forked = {process.pid for process in psutil.Process().children(recursive=True)}
    everything = sorted(forked.union(with_value(MARK, os.environ[MARK])))
    return [pid for pid in everything if not any(helper in command(pid) for helper in HELPERS)]


def orphans() -> list[int]:
    """What tests of a pytest process started that has itself ended."""
    return [pid for pid, owner in marked().items() if identity(int(owner.partition("-")[0])) != owner]


def end(pids: Iterable[int], patience: float = 5.0) -> None:
    """Ends processes; those with PYTHONFAULTHANDLER first write the stacks of their threads."""
    pids = list(pids)
    for pid in pids:
        _send(pid, signal.SIGABRT)
        _send(pid, signal.SIGCONT)  # a stopped process takes signals once it goes on
    deadline = time.monotonic() + patience
    while any(map(identity, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in filter(identity, pids):
        _send(pid, signal.SIGKILL)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
