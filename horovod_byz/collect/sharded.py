"""Each rank aggregates its ranges of the coordinates: traffic O(d) per rank, about 2.4 d of memory.

Rows are cut at whole tiles and exchanged directly, in one bucket or in several, of which each rank holds a
part; partial statistics of fixed size go to all ranks, so that all decide alike; the aggregated ranges are
gathered and checked against digests. Every aggregator must be trusted: no other rank checks its ranges.

With several buckets the last ones may leave while the gradients of the first are still computed: see `open`
and `send`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from horovod_byz.aggregation.joined import Deferred, Joined
from horovod_byz.aggregation.shard import Partial
from horovod_byz.aggregation.source import Source
from horovod_byz.collect import digest, partials, relay
from horovod_byz.collect.buckets import Buckets
from horovod_byz.collect.collected import Opened
from horovod_byz.collect.protocol import Array, Arrival
from horovod_byz.collect.session import Collected, Job, Session, Step
from horovod_byz.collect.watchdog import announced

if TYPE_CHECKING:
    from horovod_byz.collect.compression import Compression
    from horovod_byz.rules.base import Rule


class ShardedSession(Session):
    """The session of `Sharded` with one aggregator per range.

    Args:
        job: the session's parameters.
        overlap: whether buckets may leave before the row is complete.

    Attributes:
        buckets: how rows are cut.
        sent: number of buckets of this step that have left; the last bucket leaves first.
    """

    mode = "sharded"

    def __init__(self, job: Job, overlap: bool = False) -> None:
        if overlap:
            self.mode = "sharded overlap"
        super().__init__(job)
        self.overlap = overlap
        if overlap:  # once the ranks have agreed that they all do
            self.transport.separate()
        self.buckets = Buckets.of(self.d, self.layout.size, self.n, self.transport.most, overlap=overlap)
        self._ranges = self.buckets.held_by(self.transport.rank)
        self._widths = [end - begin for begin, end in self._ranges]
        self._blocks, self._value = room(self.compression, self.n, self._widths, self.d, self.dtype)
        self._result = np.empty(sum(self._widths), self.dtype)
        self._results = np.split(self._result, np.cumsum(self._widths)[:-1])
        self._packed_buckets: list[Array | None] = [None] * self.buckets.count
        self._opened: Opened | None = None
        self._arrivals: dict[int, Arrival] = {}

    @property
    def sent(self) -> int:
        return len(self._arrivals)

    @property
    def is_open(self) -> bool:
        """Whether a step was opened that `step` has not completed, and still can."""
        if any(arrival.over for arrival in self._arrivals.values()):  # the ranks were started anew
            self._opened, self._arrivals = None, {}
        return self._opened is not None

    @announced
    def open(self, rows: Array, rule: Rule, state: bytes | Callable[[int], bytes] = b"") -> None:
        """Begins a step before its rows are complete: exchanges the headers. `send` may follow, then `step`.

        Args:
            rows: (k, d), the memory in which the rows are being written; as for `step`, and the same.
            rule: as for `step`, and equal.
            state: likewise; it must not be one that `Resolves` at a step that compares states.

        Raises:
            As `step`.
        """
        rule.check(self.n)
        self._opened = self._open(self._checked(rows), rule, None, state)

    @announced
    def send(self, rows: Array) -> None:
        """Sends the next bucket of an open step, from the last to the first; does not wait for it.

        Args:
            rows: the memory that was given to `open`; the coordinates of the bucket, `buckets.spans`, are
                complete, and stay as they are until the end of `step`.
        """
        self._send(self._checked(rows))

    @announced
    def refuse(self, why: str) -> NoReturn:
        """Says to the other ranks why this one does not complete the open step.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(why)

    def _pack(self, rows: Array) -> Array:
        return rows  # bucket by bucket, as they leave

    def _open(
        self,
        rows: Array,
        rule: Rule,
        step: int | None,
        state: bytes | Callable[[int], bytes],
        again: Callable[[], Array] | None = None,
    ) -> Opened:
        opened, self._opened = self._opened if self.is_open else None, None
        if opened is None:
            self._arrivals = {}
            return super()._open(rows, rule, step, state, again)
        if rule != opened.rule or step not in (None, opened.number):
            raise ValueError(
                f"step {opened.number} was opened with {opened.rule!r}, and parts of the rows have left: it "
                f"cannot become step {step} with {rule!r}; change the rule after a step and before the next "
                "backward pass"
            )
        return opened

    def _aggregate(self, rows: Array, step: Step) -> Collected:
        with step.clock("collect"):
            while self.sent < self.buckets.count:
                self._send(rows)
            if not self.overlap:
                self._wait()
        with step.clock("aggregate"):
            outcome = self._run(step, self._source(step), self._result, self._ranges, self._reduce)
            self._wait()  # in case that the rule left out a bucket
        self._arrivals = {}
        with step.clock("return"):
            complainers = self._gather_results()
        seconds = step.clock.seconds
        return Collected(self._value, outcome, (), seconds, step.number, complainers=complainers)

    def _send(self, rows: Array) -> None:
        """Sends each rank its range of the next bucket of this rank's rows, and receives this rank's."""
        number = self.buckets.count - 1 - self.sent
        (begin, end), block = self.buckets.spans[number], self._blocks[number]
        packed = self.compression.pack(rows[:, begin:end], self._packed_buckets[number])
        if not np.may_share_memory(packed, rows):  # memory for the next step's
            self._packed_buckets[number] = packed
        cuts = [self.compression.cut(low - begin, high - begin) for low, high in self.buckets.ranges[number]]
        send = packed.reshape(-1)
        if len(rows) > 1:
            send = np.concatenate([packed[:, low:high].reshape(-1) for low, high in cuts])
        self._arrivals[number] = self.transport.start(
            send,
            [len(rows) * (high - low) for low, high in cuts],
            block.reshape(-1),
            [k * block.shape[1] for k in self.layout.rows],
            "exchange of shards" if self.buckets.count == 1 else f"exchange of shards {number}",
        )

    def _wait(self) -> None:
        for arrival in self._arrivals.values():
            arrival.wait()

    def _source(self, step: Step) -> Source:
        """All rows over this rank's ranges, each read when it has arrived."""
        at_once = self.compression.read(self._blocks[0][:, :0], 0, self.dtype, None).at_once

        def received(number: int) -> Source:
            self._arrivals[number].wait()
            return self._read(step, self._blocks[number], self._widths[number], self._ranges[number][0])

        if not self.overlap and self.buckets.count == 1:
            return received(0)
        return Joined(
            [
                Deferred(partial(received, number), self.n, width, self.dtype, at_once)
                for number, width in enumerate(self._widths)
            ]
        )

    def _reduce(self, partial: Partial) -> list[Partial]:
        most = partials.size(partial, max(self.buckets.lengths))
        received = self.transport.exchange_any(partials.pack(partial), "exchange of statistics", most)
        sent = zip(received, self.buckets.lengths, strict=True)
        return self.buckets.in_order(
            [partials.unpack(data, partial, rank, length) for rank, (data, length) in enumerate(sent)]
        )

    def _gather_results(self) -> tuple[int, ...]:
        own = np.frombuffer(b"".join(digest.digests(self._results, self.threads)), np.uint8)
        received = self.transport.exchange(own, "digests of the results")
        given = received.reshape(self.layout.size, self.buckets.count, digest.SIZE)
        complainers: set[int] = set()
        for number, (begin, end) in enumerate(self.buckets.spans):
            result = self._results[number]
            self.transport.allgather(result, self._value[begin:end], "allgather of results")
            slots = [self._value[low:high] for low, high in self.buckets.ranges[number]]
            said = [row.tobytes() for row in given[:, number]]
            complainers.update(relay.gather(self.transport, result, slots, said, self.threads).complainers)
        return tuple(sorted(complainers))


def room(
    compression: Compression, n: int, widths: list[int], d: int, dtype: np.dtype[Any]
) -> tuple[list[Array], Array]:
    """Memory for blocks of n packed rows, one of each width, and for the whole result, (d,).

    The result arrives when the blocks are used up. So they are the same memory, unless rows travel packed.
    """
    blocks = [compression.room(n, width, dtype) for width in widths]
    if blocks[0].dtype != dtype:
        return blocks, np.empty(d, dtype)
    shared = np.empty(max(n * sum(widths), d), dtype)
    parts = np.split(shared[: n * sum(widths)], np.cumsum([n * width for width in widths])[:-1])
    return [part.reshape(n, width) for part, width in zip(parts, widths, strict=True)], shared[:d]
