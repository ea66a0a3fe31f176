"""Every rank gathers all rows and aggregates: no aggregator has to be trusted.

Traffic and memory O(n d) per rank. All ranks hold the same rows and run the same deterministic rule,
so they get the same result bit for bit without sending it.
"""

from __future__ import annotations

import numpy as np

from horovod_byz.collect import digest, relay
from horovod_byz.collect.protocol import Array, pieces
from horovod_byz.collect.session import Collected, Job, Session, Step


class SymmetricSession(Session):
    """The session of `Symmetric`."""

    mode = "symmetric"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._rows = self.compression.room(self.n, self.d, self.dtype)
        self._value = np.empty(self.d, self.dtype)

    def _digest(self, rows: Array) -> bytes:
        return digest.digest(rows) if self.transport.size > 1 else super()._digest(rows)

    def _aggregate(self, rows: Array, step: Step) -> Collected:
        with step.clock("collect"):
            self._allgather(rows)
            relayed = self._check(rows, [header.digest for header in step.headers])
        with step.clock("aggregate"):
            outcome = self._run(step, self._read(step, self._rows, self.d), self._value)
        rewritten = tuple(worker for rank in relayed.rewritten for worker in self.layout.workers(rank))
        seconds = step.clock.seconds
        return Collected(
            self._value, outcome, rewritten, seconds, step.number, complainers=relayed.complainers
        )

    def _check(self, rows: Array, given: list[bytes]) -> relay.Relayed:
        if self.transport.size == 1:  # nothing was relayed
            return relay.Relayed()
        slots = [self._rows[self._slice(rank)].reshape(-1) for rank in range(self.layout.size)]
        return relay.gather(self.transport, rows.reshape(-1), slots, given, self.threads)

    def _allgather(self, rows: Array) -> None:
        width = rows.shape[1]
        for begin, end in pieces(width, self.n, self.transport.most):
            if end - begin == width:
                self.transport.allgather(rows.reshape(-1), self._rows.reshape(-1), "allgather of rows")
                return
            part = np.empty((self.n, end - begin), rows.dtype)
            own = np.ascontiguousarray(rows[:, begin:end])
            self.transport.allgather(own.reshape(-1), part.reshape(-1), "allgather of rows")
            self._rows[:, begin:end] = part

    def _slice(self, rank: int) -> slice:
        workers = self.layout.workers(rank)
        return slice(workers.start, workers.stop)
