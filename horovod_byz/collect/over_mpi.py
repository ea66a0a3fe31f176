"""mpi4py for operations that Horovod lacks: small direct exchanges, and the gather to the root.

Horovod's own thread and mpi4py may share MPI only when it was initialised with MPI_THREAD_MULTIPLE.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from horovod_byz.collect.channels import Silent
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.messages import Messages
from horovod_byz.collect.mpi_guard import MpiGuard
from horovod_byz.collect.over_horovod import Horovod
from horovod_byz.collect.protocol import SLACK, Array, Bytes, check_received, pieces

_EXCHANGE, _RESULT = 18, 19
# Message lengths are C ints, in elements.
_MOST_PER_MESSAGE = 2**30
# Requests whose memory MPI may still write to; referenced here so that it is never freed.
_UNFINISHED: list[Any] = []
_ENDED = "a rank left, or Horovod was shut down"


def usable() -> bool:
    """Whether Horovod runs on MPI, and mpi4py may call MPI from this thread."""
    import horovod.torch as hvd

    if not (hvd.mpi_enabled() and hvd.mpi_threads_supported()):
        return False
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):  # mpi4py raises RuntimeError if it finds no libmpi
        return False
    # A Horovod job on Gloo inside mpirun has other MPI ranks.
    return bool(MPI.COMM_WORLD.size == hvd.size() and MPI.COMM_WORLD.rank == hvd.rank())


@lru_cache(maxsize=1)
def _communicator() -> Any:
    from mpi4py import MPI

    # A separate communicator, so that no message is matched with one of Horovod's or of the user's.
    return MPI.COMM_WORLD.Dup()


@lru_cache(maxsize=1)
def _guard() -> MpiGuard:
    return MpiGuard()


@lru_cache(maxsize=1)
def _messages() -> Messages:
    return Messages(_communicator(), _guard())


class Mpi(Horovod):
    """Ranks connected by Horovod on MPI, with mpi4py beside it."""

    def __init__(self, name: str, timeout: float) -> None:
        self._comm, self._guard = _communicator(), _guard()
        channel = _messages() if self._comm.size > 1 else Silent()
        super().__init__(name, timeout, channel)

    def exchange(self, message: Bytes, phase: str) -> Bytes:
        # Not MPI_Ialltoall, which may relay small messages through peers (Bruck's algorithm).
        # MPI does not say that a message was shorter, and fails without a name if it was longer.
        room = np.empty((self.size, message.size + SLACK // self.size), np.uint8)
        room[self.rank, : message.size] = message
        others = [rank for rank in range(self.size) if rank != self.rank]
        with self._calls(phase):
            receive = [self._comm.Irecv(room[rank], source=rank, tag=_EXCHANGE) for rank in others]
            send = [self._comm.Isend(message, dest=rank, tag=_EXCHANGE) for rank in others]
            received = dict(zip(others, self._complete(receive + send, phase), strict=False))
        lengths = [received.get(rank, message.size) for rank in range(self.size)]
        check_received([message.size] * self.size, lengths, phase)
        return np.ascontiguousarray(room[:, : message.size])

    def gather(self, rows: Array, out: Array | None, layout: Layout) -> None:
        from mpi4py.util import dtlib

        element = dtlib.from_numpy_dtype(rows.dtype)
        d, phase = rows.shape[1], "gather to the root"
        for begin, end in pieces(d, 1, _MOST_PER_MESSAGE):
            with self._calls(phase):
                # One unit is the piece of one row; its extent is a whole row. Counts and displacements are
                # then in rows, and every piece is received in place.
                unit = element.Create_contiguous(end - begin)
                row = unit.Create_resized(0, d * rows.itemsize).Commit()
                receive = (
                    None if out is None else [_bytes_from(out, begin), layout.rows, _starts(layout), row]
                )
                send = [_bytes_from(rows, begin), rows.shape[0], row]
                self._complete([self._comm.Igatherv(send, receive, root=0)], phase)
                row.Free()
                unit.Free()

    def hand_out(self, value: Array) -> None:
        # Not MPI_Ibcast, whose tree would relay the result through peers.
        phase, others = "hand-out of the result", range(1, self.size) if self.rank == 0 else [0]
        start = self._comm.Isend if self.rank == 0 else self._comm.Irecv
        for begin, end in pieces(value.size, 1, _MOST_PER_MESSAGE):
            part = value[begin:end]
            with self._calls(phase):
                self._complete([start(part, rank, _RESULT) for rank in others], phase)

    @contextmanager
    def _calls(self, phase: str) -> Iterator[None]:
        from mpi4py import MPI

        with self._checked(phase), self._alive(phase):
            try:
                yield
            except (MPI.Exception, ConnectionError) as error:
                self._refuse_if_shut_down(phase)
                self.watchdog.broke(phase, error)

    @contextmanager
    def _failing(self, phase: str) -> Iterator[None]:
        with self._checked(phase), self._alive(phase), super()._failing(phase):
            yield

    @contextmanager
    def _alive(self, phase: str) -> Iterator[None]:
        """Keeps MPI alive, also while late ranks are named; after its end the last notices name them."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._guard.calls())
            except ConnectionError as error:
                self.watchdog.broke(phase, error)
            yield

    def _complete(self, requests: list[Any], phase: str) -> list[int]:
        """Waits for the requests; after Horovod has begun to end MPI, only for `patience` seconds.

        Returns:
            The length of what each request received, in bytes.
        """
        from mpi4py import MPI

        statuses, complete = [MPI.Status() for _ in requests], False

        def all_complete() -> bool:  # only the first call that says so fills in the statuses
            nonlocal complete
            complete = complete or bool(MPI.Request.Testall(requests, statuses))
            return complete

        def ready() -> bool:
            return all_complete() or self._guard.waiting() > self.watchdog.patience

        # MPI may still write to the requests' memory when the late rank arrives, and MPI cannot be restarted.
        with self._watched(lambda: False, requests):
            self.watchdog.wait(ready, phase)
        if not all_complete():
            _UNFINISHED.extend(requests)  # their memory is in use until MPI has ended
            raise ConnectionError(_ENDED)
        return [int(status.Get_count(MPI.BYTE)) for status in statuses]


def _bytes_from(rows: Array, begin: int) -> Array:
    """The memory of a C-contiguous matrix, from column `begin` of its first row to the end."""
    return rows.reshape(-1)[begin:]


def _starts(layout: Layout) -> list[int]:
    return [layout.workers(rank).start for rank in range(layout.size)]
