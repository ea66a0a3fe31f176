"""Rows go to rank 0 only, which aggregates and sends the result back: a parameter server.

Traffic and memory O(n d) at the root, O(d) elsewhere. Only the root has to be trusted: rows travel directly,
and so do the digests of the result. A short result travels directly too. Of a long result the root sends each
rank a piece, and the ranks gather the pieces: the root then sends about 2 d values instead of (n - 1) d. A
piece that was rewritten on the way is sent again directly. A dedicated root holds no worker, as in the
papers' 1 + 45 machines.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation import engine
from horovod_byz.aggregation.tiles import shards
from horovod_byz.collect import digest, relay
from horovod_byz.collect.errors import EquivocationError
from horovod_byz.collect.footprint import gathers
from horovod_byz.collect.protocol import Array, Bytes
from horovod_byz.collect.session import Collected, Job, Session, Step


class RootSession(Session):
    """The session of `Root`."""

    mode = "root"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._is_root = self.transport.rank == 0
        self._rows = self.compression.room(self.n, self.d, self.dtype) if self._is_root else None
        self._value = np.empty(self.d, self.dtype)
        self._pieces = shards(self.d, self.transport.size)
        self._own = np.empty(0, self.dtype)  # this rank's piece, where the result is gathered

    def _aggregate(self, rows: Array, step: Step) -> Collected:
        with step.clock("collect"):
            self.transport.gather(rows, self._rows, self.layout)
        with step.clock("aggregate"):
            report = np.zeros(8 * (TABLE * self.n + 1) + digest.SIZE * len(self._pieces), np.uint8)
            if self._rows is not None:
                outcome = self._run(step, self._read(step, self._rows, self.d), self._value)
                report = _pack(outcome, digest.digests(self._cut(self._value), self.threads))
        with step.clock("return"):
            report = self.transport.exchange(report, "hand-out of the verdicts")[0]
            outcome, stated = _unpack(report, self.n, engine.is_symmetric(step.rule))
            complainers = self._return(stated)
        return Collected(self._value, outcome, (), step.clock.seconds, step.number, complainers=complainers)

    def _cut(self, value: Array) -> list[Array]:
        return [value[begin:end] for begin, end in self._pieces]

    def _return(self, stated: list[bytes]) -> tuple[int, ...]:
        """Brings the result to every rank; returns the ranks whose complaints nobody confirms.

        Raises:
            EquivocationError: if what the root sent this rank does not have the digests that it stated.
        """
        size = self.transport.size
        if not gathers(size, self.d, self.transport.most):
            self.transport.hand_out(self._value)
            self._refuse(self._differing(stated))
            return ()
        self._gather_pieces()
        differing = self._differing(stated)
        asked = self.transport.exchange(differing.view(np.uint8), "check of the digests").astype(bool)
        if not asked.any():
            return ()
        self._send_again(asked)
        self._refuse(differing & self._differing(stated))
        return relay.judge(asked).complainers

    def _gather_pieces(self) -> None:
        lengths = [end - begin for begin, end in self._pieces]
        own = lengths[self.transport.rank]
        if self._own.size != own:
            self._own = np.empty(own, self.dtype)
        send, splits = (self._value, lengths) if self._is_root else (self._value[:0], [0] * len(lengths))
        expected = [own, *[0] * (len(lengths) - 1)]
        self.transport.alltoall(send, splits, self._own, expected, "scatter of the result")
        # The root's own result must survive what the others relay; its rows are used up.
        out = self._value
        if self._rows is not None:
            used = self._rows.reshape(-1)
            out = used[: self.d] if used.dtype == self.dtype else np.empty(self.d, self.dtype)
        self.transport.allgather(self._own, out, "allgather of the result")

    def _differing(self, stated: list[bytes]) -> npt.NDArray[np.bool_]:
        """Which pieces do not have the stated digests; none at the root, which states them."""
        if self._is_root:
            return np.zeros(len(stated), bool)
        arrived = digest.digests(self._cut(self._value), self.threads)
        return np.array([a != b for a, b in zip(arrived, stated, strict=True)])

    def _send_again(self, asked: Array) -> None:
        """The root sends each rank, directly, the pieces that it asked for; asked[rank, piece]."""
        for piece, asking in zip(self._cut(self._value), asked.T, strict=True):
            if not asking.any():
                continue
            splits = [piece.size if self._is_root and ask else 0 for ask in asking]
            target = piece if asking[self.transport.rank] and not self._is_root else piece[:0]
            expected = [target.size, *[0] * (len(asking) - 1)]
            send = np.tile(piece, int(asking.sum())) if self._is_root else piece[:0]
            self.transport.alltoall(send, splits, target, expected, "direct exchange of the result")

    def _refuse(self, differing: npt.NDArray[np.bool_]) -> None:
        if differing.any():
            raise EquivocationError("the result that rank 0 sent does not have the digest it gave", [0])


TABLE = 5  # numbers per row in the root's report


def _pack(outcome: engine.Outcome, stated: list[bytes]) -> Bytes:
    """The outcome and the digests of the value's pieces, as bytes of a fixed length."""
    lost = np.isin(np.arange(len(outcome.weights)), outcome.outvoted)
    rows = (outcome.weights, outcome.nonfinite, outcome.distances, lost, outcome.norms)
    table = np.stack(rows).astype(np.float64)
    return np.frombuffer(table.tobytes() + np.float64(outcome.norm).tobytes() + b"".join(stated), np.uint8)


def _unpack(report: Bytes, n: int, symmetric: bool) -> tuple[engine.Outcome, list[bytes]]:
    data, end = report.tobytes(), 8 * TABLE * n
    weights, nonfinite, distances, lost, norms = np.frombuffer(data, np.float64, TABLE * n).reshape(-1, n)
    norm = float(np.frombuffer(data, np.float64, 1, end)[0])
    counts, outvoted = nonfinite.astype(np.int64), np.flatnonzero(lost)
    outcome = engine.Outcome(weights, counts, outvoted, distances, norms, norm, symmetric)
    stated = data[end + 8 :]
    return outcome, [stated[at : at + digest.SIZE] for at in range(0, len(stated), digest.SIZE)]
