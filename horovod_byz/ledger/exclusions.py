"""The file of excluded hosts, which `launch/discover_hosts.py` leaves out when Elastic asks for hosts.

    {"format": 1, "hosts": {"node7": {"since": 1790000000.0, "until": 1790003600.0, "times": 1,
                                      "reason": "worker 7: lost a vote"}}}

Times are seconds since 1970, UTC; "until" is null for hosts that stay out. An operator may edit the file, or
delete it: a host that is not in it is available.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from horovod_byz.host.place import Place

__all__ = ["FORMAT", "exclude", "exclude_host_of", "read"]

FORMAT = 1

_log = logging.getLogger("horovod_byz.policy")
_UNKNOWN = ("", "?", "unknown")  # what a place says where a host has no name


def read(path: str) -> dict[str, dict[str, Any]]:
    """The hosts of the file by name; none if there is no file.

    Raises:
        ValueError: if it is no such file; the message names it.
    """
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): correct or delete it") from error
    hosts = content.get("hosts") if isinstance(content, dict) else None
    if not isinstance(hosts, dict) or not all(isinstance(entry, dict) for entry in hosts.values()):
        raise ValueError(f"{path} is no file of excluded hosts: correct or delete it")
    return hosts


def exclude_host_of(
    rank: int | None, places: Sequence[Place], path: str, reason: str, seconds: float | None = None
) -> None:
    """Adds a rank's host to the file, unless no other host of the job would remain; logs what it did.

    Args:
        rank: the rank; None if it is not known.
        places: where the ranks run.
        path, reason, seconds: as for `exclude`.
    """
    hosts = {place.rank: place.host for place in places}
    host = "" if rank is None else hosts.get(rank, "")
    if host in _UNKNOWN:
        _log.warning("%s: its host is not known, so %s stays as it is", reason, path)
        return
    try:
        if not set(hosts.values()) - {host, *read(path)}:
            _log.warning("%s: no other host than %s would remain, so it stays", reason, host)
            return
        entry = exclude(path, host, reason, seconds)
    except (OSError, ValueError) as error:  # the file is help for the launcher; the job goes on without it
        _log.warning("%s: host %s could not be excluded: %s", reason, host, error)
        return
    until = "" if seconds is None else f" for {entry['until'] - entry['since']:.0f} s"
    _log.warning("%s: host %s is excluded by %s%s", reason, host, path, until)


def exclude(path: str, host: str, reason: str, seconds: float | None = None) -> dict[str, Any]:
    """Adds a host to the file, at once or not at all.

    Args:
        path: the file.
        host: its name, as the hosts file has it.
        reason: why, in words.
        seconds: until it may return, doubled for each earlier time; None for never.

    Returns:
        The entry.

    Raises:
        OSError, ValueError: if the file cannot be written, or read.
    """
    with _alone(path):
        hosts, now = read(path), time.time()
        times = int(hosts.get(host, {}).get("times", 0)) + 1
        until = None if seconds is None else now + seconds * 2 ** min(times - 1, 30)
        hosts[host] = {"since": now, "until": until, "times": times, "reason": reason}
        _replace(path, json.dumps({"format": FORMAT, "hosts": hosts}, indent=1) + "\n")
        return hosts[host]


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Two jobs may share a file, so reading and writing it must not overlap."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(path: str, text: str) -> None:
    handle, fresh = tempfile.mkstemp(dir=Path(path).parent, prefix=f"{Path(path).name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).chmod(0o644)  # mkstemp gives 0600, and the launcher may be another user
        Path(fresh).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(fresh).unlink()
        raise
