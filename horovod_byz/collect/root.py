"""Rows go to rank 0 only, which aggregates and sends the result back: a parameter server.

Traffic and memory O(n d) at the root, O(d) elsewhere. Rows and result travel directly, so that only
the root has to be trusted. A dedicated root holds no worker, as in the papers' 1 + 45 machines.
"""

from __future__ import annotations

import numpy as np

from horovod_byz.aggregation import engine
from horovod_byz.collect import digest
from horovod_byz.collect.errors import EquivocationError
from horovod_byz.collect.protocol import Array
from horovod_byz.collect.session import Collected, Job, Session, Step


class RootSession(Session):
    """The session of `Root`."""

    mode = "root"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._is_root = self.transport.rank == 0
        self._rows = self.compression.room(self.n, self.d, self.dtype) if self._is_root else None
        self._value = np.empty(self.d, self.dtype)

    def _aggregate(self, rows: Array, step: Step) -> Collected:
        with step.clock("collect"):
            self.transport.gather(rows, self._rows, self.layout)
        with step.clock("aggregate"):
            report = np.zeros(8 * (TABLE * self.n + 1) + digest.SIZE, np.uint8)
            if self._rows is not None:
                outcome = self._run(step, self._rows, self._value)
                report = _pack(outcome, digest.digest(self._value))
        with step.clock("return"):
            self.transport.hand_out(self._value)
            report = self.transport.exchange(report, "hand-out of the verdicts")[0]
            outcome, stated = _unpack(report, self.n, engine.is_symmetric(step.rule))
            if digest.digest(self._value) != stated:
                raise EquivocationError("the result that rank 0 sent does not have the digest it gave", [0])
        return Collected(self._value, outcome, (), step.clock.seconds, step.number)


TABLE = 5  # numbers per row in the root's report


def _pack(outcome: engine.Outcome, stated: bytes) -> Array:
    """The outcome and the digest of the value, as bytes of a fixed length."""
    lost = np.isin(np.arange(len(outcome.weights)), outcome.outvoted)
    rows = (outcome.weights, outcome.nonfinite, outcome.distances, lost, outcome.norms)
    table = np.stack(rows).astype(np.float64)
    return np.frombuffer(table.tobytes() + np.float64(outcome.norm).tobytes() + stated, np.uint8)


def _unpack(report: Array, n: int, symmetric: bool) -> tuple[engine.Outcome, bytes]:
    data, end = report.tobytes(), 8 * TABLE * n
    weights, nonfinite, distances, lost, norms = np.frombuffer(data, np.float64, TABLE * n).reshape(-1, n)
    norm = float(np.frombuffer(data, np.float64, 1, end)[0])
    counts, outvoted = nonfinite.astype(np.int64), np.flatnonzero(lost)
    outcome = engine.Outcome(weights, counts, outvoted, distances, norms, norm, symmetric)
    return outcome, data[end + 8 :]
