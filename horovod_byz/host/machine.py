"""The resources of this host: installed versions, cores and memory."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def first_line(command: Sequence[str]) -> str:
    """The first line that a command prints, or an empty string when it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter((done.stdout or done.stderr).splitlines()), "").strip()


def cores() -> int:
    """Processor cores that this process may use: its affinity, and its control group's quota."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def memory_mib() -> int:
    """Free memory in MiB: the machine's, or the rest of the control group's limit if that is less."""
    reported = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    available = int(reported[1]) << 10 if reported else 0
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        available = min(available, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no control group, or no limit ("max")
        pass
    return available >> 20
