"""The side channel over torch.distributed: the store through which its process group was initialised.

Under torchrun the agent hosts it (TCPStore), so it outlives every rank. In a job without torchrun the process
of rank 0 hosts it, and ends it.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from horovod_byz.collect.channels import ENTRY_SIZE, SignedStore

# Seconds for one answer of the store.
_SECONDS = 2.0
# Seconds that the exit of the process waits for the last call; on a loaded machine an answer takes long.
_EXIT_SECONDS = 10.0

Value = TypeVar("Value")


class TorchStore(SignedStore):
    """Announcements in a `torch.distributed.Store`; one object for all sessions of a process.

    Args:
        rank: this rank.
        size: number of ranks.
        store: the default process group's store.
    """

    def __init__(self, rank: int, size: int, store: Any) -> None:
        super().__init__(rank, size)
        # The agent's store outlives the ranks: without the attempt, new ranks would read old ranks' entries.
        self._scope += f".{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self._bounded = Bounded()
        self._store = store
        try:
            # A connection of its own: a user's wait for a key would block this one.
            self._store = self._bounded(store.clone)
            self._bounded(lambda: self._store.set_timeout(timedelta(seconds=_SECONDS)))
        except ConnectionError:  # a kind of store without clones
            self._store = store

    def _put(self, entry: bytes) -> None:
        try:
            self._bounded(lambda: self._store.set(self._key(self._rank), entry))
        except ConnectionError:
            return  # the others then see this rank without a sign of life

    def _get(self, rank: int) -> bytes | None:
        def read() -> bytes | None:
            # `get` alone would wait for a key that is not there.
            present = self._store.check([self._key(rank)])
            return bytes(self._store.get(self._key(rank)))[: ENTRY_SIZE + 1] if present else None

        return self._bounded(read)

    def _key(self, rank: int) -> str:
        return f"{self._scope}/{rank}"


class Bounded:
    """Runs calls on a thread of its own and waits for a bounded time.

    A store has no time-out for an answer: if the process that hosts it is stopped, a call never returns.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._one_at_a_time = threading.Lock()
        self._unanswered: queue.SimpleQueue[Any] | None = None
        self._thread = threading.Thread(target=self._run, name="horovod_byz store", daemon=True)
        self._thread.start()
        atexit.register(self._end, os.getpid())

    def __call__(self, call: Callable[[], Value]) -> Value:
        """The call's result.

        Raises:
            ConnectionError: if the call fails, or is not answered in time, or an earlier one still is not.
        """
        answer: queue.SimpleQueue[tuple[Value | None, Exception | None]] = queue.SimpleQueue()
        with self._one_at_a_time:
            if self._unanswered is not None and self._unanswered.empty():
                raise ConnectionError("the store does not answer")
            self._calls.put((call, answer))
            try:
                value, error = answer.get(timeout=_SECONDS)
                self._unanswered = None
            except queue.Empty:
                self._unanswered = answer
                raise ConnectionError("the store does not answer") from None
        if error is not None:
            raise ConnectionError(f"the store does not answer: {error}") from error
        return value  # type: ignore[return-value]

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            call, answer = item
            try:
                answer.put((call(), None))
            except Exception as error:  # noqa: BLE001 - passed on to the caller
                answer.put((None, error))

    def _end(self, process: int) -> None:
        """At exit: a thread that returns from C++ while the interpreter ends would abort the process."""
        if os.getpid() == process:
            self._calls.put(None)
            self._thread.join(_EXIT_SECONDS)
