"""Carries faults out in this process, at each step of an optimizer."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from horovod_byz.collect import Wire
from horovod_byz.faults.base import Fault
from horovod_byz.faults.ranks import LieAsAggregator, MemoryFault, ProcessFault, TamperAsRelay
from horovod_byz.faults.rows import RowFault

if TYPE_CHECKING:
    import torch

    from horovod_byz.collect import Session
    from horovod_byz.faults.faults import Faults

_LOG = logging.getLogger("horovod_byz.faults")

Array = npt.NDArray[Any]


class Rehearsal:
    """The faults of a run, in one process.

    Every process announces them when the rehearsal begins, and each fault that it carries out: with a
    WARNING the first time, then at the level DEBUG.

    Args:
        faults: the faults of all ranks.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults.faults
        self._earlier: dict[int, deque[Array]] = {}
        self._said: set[Fault] = set()
        self._step = 0
        self._relaying: Any = None
        _LOG.warning("REHEARSAL: faults are injected into this run on purpose: %r", faults)

    def begin(
        self, optimizer: torch.optim.Optimizer, session: Session, rows: Array, wire: Wire | None
    ) -> Wire | None:
        """What befalls this rank at the start of a step.

        Args:
            optimizer: whose parameters and state may be hit.
            session: of this step, whose number is its `next_step`.
            rows: (k, d), this rank's rows, which are written to.
            wire: the run's own simulated attack.

        Returns:
            The wire of the step: the run's own, and behind it this rank's lie as an aggregator.

        Raises:
            RuntimeError, SystemExit: if the rank's script is to fail or to end.
            ValueError: if a fault does not fit the rows, the parameters or the number of ranks.
        """
        self._step, rank = session.next_step, session.transport.rank
        self._check(session)
        for worker, row in zip(session.workers, rows, strict=True):
            self._hit(worker, row)
        for fault in self._now(MemoryFault):
            if fault.rank == rank:
                where = fault.flip(optimizer, self._step)
                self._say(fault, " (tensor {}, element {})".format(*where))
        for fault in self._now(ProcessFault):
            if fault.rank == rank:
                self._say(fault)
                fault.happen()
        self._relay(session)
        return self._lying(wire, rank)

    def _check(self, session: Session) -> None:
        """Refuses faults of workers and ranks that do not exist: a rehearsal without them shows nothing."""
        for fault in self.faults:
            who, number = (
                ("worker", session.n) if isinstance(fault, RowFault) else ("rank", session.layout.size)
            )
            if getattr(fault, who) >= number:
                raise ValueError(f"{fault}: this job has the {who}s 0..{number - 1}")

    def _now(self, kind: type[Any]) -> list[Any]:
        return [fault for fault in self.faults if isinstance(fault, kind) and fault.active(self._step)]

    def _hit(self, worker: int, row: Array) -> None:
        depth = max(
            (f.depth for f in self.faults if isinstance(f, RowFault) and f.worker == worker), default=0
        )
        earlier = self._earlier.setdefault(worker, deque(maxlen=depth))
        computed = row.copy() if depth else None
        for fault in self._now(RowFault):
            if fault.worker == worker:
                self._say(fault)
                fault.strike(row, self._step, earlier)
        if computed is not None:
            earlier.append(computed)

    def _lying(self, wire: Wire | None, rank: int) -> Wire | None:
        lies = [fault for fault in self._now(LieAsAggregator) if fault.rank == rank]
        if not lies:
            return wire

        def lie(block: Array, offset: int, d: int, step: int) -> None:
            if wire is not None:
                wire(block, offset, d, step)
            for fault in lies:
                self._say(fault)
                with np.errstate(over="ignore", invalid="ignore"):
                    block *= fault.factor

        return lie

    def _relay(self, session: Session) -> None:
        """Puts itself between the session and its transport, once a session."""
        if self._relaying is session or not any(isinstance(f, TamperAsRelay) for f in self.faults):
            return
        size = session.layout.size
        for fault in self.faults:
            if isinstance(fault, TamperAsRelay):
                fault.behind(size)  # raises where it relays nothing
        self._relaying, transport = session, session.transport
        deliver: Callable[[Array, Array, str], None] = transport.allgather

        def allgather(own: Array, out: Array, phase: str) -> None:
            deliver(own, out, phase)
            for fault in self._now(TamperAsRelay):
                if transport.rank in fault.behind(size):
                    self._say(fault)
                    begin, end = _piece(session, fault.victim, out.size, phase)
                    out[begin:end] += 1

        transport.allgather = allgather  # type: ignore[method-assign]

    def _say(self, fault: Fault, more: str = "") -> None:
        level = logging.DEBUG if fault in self._said else logging.WARNING
        self._said.add(fault)
        _LOG.log(level, "REHEARSAL: step %d: injected %s%s", self._step, fault, more)


def _piece(session: Session, rank: int, size: int, phase: str) -> tuple[int, int]:
    """Where the piece of a rank lies in what a relayed allgather delivers."""
    shards: Sequence[tuple[int, int]] | None = getattr(session, "shards", None)
    if shards is not None:
        return shards[rank]
    workers, width = session.layout.workers(rank), size // session.n
    return workers.start * width, workers.stop * width
