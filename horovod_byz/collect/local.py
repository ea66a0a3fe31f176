"""The one-rank form of `Transport`, which also works without Horovod installed."""

from __future__ import annotations

from collections.abc import Sequence

from horovod_byz.collect.channels import Silent
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.process import initialized, torch_initialized
from horovod_byz.collect.protocol import MOST_ELEMENTS, Array, Arrival, Arrived, Bytes
from horovod_byz.collect.watchdog import Watchdog


class Local:
    """One rank, no network."""

    def __init__(self) -> None:
        self.rank, self.size, self.most = 0, 1, MOST_ELEMENTS
        self.watchdog = Watchdog(0, 1, Silent(), 1.0)

    @property
    def is_current(self) -> bool:
        return not initialized() and not torch_initialized()

    def exchange(self, message: Bytes, phase: str) -> Bytes:
        return message.reshape(1, -1)

    def exchange_any(self, message: Bytes, phase: str, most: int) -> list[Bytes]:
        return [message]

    def allgather(self, own: Array, out: Array, phase: str) -> None:
        out[:] = own

    def alltoall(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> None:
        out[:] = send

    def separate(self) -> None: ...

    def start(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> Arrival:
        self.alltoall(send, splits, out, expected, phase)
        return Arrived()

    def gather(self, rows: Array, out: Array | None, layout: Layout) -> None:
        if out is not None:
            out[:] = rows

    def hand_out(self, value: Array) -> None: ...
