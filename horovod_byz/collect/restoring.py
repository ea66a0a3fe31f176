"""Replaces the parts of a rank's state that differ by the majority's, bit for bit.

A part comes directly from a rank of the majority, and is taken over only if it has the majority's digest;
else another rank of the majority sends. Nothing is unpickled, and no length is taken from a peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from horovod_byz.collect.digest import SIZE
from horovod_byz.collect.errors import StateMismatchError, names
from horovod_byz.collect.locating import Located
from horovod_byz.collect.protocol import Bytes, Transport

# Bytes per operation.
_PIECE = 2**24


class Part(Protocol):
    """A tensor or number of a state.

    Attributes:
        size: its bytes in transit.
        itemsize: bytes of one number.
    """

    size: int
    itemsize: int

    def read(self) -> Bytes:
        """Its value as `size` bytes."""

    def accept(self, data: Bytes, digest: bytes) -> bool:
        """Takes over a value if it has this digest; returns whether it did."""


@dataclass(frozen=True)
class Replaced:
    """What a rank says about the first part of its state that was replaced.

    Attributes:
        values: the values that differed.
        first: coordinate of the first of them.
    """

    values: int
    first: int


def replace(
    transport: Transport,
    parts: Sequence[Part],
    state: Callable[[], bytes],
    located: Located,
    mismatch: StateMismatchError,
) -> dict[int, Replaced]:
    """Replaces what differs by the majority's. All ranks call it together.

    Args:
        transport: the ranks.
        parts: this rank's.
        state: digests all of this rank's state again.
        located: where the states differ.
        mismatch: who holds which.

    Returns:
        What each rank whose state was replaced says about the first part that differed.

    Raises:
        StateMismatchError: naming a rank that could not get the majority's state from any rank of it.
    """
    majority, want = mismatch.majority, mismatch.states[mismatch.majority[0]]
    left, reports = sorted(located.differing), dict[int, Replaced]()
    own, said = Replaced(0, 0), want
    for attempt in range(len(majority)):
        for k, rank in enumerate(left):
            sender = majority[(k + attempt) % len(majority)]
            report = _bring(transport, parts, located, sender, rank)
            if report is not None and attempt == 0:
                own = report
        if transport.rank in left:
            said = state()
        roots, told = _report(transport, said, own)
        reports = reports or {rank: told[rank] for rank in left}
        left = [rank for rank in left if roots[rank] != want]
        if not left:
            return reports
    raise mismatch.with_detail(
        f"{names(left)} could not take over the state of {names(majority)}: what arrived did not have the "
        "majority's digest, from any of them; look at its memory and network, and start the job without it",
        left,
    )


def _bring(
    transport: Transport, parts: Sequence[Part], located: Located, sender: int, receiver: int
) -> Replaced | None:
    """Brings the differing parts from one rank to another; what the receiver says of the first."""
    indices = located.differing[receiver]
    outgoing = _Outgoing(parts) if transport.rank == sender else None
    incoming = _Incoming(parts, located.digests) if transport.rank == receiver else None
    for batch in _batches(parts, indices):
        total = sum(end - begin for _, begin, end in batch)
        splits = [0] * transport.size
        expected = [0] * transport.size
        send, out = np.empty(0, np.uint8), np.empty(0, np.uint8)
        if outgoing is not None:
            splits[receiver], send = total, outgoing.pack(batch)
        if incoming is not None:
            expected[sender], out = total, np.empty(total, np.uint8)
        transport.alltoall(send, splits, out, expected, "repair of the state")
        if incoming is not None:
            incoming.unpack(batch, out)
    return None if incoming is None else incoming.report


_Batch = list[tuple[int, int, int]]  # part, begin and end of a range of its bytes


def _batches(parts: Sequence[Part], indices: Sequence[int]) -> Iterator[_Batch]:
    """Ranges of the parts' bytes, in batches of at most `_PIECE` bytes; the same on every rank."""
    batch: _Batch = []
    room = _PIECE
    for index in indices:
        begin, size = 0, parts[index].size
        while True:
            end = min(size, begin + room)
            batch.append((index, begin, end))
            room -= end - begin
            if end == size:
                break
            yield batch
            batch, room, begin = [], _PIECE, end
    if batch:
        yield batch


class _Outgoing:
    """Reads the parts that are sent, each once."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._index, self._bytes = -1, np.empty(0, np.uint8)

    def pack(self, batch: _Batch) -> Bytes:
        pieces = []
        for index, begin, end in batch:
            if index != self._index:
                self._index, self._bytes = index, self._parts[index].read()
            pieces.append(self._bytes[begin:end])
        return np.concatenate(pieces)


class _Incoming:
    """Puts received pieces together, and takes over each part that has the majority's digest.

    Attributes:
        report: about the first part.
    """

    def __init__(self, parts: Sequence[Part], digests: Sequence[bytes]) -> None:
        self._parts, self._digests = parts, digests
        self._staged = np.empty(0, np.uint8)
        self.report: Replaced | None = None

    def unpack(self, batch: _Batch, data: Bytes) -> None:
        at = 0
        for index, begin, end in batch:
            part = self._parts[index]
            if begin == 0:
                self._staged = np.empty(part.size, np.uint8)
            self._staged[begin:end] = data[at : at + end - begin]
            at += end - begin
            if end == part.size:
                before = part.read().copy() if self.report is None else None
                taken = part.accept(self._staged, self._digests[index])
                if before is not None:
                    self.report = (
                        _difference(before, self._staged, part.itemsize) if taken else Replaced(0, 0)
                    )


def _difference(before: Bytes, after: Bytes, itemsize: int) -> Replaced:
    differs = (before != after).reshape(-1, itemsize).any(axis=1)
    return Replaced(int(np.count_nonzero(differs)), int(differs.argmax()) if differs.size else 0)


def _report(transport: Transport, root: bytes, own: Replaced) -> tuple[list[bytes], list[Replaced]]:
    """Exchanges digests after the repair, and what the repaired ranks say."""
    numbers = np.array([own.values, own.first], "<i8").view(np.uint8)
    record = np.concatenate([np.frombuffer(root, np.uint8), numbers])
    said = transport.exchange(record, "check of the repair")
    told = said[:, SIZE:].copy().view("<i8")
    reports = [Replaced(max(0, int(count)), max(0, int(first))) for count, first in told]
    return [row[:SIZE].tobytes() for row in said], reports
