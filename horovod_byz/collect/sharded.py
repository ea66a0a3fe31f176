"""Each rank aggregates one shard of the coordinates: traffic O(d) per rank, about 2.2 d of memory.

Rows are cut at whole tiles and exchanged directly; partial statistics of fixed size go to all ranks, so that
all decide alike; the aggregated shards are gathered and checked against digests. Every aggregator must be
trusted: no other rank checks its shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from horovod_byz.aggregation.shard import Partial
from horovod_byz.aggregation.tiles import shards
from horovod_byz.collect import digest, partials, relay
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.protocol import Array, Transport, pieces
from horovod_byz.collect.session import Collected, Job, Session, Step

if TYPE_CHECKING:
    from horovod_byz.collect.compression import Compression


class ShardedSession(Session):
    """The session of `Sharded` with one aggregator per shard."""

    mode = "sharded"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.shards = shards(self.d, self.layout.size)
        begin, end = self.shards[self.transport.rank]
        self._cuts = [self.compression.cut(*shard) for shard in self.shards]
        self._block, self._value = room(self.compression, self.n, end - begin, self.d, self.dtype)
        self._result = np.empty(end - begin, self.dtype)
        self._lengths = partials.lengths(self.shards, self.d)

    def _aggregate(self, rows: Array, step: Step) -> Collected:
        with step.clock("collect"):
            scatter(self.transport, self.layout, rows, self._cuts, self._block)
        with step.clock("aggregate"):
            offset = self.shards[self.transport.rank][0]
            outcome = self._run(step, self._block, self._result, offset, self._reduce)
        with step.clock("return"):
            complainers = self._gather_results()
        seconds = step.clock.seconds
        return Collected(self._value, outcome, (), seconds, step.number, complainers=complainers)

    def _reduce(self, partial: Partial) -> list[Partial]:
        most = partials.size(partial, max(self._lengths))
        received = self.transport.exchange_any(partials.pack(partial), "exchange of statistics", most)
        sent = zip(received, self._lengths, strict=True)
        return [partials.unpack(data, partial, rank, length) for rank, (data, length) in enumerate(sent)]

    def _gather_results(self) -> tuple[int, ...]:
        own = np.frombuffer(digest.digest(self._result), np.uint8)
        given = [row.tobytes() for row in self.transport.exchange(own, "digests of the results")]
        self.transport.allgather(self._result, self._value, "allgather of results")
        slots = [self._value[begin:end] for begin, end in self.shards]
        return relay.gather(self.transport, self._result, slots, given, self.threads).complainers


def room(compression: Compression, n: int, width: int, d: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Memory for a block of n packed rows, and for the whole result, (d,).

    The result arrives when the block is used up. So they are the same memory, unless rows travel packed.
    """
    block = compression.room(n, width, dtype)
    if block.dtype != dtype:
        return block, np.empty(d, dtype)
    shared = np.empty(max(block.size, d), dtype)
    return shared[: block.size].reshape(block.shape), shared[:d]


def scatter(
    transport: Transport, layout: Layout, rows: Array, shards: Sequence[tuple[int, int]], block: Array
) -> None:
    """Sends each rank its shard of this rank's rows, and receives this rank's shard of all rows.

    Args:
        transport: the ranks.
        layout: which rank holds which workers.
        rows: (k, width), this rank's packed rows.
        shards: the range of columns that each rank receives, in rank order.
        block: (n, width) for this rank's range.
    """
    widest = max(end - begin for begin, end in shards)
    most = max(layout.n, max(layout.rows) * layout.size)
    for low, high in pieces(widest, most, transport.most):
        cuts = [(min(begin + low, end), min(begin + high, end)) for begin, end in shards]
        width = cuts[transport.rank][1] - cuts[transport.rank][0]
        whole = high - low == widest
        part = block if whole else np.empty((layout.n, width), block.dtype)
        transport.alltoall(
            _in_order(rows, cuts, whole and shards[0][0] == 0),
            [len(rows) * (end - begin) for begin, end in cuts],
            part.reshape(-1),
            [k * width for k in layout.rows],
            "exchange of shards",
        )
        if not whole:
            block[:, low : low + width] = part


def _in_order(rows: Array, cuts: Sequence[tuple[int, int]], ascending: bool) -> Array:
    """The pieces of the rows in the order of their receivers; a single whole row needs no copy."""
    if ascending and len(rows) == 1:
        return rows.reshape(-1)
    return np.concatenate([rows[:, begin:end].reshape(-1) for begin, end in cuts])
