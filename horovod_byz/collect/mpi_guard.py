"""Keeps MPI alive while this rank still reads messages.

When one rank leaves, Horovod's thread ends MPI on every rank, even if the calling thread has not received its
last messages yet; any MPI call after that aborts the process. MPI_Finalize deletes the
attributes of MPI_COMM_SELF before all else, while every call still works (MPI 4.0, section 11.2.4), so
a delete callback there is where to wait.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class MpiGuard:
    """Counts the MPI calls in progress; MPI ends only when there are none.

    Attributes:
        farewell: called, in Horovod's thread, when MPI is about to end; MPI still works then.
    """

    def __init__(self) -> None:
        from mpi4py import MPI

        self._idle = threading.Condition()
        self._users = 0
        self._since: float | None = None
        self._ended = False
        self.farewell: Callable[[], None] | None = None
        MPI.COMM_SELF.Set_attr(MPI.Comm.Create_keyval(delete_fn=self._last_call), self)

    @contextmanager
    def calls(self) -> Iterator[None]:
        """A context inside which MPI may be called; nests.

        Raises:
            ConnectionError: if MPI has ended.
        """
        with self._idle:
            if self._ended:
                raise ConnectionError("MPI was finalised")
            self._users += 1
        try:
            yield
        finally:
            with self._idle:
                self._users -= 1
                self._idle.notify_all()

    def waiting(self) -> float:
        """Seconds for which the calls in progress have delayed the end of MPI; 0 if nothing ends it."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def _last_call(self, *_: Any) -> None:
        self._since = time.monotonic()
        try:
            if self.farewell is not None:
                self.farewell()
        except Exception:  # noqa: BLE001 - an exception here would abort MPI on all ranks; printed instead
            traceback.print_exc(file=sys.stderr)
        with self._idle:
            self._idle.wait_for(lambda: not self._users)
            self._ended = True
