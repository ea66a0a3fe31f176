"""Sharded collection that tolerates Byzantine aggregators: r ranks aggregate each shard and vote.

Shard s is aggregated by the ranks s, s + 1, ..., s + r - 1 (modulo the number of ranks). A rank plays r
roles, role m being the aggregation of shard (rank - m). A shard's r aggregators take two
bitwise majority votes, on bytes that they send directly: on the partial statistics, before any rank decides
from them, and on the digest of the result. Honest aggregators of a shard agree in every bit (promise 2), so
with fewer than r/2 Byzantine ones the elected bytes are those of an honest rank.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np

from horovod_byz.aggregation import engine
from horovod_byz.aggregation.shard import Partial
from horovod_byz.aggregation.tiles import shards
from horovod_byz.collect import digest, partials
from horovod_byz.collect.errors import EquivocationError, names
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.protocol import Array, Transport, pieces
from horovod_byz.collect.session import Collected, Job, Session, Step
from horovod_byz.collect.sharded import room

_NOBODY = 255

T = TypeVar("T", bound=Hashable)


class ReplicatedSession(Session):
    """The session of `Sharded` with several aggregators per shard."""

    mode = "sharded-voted"

    def __init__(self, job: Job, replicas: int) -> None:
        rank, size = job.transport.rank, job.transport.size
        if replicas > min(size, _NOBODY):
            raise ValueError(
                f"Sharded(replicas={replicas}) needs at least {replicas} ranks, got {size}: "
                "use fewer replicas, or start more ranks"
            )
        self.replicas = replicas
        super().__init__(replace(job, shared=f"{job.shared} replicas={replicas}"))
        self.shards = shards(self.d, size)
        mine = [self.shards[self._shard(rank, role)] for role in range(replicas)]
        self._cuts = [self.compression.cut(*shard) for shard in self.shards]
        widths = [end - begin for begin, end in mine]
        (first,), self._value = room(self.compression, self.n, widths[:1], self.d, self.dtype)
        others = [self.compression.room(self.n, width, self.dtype) for width in widths[1:]]
        self._blocks = [first, *others]
        self._results = [np.empty(width, self.dtype) for width in widths]
        self._lengths = partials.lengths(self.shards, self.d)

    def _shard(self, rank: int, role: int) -> int:
        return (rank - role) % self.layout.size

    def _aggregator(self, shard: int, role: int) -> int:
        return (shard + role) % self.layout.size

    def _aggregate(self, rows: Array, step: Step) -> Collected:
        self._outvoted: set[int] = set()
        self._complainers: set[int] = set()
        with step.clock("collect"):
            for role, block in enumerate(self._blocks):
                ranges = [self._cuts[self._shard(rank, role)] for rank in range(self.layout.size)]
                scatter(self.transport, self.layout, rows, ranges, block)
        with step.clock("aggregate"):
            outcome = self._play(step)
        with step.clock("return"):
            self._gather_results()
        named = tuple(sorted(self._outvoted)), tuple(sorted(self._complainers))
        return Collected(self._value, outcome, (), step.clock.seconds, step.number, *named)

    def _play(self, step: Step) -> engine.Outcome:
        """Runs all roles side by side, since they must decide on the same elected statistics."""
        meeting = _Meeting(self.replicas, self._elect_statistics)

        def play(role: int) -> engine.Outcome:
            mine, out = self.shards[self._shard(self.transport.rank, role)], self._results[role]
            try:
                rows = self._read(step, self._blocks[role], out.size, mine[0])
                return self._run(step, rows, out, (mine,), lambda own: meeting.bring(role, own))
            except BaseException:
                meeting.break_up()
                raise

        with ThreadPoolExecutor(self.replicas) as pool:
            futures = [pool.submit(play, role) for role in range(self.replicas)]
        failed = [error for error in (future.exception() for future in futures) if error is not None]
        if failed:
            # All but one only report that the meeting broke up.
            raise next((e for e in failed if not isinstance(e, threading.BrokenBarrierError)), failed[0])
        return futures[0].result()

    def _elect_statistics(self, own: Sequence[Partial]) -> list[Partial]:
        """Exchanges the statistics of all roles of all ranks, and elects each shard's."""
        packed = [partials.pack(partial) for partial in own]
        lengths = np.array([len(data) for data in packed], np.int64)
        message = np.concatenate([np.frombuffer(lengths.tobytes(), np.uint8), *packed])
        most = self.replicas * (lengths.itemsize + partials.size(own[0], max(self._lengths)))
        received = self.transport.exchange_any(message, "exchange of statistics", most)
        said = [_cut(data, self.replicas) for data in received]
        parts = [[part.tobytes() for part in parts] for parts in said]
        elected = self._vote(parts, "statistics")
        return [
            partials.unpack(np.frombuffer(data, np.uint8), own[0], ranks, length)
            for data, ranks, length in zip(elected, self._voters(parts, elected), self._lengths, strict=True)
        ]

    def _vote(self, said: Sequence[Sequence[T]], what: str) -> list[T]:
        """Elects, for each shard, the value that a strict majority of its aggregators sent.

        Args:
            said: the value of each rank in each of its roles.
            what: name of the values, for the error.

        Raises:
            EquivocationError: if there is no majority; it names the shard's aggregators.
        """
        elected = []
        for shard in range(self.layout.size):
            ranks = [self._aggregator(shard, role) for role in range(self.replicas)]
            votes = [said[rank][role] for role, rank in enumerate(ranks)]
            winner, count = Counter(votes).most_common(1)[0]
            if 2 * count <= self.replicas:
                raise EquivocationError(
                    f"no majority for the {what} of shard {shard}, which {names(ranks)} aggregate: more of "
                    "them are Byzantine than the vote tolerates; use more replicas",
                    ranks,
                )
            self._outvoted.update(rank for rank, vote in zip(ranks, votes, strict=True) if vote != winner)
            elected.append(winner)
        return elected

    def _gather_results(self) -> None:
        """Relays the results of role 0, and fetches those that do not match the elected digest."""
        own = np.frombuffer(b"".join(digest.digests(self._results, self.threads)), np.uint8)
        received = self.transport.exchange(own, "digests of the results")
        said = [[part.tobytes() for part in row.reshape(self.replicas, digest.SIZE)] for row in received]
        elected = self._vote(said, "result")
        self.transport.allgather(self._results[0], self._value, "allgather of results")
        self._fetch_rewritten(elected, self._voters(said, elected))

    def _fetch_rewritten(self, elected: Sequence[bytes], voters: Sequence[Sequence[int]]) -> None:
        """Replaces results that were rewritten in transit.

        A rank asks a shard's aggregators one after another, so an honest aggregator has served it after at
        most `replicas` requests. A rank that complains after that lies, and the others do not wait for it.

        Args:
            elected: the digest of each shard's result.
            voters: the ranks that sent the elected digest.

        Raises:
            EquivocationError: if none of a shard's aggregators sent this rank the elected result.
        """
        for attempt in range(self.replicas + 1):
            wanted = np.full(self.layout.size, _NOBODY, np.uint8)
            wrong = self._wrong(elected)
            for shard in wrong:
                sender = voters[shard][attempt % len(voters[shard])]
                wanted[shard] = (sender - shard) % self.layout.size
            complaints = self.transport.exchange(wanted, "check of the digests")
            nonsense = (complaints != _NOBODY) & (complaints >= self.replicas)
            last = attempt == self.replicas
            blamed = complaints != _NOBODY if last else nonsense
            self._complainers.update(np.flatnonzero(blamed.any(axis=1)).tolist())
            complaints[nonsense] = _NOBODY
            if last or (complaints == _NOBODY).all():
                break
            self._fetch(complaints)
        if wrong:
            ranks = sorted({rank for shard in wrong for rank in voters[shard]})
            raise EquivocationError(
                f"{names(ranks)} sent results that do not have the digests they gave: take those ranks out "
                "and start again",
                ranks,
            )

    def _wrong(self, elected: Sequence[bytes]) -> list[int]:
        """The shards whose result here does not have the elected digest."""
        arrived = digest.digests([self._value[begin:end] for begin, end in self.shards], self.threads)
        return [shard for shard, want in enumerate(elected) if arrived[shard] != want]

    def _voters(self, said: Sequence[Sequence[T]], elected: Sequence[T]) -> list[list[int]]:
        """For each shard, the aggregators that sent the elected value, by role."""
        return [
            [
                self._aggregator(shard, role)
                for role in range(self.replicas)
                if said[self._aggregator(shard, role)][role] == winner
            ]
            for shard, winner in enumerate(elected)
        ]

    def _fetch(self, complaints: Array) -> None:
        """Sends results directly: complaints[rank, shard] is the role of the sender, or `_NOBODY`."""
        for shard, (begin, end) in enumerate(self.shards):
            for role in sorted(set(complaints[:, shard].tolist()) - {_NOBODY}):
                asking = complaints[:, shard] == role
                sender = self._aggregator(shard, role)
                is_sender = self.transport.rank == sender
                own = self._results[role] if is_sender else self._value[:0]
                splits = [own.size if ask else 0 for ask in asking]
                target = self._value[begin:end] if asking[self.transport.rank] else self._value[:0]
                expected = [target.size if rank == sender else 0 for rank in range(self.layout.size)]
                send = np.tile(own, int(asking.sum()))
                self.transport.alltoall(send, splits, target, expected, "direct exchange of results")


class _Meeting:
    """Collects the partials of all roles' threads, and returns to each the result of `elect`."""

    def __init__(self, count: int, elect: Callable[[Sequence[Partial]], list[Partial]]) -> None:
        self._partials: list[Partial] = [np.empty(0)] * count
        self._elected: list[Partial] = []
        self._elect = elect
        self._all_there = threading.Barrier(count, self._hold)
        self._all_gone = threading.Barrier(count)

    def bring(self, role: int, partial: Partial) -> list[Partial]:
        self._partials[role] = partial
        self._all_there.wait()
        elected = self._elected
        # Nobody may bring the next statistic before all have read this one.
        self._all_gone.wait()
        return elected

    def break_up(self) -> None:
        self._all_there.abort()
        self._all_gone.abort()

    def _hold(self) -> None:  # in one of the threads, while the others wait
        self._elected = self._elect(self._partials)


def _cut(data: Array, count: int) -> list[Array]:
    """Parses `count` lengths and as many parts; of other data all are empty, and lose the vote."""
    head = 8 * count
    lengths = np.zeros(count, np.int64)
    if len(data) >= head:
        lengths = np.frombuffer(data[:head].tobytes(), np.int64)
    # Clipped, so that the sum of lengths that a liar chose cannot overflow.
    ends = head + np.cumsum(np.clip(lengths, 0, len(data)))
    if ends[-1] != len(data):  # too short, or with more behind its parts
        return [data[:0]] * count
    starts = [head, *ends[:-1].tolist()]
    return [data[begin:end] for begin, end in zip(starts, ends.tolist(), strict=True)]


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
