"""The side channel under MPI: small messages to every other rank, whose sender MPI guarantees."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from horovod_byz.collect import departure, notice
from horovod_byz.collect.mpi_guard import MpiGuard
from horovod_byz.collect.notice import Notice, State

# Time for which MPI is kept alive after a rank has left, so that all ranks receive the last announcements.
_FAREWELL_SECONDS = 2.0
_OVER = (State.LEFT, State.RAISED, State.ALIVE)


class Messages:
    """Announcements as messages; one object for all sessions of a process.

    When a rank leaves, Horovod ends MPI on all ranks, even while they compute. Before that, while MPI still
    works, each rank announces that it lives and receives the others' announcements: a later error can name
    the rank that left.
    """

    signs_of_life = False  # they would be too many messages; `_farewell` replaces them
    _TAG = 17

    def __init__(self, communicator: Any, guard: MpiGuard) -> None:
        self._comm, self._guard = communicator, guard
        self._latest: dict[int, Notice] = {}
        self._pending: list[Any] = []
        self._one_thread = (
            threading.RLock()
        )  # else two threads could probe one message, and one of them would block
        guard.farewell = self._farewell

    def publish(self, own: Notice) -> None:
        data = np.frombuffer(own.pack(), np.uint8)
        with suppress(ConnectionError), self._guard.calls(), self._one_thread:
            self._receive()  # else unread announcements would accumulate in MPI's buffers
            self._pending = [(request, kept) for request, kept in self._pending if not request.Test()]
            for rank in range(self._comm.size):
                if rank != self._comm.rank:
                    self._pending.append((self._comm.Isend(data, dest=rank, tag=self._TAG), data))

    def read(self, ranks: Iterable[int]) -> dict[int, Notice] | None:
        with suppress(ConnectionError), self._guard.calls(), self._one_thread:
            self._receive()
        return {rank: self._latest[rank] for rank in ranks if rank in self._latest}

    def _receive(self) -> None:
        from mpi4py import MPI

        status = MPI.Status()
        while self._comm.Iprobe(source=MPI.ANY_SOURCE, tag=self._TAG, status=status):
            data, rank = np.empty(status.Get_count(MPI.BYTE), np.uint8), status.Get_source()
            self._comm.Recv([data, MPI.BYTE], source=rank, tag=self._TAG)
            received = notice.unpack(data.tobytes(), rank, self._comm.size)
            if received is not None:
                self._latest[rank] = received

    def _farewell(self) -> None:
        speaker = departure.current()
        if speaker is None:
            return
        if departure.shutting_down():
            speaker.leave("it called hvd.shutdown(), or ended")
        else:
            speaker.survive()
        deadline = time.monotonic() + _FAREWELL_SECONDS
        others = set(range(self._comm.size)) - {self._comm.rank}
        while time.monotonic() < deadline:
            notices = self.read(others) or {}
            if all(rank in notices and notices[rank].state in _OVER for rank in others):
                return
            time.sleep(0.01)
