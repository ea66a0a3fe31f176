"""Rows of state that replicas of a redundancy group must share, such as momentum: compared, and replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from horovod_byz.collect import digest
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.protocol import Array, Bytes, Transport

__all__ = ["all_match", "bring_majority"]

_NOTHING = bytes(digest.SIZE)  # the digest of a worker without a row
_PIECE = 2**24  # bytes per operation


def all_match(
    transport: Transport, layout: Layout, rows: Array | None, groups: Iterable[Sequence[int]]
) -> bool:
    """Whether every worker has a row, and those of each group hold the same bits. All ranks call it together.

    Args:
        transport: the ranks.
        layout: whose workers are where.
        rows: (k, d), those of this rank's workers; None for none.
        groups: the workers of each redundancy group.
    """
    known = _exchanged(transport, layout, rows)
    return _NOTHING not in known and all(len({known[worker] for worker in group}) == 1 for group in groups)


def bring_majority(
    transport: Transport,
    layout: Layout,
    rows: Array,
    groups: Sequence[Sequence[int]],
    workers: Iterable[int],
    turn: int,
) -> None:
    """Replaces the rows of some workers by those that most of their group hold. All ranks call it together.

    A row is taken over only if it has the majority's digest. A group without a majority keeps what it has.

    Args:
        transport: the ranks.
        layout: whose workers are where.
        rows: (k, d), those of this rank's workers; written to.
        groups: the workers of each redundancy group.
        workers: whose rows to replace; equal on all ranks.
        turn: chooses the sender among those that hold the majority's row: another one at each turn, since one
            may send something else.
    """
    known = _exchanged(transport, layout, rows)
    of = {worker: group for group in groups for worker in group}
    for worker in sorted(set(workers) & set(of)):
        group = of[worker]
        wanted, votes = Counter(known[member] for member in group).most_common(1)[0]
        if 2 * votes <= len(group) or known[worker] == wanted:
            continue
        holders = [member for member in group if known[member] == wanted]
        arrived = _sent(transport, layout, rows, holders[turn % len(holders)], worker)
        if arrived is not None and digest.digest(arrived) == wanted:
            rows[worker - layout.workers(transport.rank).start] = arrived


def _exchanged(transport: Transport, layout: Layout, rows: Array | None) -> list[bytes]:
    """The digest of each worker's row, as its rank gives it."""
    own = np.zeros((max(layout.rows), digest.SIZE), np.uint8)
    for place, row in enumerate(() if rows is None else rows):
        own[place] = np.frombuffer(digest.digest(np.ascontiguousarray(row)), np.uint8)
    given = transport.exchange(own.reshape(-1), "comparison of replicas' state")
    given = given.reshape(layout.size, -1, digest.SIZE)
    return [given[rank, place].tobytes() for rank, count in enumerate(layout.rows) for place in range(count)]


def _sent(transport: Transport, layout: Layout, rows: Array, sender: int, receiver: int) -> Array | None:
    """Sends a worker's row to another worker; returns it on the receiver's rank, None elsewhere."""
    source, target = (_rank_of(layout, worker) for worker in (sender, receiver))
    own = layout.workers(transport.rank).start
    size = rows.shape[1] * rows.itemsize
    arrived = np.empty(size if transport.rank == target else 0, np.uint8)
    outgoing: Bytes = np.empty(0, np.uint8)
    if transport.rank == source:
        outgoing = np.ascontiguousarray(rows[sender - own]).view(np.uint8)
    for begin in range(0, size, _PIECE):
        end = min(begin + _PIECE, size)
        splits, expected = [0] * layout.size, [0] * layout.size
        if transport.rank == source:
            splits[target] = end - begin
        if transport.rank == target:
            expected[source] = end - begin
        part = np.empty(sum(expected), np.uint8)
        transport.alltoall(outgoing[begin:end], splits, part, expected, "repair of a replica's state")
        arrived[begin:end] = part
    return arrived.view(rows.dtype) if transport.rank == target else None


def _rank_of(layout: Layout, worker: int) -> int:
    return next(rank for rank in range(layout.size) if worker in layout.workers(rank))
