"""A relayed allgather, of which every piece is checked against a digest that its sender gave directly.

Horovod's allgather is a ring (Gloo) or a tree (MPI): the row of rank 0 reaches rank 3 through
other ranks, any of which can rewrite it. So each rank compares the pieces with the digests that
their senders gave it directly, reports mismatches to all others, and fetches rewritten pieces directly.

The same exchange repeats to all ranks the digests that each rank received. That reveals a rank that gave
different digests to different ranks (equivocation), or lied about a digest that it received; see `echoes`.

Only the complaining rank knows what it received, so every complaint is served. Whether it is believed is
another question; see `judge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from horovod_byz.collect import echoes
from horovod_byz.collect.digest import SIZE, digest, digests
from horovod_byz.collect.errors import EquivocationError, names
from horovod_byz.collect.protocol import Array, Transport

# Elements per operation when pieces are fetched directly, all senders and receivers together.
_REFETCH = 2**22


@dataclass(frozen=True)
class Relayed:
    """The ranks' reports about a relayed allgather; the same on every rank.

    Attributes:
        rewritten: ranks whose piece arrived rewritten at some rank.
        complainers: ranks with a complaint about a piece that no other rank confirms.
    """

    rewritten: tuple[int, ...] = ()
    complainers: tuple[int, ...] = ()


def gather(
    transport: Transport, own: Array, slots: Sequence[Array], given: Sequence[bytes], threads: int = 1
) -> Relayed:
    """Checks the relayed pieces and replaces those that were rewritten in transit.

    Args:
        transport: the ranks.
        own: this rank's piece, 1-D, as it was handed to the allgather.
        slots: each rank's piece as the allgather delivered it, 1-D contiguous, in rank order.
        given: each rank's digest of its piece, received directly.
        threads: threads that compute digests.

    Raises:
        EquivocationError: if a rank gave different digests to different ranks, or its piece does not
            match its digest even when fetched directly.
    """
    arrived = digests(slots, threads)
    rewritten = np.array([a != b for a, b in zip(arrived, given, strict=True)])
    said = transport.exchange(_statement(given, rewritten), "check of the digests")
    echoed = said[:, : SIZE * transport.size].reshape(transport.size, transport.size, SIZE)
    echoes.check(echoed, "digests of rows")
    complaints = said[:, SIZE * transport.size :].astype(bool)  # [complaining rank, its subject]
    if not complaints.any():
        return Relayed()
    _fetch(transport, own, slots, rewritten, complaints[:, transport.rank])
    wrong = [r for r in np.flatnonzero(rewritten).tolist() if digest(slots[r]) != given[r]]
    if wrong:
        raise EquivocationError(f"{names(wrong)} sent a row that does not have the digest it gave", wrong)
    return judge(complaints)


def judge(complaints: Array) -> Relayed:
    """Decides which complaints are believed, by their number only.

    Two ranks that complain about the same piece confirm one another. A rank with unconfirmed complaints is
    believed if they concern at most half of the other ranks: else one liar could mark every honest row as
    rewritten.

    Args:
        complaints: (size, size) bool, [complaining rank, its subject].
    """
    about_others = complaints & ~np.eye(len(complaints), dtype=bool)
    confirmed = about_others.sum(axis=0) > 1
    alone = about_others & ~confirmed
    count = alone.sum(axis=1)
    believed = alone[2 * count <= len(complaints) - 1].any(axis=0)
    rewritten, complainers = np.flatnonzero(confirmed | believed), np.flatnonzero(count)
    return Relayed(tuple(rewritten.tolist()), tuple(complainers.tolist()))


def _statement(given: Sequence[bytes], rewritten: Array) -> Array:
    return np.concatenate([np.frombuffer(b"".join(given), np.uint8), rewritten.astype(np.uint8)])


def _fetch(transport: Transport, own: Array, slots: Sequence[Array], wanted: Array, asked: Array) -> None:
    """Sends `own` to the ranks that asked for it, and receives the wanted pieces, directly."""
    longest = max(slot.size for slot in slots)
    step = max(1, _REFETCH // transport.size)
    for begin in range(0, longest, step):
        part = own[begin : begin + step]
        splits = [part.size if ask else 0 for ask in asked]
        targets = [
            slot[begin : begin + step] if want else slot[:0] for slot, want in zip(slots, wanted, strict=True)
        ]
        expected = [target.size for target in targets]
        received = np.empty(sum(expected), own.dtype)
        send = np.tile(part, int(asked.sum()))
        transport.alltoall(send, splits, received, expected, "direct exchange of rewritten rows")
        for target, end in zip(targets, np.cumsum(expected), strict=True):
            target[:] = received[end - target.size : end]
