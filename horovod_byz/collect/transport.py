"""What a collector may ask of the ranks' network, and the one-rank form of it.

Every operation is direct (sender to receiver) but `allgather`, which Horovod relays through peers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from horovod_byz.collect.channels import Silent
from horovod_byz.collect.errors import HeaderMismatchError, names
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.watchdog import Watchdog
from horovod_byz.host import launchers

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

# Horovod counts the elements of an operation, all ranks together, in a C int.
MOST_ELEMENTS = 2**31 - 1
# Seconds; long enough for a rank that evaluates or writes a checkpoint while the others wait.
DEFAULT_TIMEOUT = 300.0
# The phase in which ranks compare what they are about to do; messages of one length in every session.
HEADER_EXCHANGE = "header exchange"
# Elements of the workspace through which larger matrices go: 256 MiB of float32.
WORKSPACE = 2**26


class Transport(Protocol):
    """The ranks of a job, and how they send to one another. Arrays are C-contiguous.

    Attributes:
        rank: this rank.
        size: number of ranks.
        watchdog: bounds every wait.
        most: most elements that one operation may move.
    """

    rank: int
    size: int
    watchdog: Watchdog
    most: int

    @property
    def is_current(self) -> bool:
        """Whether these are still the ranks of this process's job: Horovod may have been initialised anew."""

    def exchange(self, message: Bytes, phase: str) -> Bytes:
        """Sends (m,) bytes, m equal on all ranks, to every rank; returns (size, m)."""

    def exchange_any(self, message: Bytes, phase: str) -> list[Bytes]:
        """Sends bytes of any length to every rank; returns what each rank sent."""

    def allgather(self, own: Array, out: Array, phase: str) -> None:
        """Concatenates the ranks' 1-D arrays, of any lengths, into `out`. Relayed: check it."""

    def alltoall(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> None:
        """Sends consecutive pieces of `send` to the ranks; receives `expected[r]` elements of each.

        Raises:
            HeaderMismatchError: if a rank sent another number of elements.
        """

    def gather(self, rows: Array, out: Array | None, layout: Layout) -> None:
        """Brings every rank's (k, d) rows to rank 0, where `out` is (n, d); None elsewhere."""

    def hand_out(self, value: Array) -> None:
        """Sends rank 0's (d,) `value` to every rank, into its `value`."""


class Local:
    """One rank, no network: also what runs where Horovod is not installed."""

    def __init__(self) -> None:
        self.rank, self.size, self.most = 0, 1, MOST_ELEMENTS
        self.watchdog = Watchdog(0, 1, Silent(), 1.0)

    @property
    def is_current(self) -> bool:
        from horovod_byz.collect import over_horovod

        return not over_horovod.initialized()

    def exchange(self, message: Bytes, phase: str) -> Bytes:
        return message.reshape(1, -1)

    def exchange_any(self, message: Bytes, phase: str) -> list[Bytes]:
        return [message]

    def allgather(self, own: Array, out: Array, phase: str) -> None:
        out[:] = own

    def alltoall(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> None:
        out[:] = send

    def gather(self, rows: Array, out: Array | None, layout: Layout) -> None:
        if out is not None:
            out[:] = rows

    def hand_out(self, value: Array) -> None: ...


def time_limit(timeout: float | None) -> float:
    """Seconds that a wait between ranks may take: as given, else the environment's, else the default.

    Raises:
        ValueError: if it is no positive number.
    """
    given: Any = os.environ.get("HOROVOD_BYZ_TIMEOUT", DEFAULT_TIMEOUT) if timeout is None else timeout
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0:
        name = "HOROVOD_BYZ_TIMEOUT" if timeout is None else "timeout"
        raise ValueError(f"{name} must be a positive number of seconds, got {given!r}")
    return seconds


def connect(name: str, timeout: float) -> Transport:
    """The transport of this process: Horovod's once `hvd.init()` was called, else a single rank.

    Args:
        name: what is collected; every rank must use the same names in the same order.
        timeout: seconds that one wait between ranks may take.

    Raises:
        RuntimeError: if this process was launched as one of several ranks, by whichever launcher, and
            Horovod is not initialised in it or does not know the others.
    """
    from horovod_byz.collect import over_horovod

    launch = launchers.launched()
    if over_horovod.initialized():
        transport = over_horovod.connect(name, timeout)
        if transport.size == 1:
            launchers.refuse_alone(launch)
        return transport
    launchers.refuse_uninitialized(launch)
    return Local()


def ranks() -> tuple[int, int]:
    """This process's rank, and the number of ranks in its job; without communication.

    Raises:
        RuntimeError: as `connect`.
    """
    from horovod_byz.collect import over_horovod

    if over_horovod.initialized():
        return over_horovod.ranks()
    alone = connect("", 1.0)
    return alone.rank, alone.size


def check_received(expected: Sequence[int], received: Sequence[int], phase: str) -> None:
    """Names the ranks that sent another number of elements than they had announced.

    Raises:
        HeaderMismatchError: if there are any.
    """
    pairs = enumerate(zip(expected, received, strict=True))
    odd = {rank: (want, got) for rank, (want, got) in pairs if want != got}
    if odd:
        detail = ", ".join(f"rank {rank}: {got} elements, not {want}" for rank, (want, got) in odd.items())
        raise HeaderMismatchError(
            f"{names(list(odd))} sent another length in the {phase} ({detail})", list(odd)
        )


def pieces(width: int, rows: int, most: int) -> Iterator[tuple[int, int]]:
    """Splits columns so that one operation moves at most `most` elements of a (rows, width) matrix.

    One piece where everything fits; otherwise pieces of at most `WORKSPACE` elements.
    """
    if width * rows <= most:
        yield 0, width
        return
    step = max(1, min(WORKSPACE, most) // max(1, rows))
    for begin in range(0, width, step):
        yield begin, min(begin + step, width)
