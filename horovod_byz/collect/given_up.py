"""Operations that this rank gave up; after one of them it may begin no other.

Such an operation stays in Horovod's queue under its name, or its messages are still in transit, and the other
ranks may still complete it. A later operation would collide with it: Horovod refuses the name, or the others
read this rank's old bytes as new ones and accuse it falsely. It does not help if the old operation ends in
the meantime: the others then go on with a step that this rank gave up. So this rank refuses every operation
until Horovod is restarted, since a shutdown ends all operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from horovod_byz.collect.notice import Notice

_REMEDY = "call hvd.shutdown(), hvd.init() and optimizer.rebind() on all ranks, as hvd.elastic.run does"
_REMEDY_MPI = "a process can start MPI only once, so under MPI start the job again"


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation that this rank no longer waits for.

    Attributes:
        notice: this rank's announcement when it gave up.
        is_over: whether Horovod, or torch.distributed, was restarted since.
        memory: objects whose memory the operation may still read or write.
    """

    notice: Notice
    is_over: Callable[[], bool]
    memory: Any

    def refusal(self, mpi: bool = False, remedy: str = "") -> str:
        """The message for later operations: the reason, and the remedy (default: Horovod's)."""
        remedy = remedy or (_REMEDY_MPI if mpi else _REMEDY)
        return (
            f"this rank gave up {self.notice.place}, which the others may still complete, so it is not in "
            f"step with them: {remedy}"
        )


# Over all sessions of this process, since they share Horovod and the name of the header exchange.
_operations: list[Operation] = []


def keep(operation: Operation) -> None:
    """Remembers an operation, and its memory, until Horovod is restarted."""
    _operations.append(operation)


def first() -> Operation | None:
    """The first operation that this rank gave up since Horovod started, or None."""
    _operations[:] = [operation for operation in _operations if not operation.is_over()]
    return _operations[0] if _operations else None
