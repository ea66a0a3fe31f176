"""The bytes that each rank sends and receives in a step, message by message, as the sessions send them.

Not counted: what lies below our calls, such as Horovod's own negotiation (measured: 0.04 % of the bytes of
a step at d = 1.12e7), and fetching again what a relay rewrote, which an honest job never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation.tiles import shards
from horovod_byz.collect import digest, header, partials, preamble
from horovod_byz.collect.channels import KEY_SIZE
from horovod_byz.collect.footprint import Bound, gathers
from horovod_byz.collect.root import TABLE
from horovod_byz.plan.passes import Pass

__all__ = ["Kind", "Message", "Transport", "mean", "root", "sharded", "symmetric"]

Ints = npt.NDArray[np.int64]
Kind = Literal["exchange", "direct", "relayed"]
Transport = Literal["horovod", "torch"]


@dataclass(frozen=True, eq=False)
class Message:
    """One operation of all ranks.

    Attributes:
        part: "collect", "aggregate" or "return", as `Collected.timings` has them.
        kind: a small exchange, rows or results sent directly, or an allgather.
        sent: bytes that each rank sends to others, (size,).
        received: bytes that each rank receives from others, (size,).
        workspace: bytes of memory that it needs on a rank beside what the session holds.
    """

    part: str
    kind: Kind
    sent: Ints
    received: Ints
    workspace: int = 0


class _Ranks:
    """The messages of a job of `size` ranks."""

    def __init__(self, bound: Bound, transport: Transport) -> None:
        self.bound, self.size, self._torch = bound, bound.layout.size, transport == "torch"
        self.k = np.array(bound.layout.rows, np.int64)

    def exchange(self, part: str, length: Ints | int) -> Message:
        """Each rank sends `length` bytes (its own number) to every other."""
        own = np.broadcast_to(np.asarray(length, np.int64), (self.size,))
        most = int(own.max(initial=0))
        travels = self._torch & (own <= preamble.ROOM)  # inside the preamble
        own = np.where(travels, 0, own)
        sent, received = own * (self.size - 1), own.sum() - own
        return self._message(part, "exchange", sent, received, 2 * self.size * most)

    def _message(self, part: str, kind: Kind, sent: Ints, received: Ints, workspace: int = 0) -> Message:
        extra = preamble.SIZE * (self.size - 1) * self._torch
        return Message(part, kind, sent + extra, received + extra, workspace)

    def header(self) -> Message:
        return self.exchange("collect", header.SIZE + KEY_SIZE)

    def direct(self, part: str, sent: Ints, received: Ints, workspace: int = 0) -> Message:
        return self._message(part, "direct", sent, received, workspace)

    def relayed(self, part: str, pieces: Ints) -> Message:
        """An allgather; Horovod's is a ring, torch's here goes directly."""
        sent = pieces * (self.size - 1) if self._torch else pieces.sum() - np.roll(pieces, -1)
        return self._message(part, "relayed", sent, pieces.sum() - pieces)

    def check(self, part: str) -> Message:
        """The digests and complaints that every rank repeats to all: size^2 of them per rank."""
        return self.exchange(part, (digest.SIZE + 1) * self.size)


def symmetric(bound: Bound, statistics: Sequence[Pass], transport: Transport) -> list[Message]:
    """The messages of `SymmetricSession`."""
    ranks = _Ranks(bound, transport)
    if ranks.size == 1:
        return []
    rows = ranks.k * bound.rows(1, bound.d)
    return [ranks.header(), ranks.relayed("collect", rows), ranks.check("collect")]


def root(bound: Bound, statistics: Sequence[Pass], transport: Transport) -> list[Message]:
    """The messages of `RootSession`."""
    ranks = _Ranks(bound, transport)
    if ranks.size == 1:
        return []
    first = np.arange(ranks.size) == 0
    rows, value = ranks.k * bound.rows(1, bound.d), bound.values(bound.d)
    gathered = ranks.direct("collect", np.where(first, 0, rows), np.where(first, rows.sum() - rows[0], 0))
    verdicts = 8 * (TABLE * bound.n + 1) + digest.SIZE * ranks.size
    messages = [ranks.header(), gathered, ranks.exchange("return", verdicts)]
    if not gathers(ranks.size, bound.d):
        sent, received = np.where(first, value * (ranks.size - 1), 0), np.where(first, 0, value)
        return [*messages, ranks.direct("return", sent, received, 2**24)]
    pieces = np.array([bound.values(width) for width in bound.widths], np.int64)
    sent, received = np.where(first, value - pieces[0], 0), np.where(first, 0, pieces)
    scattered = ranks.direct("return", sent, received)
    return [*messages, scattered, ranks.relayed("return", pieces), ranks.exchange("return", ranks.size)]


def sharded(
    bound: Bound, statistics: Sequence[Pass], transport: Transport, replicas: int = 1
) -> list[Message]:
    """The messages of `ShardedSession`, and of `ReplicatedSession`."""
    ranks = _Ranks(bound, transport)
    size = ranks.size
    if size == 1:
        return []
    ranges = shards(bound.d, size)
    widths = np.array([bound.rows(1, end - begin) for begin, end in ranges], np.int64)
    values = np.array([bound.values(end - begin) for begin, end in ranges], np.int64)
    nodes = np.array(partials.lengths(ranges, bound.d), np.int64)
    messages = [ranks.header()]
    for role in range(replicas):
        own = np.roll(widths, role)  # rank r receives the columns of shard r - role
        sent = ranks.k * (widths.sum() - own)
        copied = role > 0 or bool((ranks.k > 1).any())
        workspace = int((ranks.k * widths.sum()).max()) if copied else 0
        messages.append(ranks.direct("collect", sent, (ranks.k.sum() - ranks.k) * own, workspace))
    for each in statistics:
        packed = 8 + nodes * each.entries * 8
        if replicas > 1:
            packed = 8 * replicas + np.sum([np.roll(packed, role) for role in range(replicas)], axis=0)
        messages.append(ranks.exchange("aggregate", packed))
    messages += [ranks.exchange("return", replicas * digest.SIZE), ranks.relayed("return", values)]
    return [*messages, ranks.exchange("return", size) if replicas > 1 else ranks.check("return")]


def mean(bound: Bound, transport: Transport) -> list[Message]:
    """Horovod's, or DDP's, own mean of one gradient per rank: a ring that reduces and then gathers."""
    size = bound.layout.size
    each = np.full(size, 2 * (size - 1) * bound.values(bound.d) // size, np.int64)
    return [Message("return", "relayed", each, each)] if size > 1 else []


def total(messages: Sequence[Message], size: int, of: Literal["sent", "received"]) -> Any:
    """The bytes of all messages together, by rank."""
    return sum((getattr(message, of) for message in messages), np.zeros(size, np.int64))
