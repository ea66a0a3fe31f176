"""The operations between ranks that collectors use.

Every operation is direct (sender to receiver) except `allgather`, which Horovod relays through peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from horovod_byz.collect.errors import HeaderMismatchError, names
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.watchdog import Watchdog

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

# Horovod counts the elements of an operation, all ranks together, in a C int.
MOST_ELEMENTS = 2**31 - 1
# The phase in which ranks compare headers; its messages have one length in every session.
HEADER_EXCHANGE = "header exchange"
# Bytes beyond the expected ones that a small exchange has room for: a rank that sends another length is then
# named, and one that sends more than this fails the exchange, but gets no memory.
SLACK = 2**16
# Elements of the workspace for matrices that need several operations: 256 MiB of float32.
WORKSPACE = 2**26


class Arrival(Protocol):
    """An exchange that goes on while this rank computes.

    Attributes:
        over: whether the ranks were started anew meanwhile, as in elastic training: it never completes.
    """

    @property
    def over(self) -> bool: ...

    def wait(self) -> None:
        """Returns when everything has arrived; at once if it was called before.

        Raises:
            HeaderMismatchError: if a rank sent another number of elements.
        """


class Arrived:
    """An exchange that is complete."""

    over = False

    def wait(self) -> None: ...


class Started:
    """An exchange that another thread carries out.

    Args:
        finish: waits for it.
        is_over: as `Arrival.over`.
    """

    def __init__(self, finish: Callable[[], None], is_over: Callable[[], bool]) -> None:
        self._finish: Callable[[], None] | None = finish
        self._is_over = is_over

    @property
    def over(self) -> bool:
        return self._finish is not None and self._is_over()

    def wait(self) -> None:
        finish, self._finish = self._finish, None
        if finish is not None:
            finish()


class Transport(Protocol):
    """The ranks of a job, and how they send to one another. Arrays are C-contiguous.

    Attributes:
        rank: this rank.
        size: number of ranks.
        watchdog: bounds every wait.
        most: largest number of elements in one operation.
    """

    rank: int
    size: int
    watchdog: Watchdog
    most: int

    @property
    def is_current(self) -> bool:
        """Whether these are still the ranks of this process's job: Horovod may have been restarted."""

    def exchange(self, message: Bytes, phase: str) -> Bytes:
        """Sends (m,) bytes, m equal on all ranks, to every rank; returns (size, m).

        Raises:
            HeaderMismatchError: if a rank sent another length; it names all such ranks.
            TransportError: if the ranks sent over `SLACK` bytes more than expected; they are not received.
        """

    def exchange_any(self, message: Bytes, phase: str, most: int) -> list[Bytes]:
        """Sends at most `most` bytes to every rank; returns the bytes of each rank.

        Args:
            message: (m,) bytes; ranks may differ in m.
            phase: name for errors.
            most: largest length that is expected of any rank. Memory is made for that; a rank may send a
                little more, so check what it sent.

        Raises:
            TransportError: if the ranks sent over `SLACK` bytes more, all together.
        """

    def allgather(self, own: Array, out: Array, phase: str) -> None:
        """Concatenates the ranks' 1-D arrays, of any lengths, into `out`. Relayed, so check it."""

    def alltoall(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> None:
        """Sends consecutive pieces of `send` to the ranks; receives `expected[r]` elements of each.

        Raises:
            HeaderMismatchError: if a rank sent another number of elements.
        """

    def separate(self) -> None:
        """Prepares for operations that begin while the script may run some of its own, in any order.

        All ranks call it together.

        Raises:
            LateRanksError: if a rank does not come in time.
        """

    def start(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> Arrival:
        """Begins an `alltoall`; until `wait` of what it returns, the caller must leave both arrays alone.

        Those that are under way at the same time have different phases. After `separate` it does not wait for
        other ranks.
        """

    def gather(self, rows: Array, out: Array | None, layout: Layout) -> None:
        """Brings every rank's (k, d) rows to rank 0, where `out` is (n, d); None elsewhere."""

    def hand_out(self, value: Array) -> None:
        """Sends rank 0's (d,) `value` to every rank, into its `value`."""


def too_much(phase: str) -> str:
    """The message of the error about ranks that send more than there is room for."""
    return (
        f"ranks sent more than they should in the {phase}, so that it does not fit: a rank lies, or runs "
        "another version; nothing was received, nor memory made for it"
    )


def check_received(expected: Sequence[int], received: Sequence[int], phase: str) -> None:
    """Checks that every rank sent the expected number of elements.

    Raises:
        HeaderMismatchError: if a rank sent another number; it names all such ranks.
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

    One piece if everything fits; otherwise pieces of at most `WORKSPACE` elements.
    """
    if width * rows <= most:
        yield 0, width
        return
    step = max(1, min(WORKSPACE, most) // max(1, rows))
    for begin in range(0, width, step):
        yield begin, min(begin + step, width)
