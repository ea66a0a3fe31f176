"""Horovod's collectives as a `Transport`; only this module and `over_mpi.py` call them.

It uses Horovod's private entry points with an output argument (unchanged from 0.21 to 0.28.1): the
public ones allocate a new tensor for each call, whose page faults cost three times the transfer.
It uses no object collectives (they unpickle peers' bytes), no process sets and no reductions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch

from horovod_byz.collect import departure, given_up, process, termination
from horovod_byz.collect.by_alltoall import ByAlltoall, tensor_over
from horovod_byz.collect.channels import KEY_SIZE, Channel, Rendezvous, Silent, own_key
from horovod_byz.collect.errors import LateRanksError, TransportError
from horovod_byz.collect.given_up import Operation
from horovod_byz.collect.protocol import (
    HEADER_EXCHANGE,
    MOST_ELEMENTS,
    SLACK,
    Array,
    Arrival,
    Bytes,
    Started,
    check_received,
    too_much,
)
from horovod_byz.collect.watchdog import Watchdog

# Explicit, since a script may have set another default device.
_CPU = torch.device("cpu")
_AGAIN = "call hvd.init() and optimizer.rebind()"
# What torch says where Horovod would resize memory of ours to receive more than fits.
_NO_ROOM = "resize storage that is not resizable"
_ONCE = "a process can start MPI only once: under MPI, start the job again"


def side_channel() -> Channel:
    """The side channel: the launcher's store on Gloo; none under MPI, where `over_mpi` has one."""
    import horovod.torch as hvd

    return Rendezvous.find(hvd.rank(), hvd.size()) if hvd.gloo_enabled() else Silent()


Error = TypeVar("Error", bound=TransportError)


@lru_cache
def recoverable(kind: type[Error]) -> type[Error]:
    """A subclass that is a HorovodInternalError too, so that `hvd.elastic.run` recovers from it."""
    from horovod.common.exceptions import HorovodInternalError

    return type(kind.__name__, (kind, HorovodInternalError), {"__module__": kind.__module__})


class Horovod(ByAlltoall):
    """Ranks connected by Horovod alone (Gloo, or MPI without mpi4py)."""

    def __init__(self, name: str, timeout: float, channel: Channel) -> None:
        import horovod.torch as hvd
        from horovod.torch import mpi_ops

        self.rank, self.size, self.most = int(hvd.rank()), int(hvd.size()), MOST_ELEMENTS
        self.watchdog = Watchdog(self.rank, self.size, channel, timeout, recoverable(LateRanksError), name)
        self._hvd, self._ops, self._world, self._name = hvd, mpi_ops, hvd.global_process_set, name
        self._channel = channel
        if self.size > 1:
            departure.watch()
            termination.watch()
            if channel.signs_of_life:
                departure.give_signs_of_life()

    @property
    def is_current(self) -> bool:
        # True after hvd.shutdown() as well, so that the next operation raises the error that explains it.
        return not process.initialized() or process.ranks() == (self.rank, self.size)

    def exchange(self, message: Bytes, phase: str) -> Bytes:
        if phase != HEADER_EXCHANGE or not isinstance(self._channel, Rendezvous):
            return self._exchange(message, phase)
        # Headers carry the keys with which the ranks sign announcements; every header, since an elastic job
        # may add a rank at any step.
        key = np.frombuffer(own_key(), np.uint8)
        received = self._exchange(np.concatenate([message, key]), phase)
        self._channel.meet({rank: row[-KEY_SIZE:].tobytes() for rank, row in enumerate(received)})
        return np.ascontiguousarray(received[:, :-KEY_SIZE])

    def _exchange(self, message: Bytes, phase: str) -> Bytes:
        out, received = self._receive(message, phase, message.size)
        check_received([message.size] * self.size, received, phase)
        return out[: self.size * message.size].reshape(self.size, message.size)

    def exchange_any(self, message: Bytes, phase: str, most: int) -> list[Bytes]:
        out, received = self._receive(message, phase, most)
        ends = np.cumsum(received)
        return [out[end - length : end] for end, length in zip(ends, received, strict=True)]

    def _receive(self, message: Bytes, phase: str, most: int) -> tuple[Bytes, list[int]]:
        """Every rank's bytes, one after another, and their lengths; in memory that cannot grow."""
        out = np.empty(self.size * most + SLACK, np.uint8)
        send, splits = tensor_over(np.tile(message, self.size)), [message.size] * self.size
        handle, received = self._alltoall(send, splits, tensor_over(out), phase)
        self._finish(handle, phase)
        return out, received.tolist()

    def allgather(self, own: Array, out: Array, phase: str) -> None:
        tensor, gathered = tensor_over(own), tensor_over(out)
        gather = self._ops._allgather_async
        self._finish(self._begin(lambda name: gather(tensor, gathered, name, self._world), phase), phase)

    def alltoall(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> None:
        self.start(send, splits, out, expected, phase).wait()

    def separate(self) -> None: ...  # Horovod matches operations by their names

    def start(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> Arrival:
        handle, received = self._alltoall(tensor_over(send), splits, tensor_over(out), phase)

        def finish() -> None:
            self._finish(handle, phase)
            check_received(expected, received.tolist(), phase)

        return Started(finish, lambda: self._is_over(handle))

    def _alltoall(
        self, send: torch.Tensor, splits: Sequence[int], out: torch.Tensor, phase: str
    ) -> tuple[int, torch.Tensor]:
        """Begins an alltoall; returns its handle, and where the elements received of each rank will be."""
        counts = torch.tensor(list(splits), dtype=torch.int32, device=_CPU)
        received = torch.empty(self.size, dtype=torch.int32, device=_CPU)
        begin = self._ops._alltoall_async
        handle = self._begin(lambda name: begin(send, counts, out, received, name, self._world), phase)
        return handle, received

    def _begin(self, start: Callable[[str], int], phase: str) -> int:
        with self._failing(phase):
            return start(self._operation(phase))

    def _finish(self, handle: int, phase: str) -> None:
        with self._failing(phase):
            with self._watched(lambda: self._is_over(handle), self._ops._handle_map.get(handle)):
                self.watchdog.wait(lambda: self._ops.poll(handle), phase)
            self._ops.synchronize(handle)

    @contextmanager
    def _failing(self, phase: str) -> Iterator[None]:
        """Context of an operation's beginning and of its end, which names the late ranks if it breaks off."""
        from horovod.common.exceptions import HorovodInternalError

        with self._checked(phase):
            try:
                yield
            except LateRanksError:  # may be a HorovodInternalError too; see `recoverable`
                raise
            except HorovodInternalError as error:
                self._refuse_if_shut_down(phase)
                if _NO_ROOM in str(error):
                    raise recoverable(TransportError)(too_much(phase)) from error
                self.watchdog.broke(phase, error)

    @contextmanager
    def _checked(self, phase: str) -> Iterator[None]:
        """Context of an operation: Horovod must run as when bound; under MPI a failure bounds the exit."""
        self._refuse_if_shut_down(phase)
        self._refuse_after_giving_up(phase)
        try:
            yield
        except LateRanksError as error:
            if self._hvd.mpi_enabled():
                departure.bound_exit(error)
            raise

    def _refuse_if_shut_down(self, phase: str) -> None:
        """Raises TransportError if this process shut Horovod down or restarted it: no rank is late then."""
        if not self._hvd.is_initialized():
            once = f" ({_ONCE})" if self._hvd.mpi_enabled() else ""
            raise self.watchdog.ended(phase, f"Horovod was shut down: {_AGAIN}{once}")
        now = self._hvd.rank(), self._hvd.size()
        if now != (self.rank, self.size):
            was = f"this was rank {self.rank} of {self.size} and is rank {now[0]} of {now[1]}"
            raise self.watchdog.ended(phase, f"Horovod was started anew ({was}): call optimizer.rebind()")

    def _refuse_after_giving_up(self, phase: str) -> None:
        """Raises TransportError if this rank gave up an operation since Horovod started."""
        earlier = given_up.first()
        if earlier is not None:
            why = earlier.refusal(mpi=self._hvd.mpi_enabled())
            raise self.watchdog.refused(phase, why, earlier.notice, recoverable(TransportError))

    @contextmanager
    def _watched(self, is_over: Callable[[], bool], memory: Any) -> Iterator[None]:
        """Context of a wait: records the operation as given up if an exception ends it, Ctrl-C included."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C; `announced` handles the others
                self.watchdog.failed(error)
            given_up.keep(Operation(self.watchdog.said, is_over, memory))
            raise

    def _is_over(self, handle: int) -> bool:
        """Whether Horovod was restarted since it returned the handle.

        `hvd.init()` forgets all handles, even if Horovod runs already; a shutdown ends their operations.
        """
        try:
            return handle not in self._ops._handle_map and bool(self._ops.poll(handle))
        except ValueError:  # the handle was cleared
            return True

    def _operation(self, phase: str) -> str:
        """The name by which Horovod matches the ranks' operations.

        All sessions exchange headers under one name, so that a rank that joined, or is in another session
        than the others, still takes part and is reported.
        """
        scope = "" if phase == HEADER_EXCHANGE else f"{self._name}."
        return f"horovod_byz.{scope}{phase.replace(' ', '_')}"
