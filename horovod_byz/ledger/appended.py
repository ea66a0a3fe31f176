"""A file of JSON lines: whole lines are appended, each at once."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from horovod_byz.ledger.log import LOGGER

__all__ = ["AppendedLines", "check_folder"]


class AppendedLines:
    """Appends records, each line in one write to the operating system, so that it outlives `kill -9`.

    A failed write is reported once, on the logger "horovod_byz", and training goes on: a full disk must not
    end a run. Later records are tried again. A copy, also a pickled one, opens the file anew.

    Args:
        path: the file; made when the first record is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        self._failed = False
        self._refused = 0  # writes at which another process held the file

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends records, as one piece."""
        lines = [_line(record) for record in records]
        try:
            self._append(("\n".join(lines) + "\n").encode())
        except OSError as error:
            if not self._failed:
                self._failed = True
                LOGGER.error(
                    "cannot write %s (%s): training goes on, and the ledger in memory is complete; later "
                    "records are tried again, so free the disk or correct the folder's permissions",
                    self.path,
                    error,
                )

    def _append(self, data: bytes) -> None:
        if self._fd is None:
            self._fd = _open(self.path)
            weakref.finalize(self, os.close, self._fd)
        self._claim(self._fd)
        before = os.fstat(self._fd).st_size
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, before)  # no half line stays before the next
            raise

    def _claim(self, fd: int) -> None:
        """Warns once if another process writes to the file, such as a second job of the same folder.

        A process that has just been replaced, as in elastic training, may hold it a moment longer, so the
        first refusal says nothing. The lock goes with the process, also after `kill -9`.
        """
        if self._refused > 1:
            return
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._refused = 0
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # a file system without locks: nothing is known of other processes
            self._refused += 1
            if self._refused > 1:
                LOGGER.error(
                    "another process writes to %s as well: the report would take both runs for one; give "
                    "each run a folder of its own",
                    self.path,
                )

    def release(self) -> None:
        """Lets another process write, as where another rank is rank 0 from now on."""
        if self._fd is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_fd": None, "_failed": False, "_refused": 0}


def check_folder(folder: Path) -> None:
    """Makes the folder of a ledger, and checks that a file can be written into it.

    Raises:
        OSError: if not; the message says why and what to do.
    """
    probe = folder / f".writable.{os.uname().nodename}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\n" * 4096)
    except OSError as error:
        raise type(error)(
            error.errno,
            f"the ledger cannot be written ({error.strerror}): name a folder that every rank can write to, "
            "on a disk with room, in ledger=...",
            str(folder),
        ) from error
    finally:
        with suppress(OSError):
            probe.unlink()


def _line(record: Mapping[str, Any]) -> str:
    try:
        return _encoded(record)
    except (TypeError, ValueError):  # a number that is not finite, or another mapping or sequence
        return _encoded(plain(record))


def _encoded(record: Any) -> str:
    return json.dumps(record, allow_nan=False, separators=(",", ":"))


def plain(value: Any) -> Any:
    """The value as JSON holds it: numbers that are not finite are null."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _open(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    # What a killed run left of its last line would join the first of this one.
    size = os.fstat(fd).st_size
    tail = os.pread(fd, min(size, 2**16), max(0, size - 2**16))
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(fd, size - len(tail) + tail.rfind(b"\n") + 1)
    return fd
