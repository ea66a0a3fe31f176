"""Locates where the ranks' states differ: one digest per part, sent by each rank to every other.

A rank is bound to them by the digest of them all, which its step's header carried. No length is taken from a
peer: all follow from a rank's own parts, once the digests of the structure agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from horovod_byz.collect.digest import SIZE
from horovod_byz.collect.errors import StateMismatchError, names
from horovod_byz.collect.protocol import Bytes, Transport

_TEXT = 64  # bytes of a value that an error shows


@dataclass(frozen=True)
class Described:
    """This rank's state: the digests of its structure and of its parts, and how all of them make one.

    Attributes:
        structure: digest of the parts' names, shapes and dtypes.
        digests: of each part.
        root: the digest of a structure and of the digests of all its parts, one after the other.
        replaces: whether this rank lets the majority's state replace another's.
    """

    structure: bytes
    digests: Sequence[bytes]
    root: Callable[[bytes, bytes], bytes]
    replaces: bool = True


@dataclass(frozen=True)
class Located:
    """Where the ranks' states differ.

    Attributes:
        digests: of each part, by the largest side (the majority, if there is one).
        differing: rank -> indices of its parts that differ, ascending; of each rank on another side.
        replaces: whether all ranks of the majority let its state replace the others'; False without one.
    """

    digests: Sequence[bytes]
    differing: Mapping[int, Sequence[int]]
    replaces: bool

    @property
    def first(self) -> int | None:
        """Index of the first part that differs at any rank."""
        return min((part for parts in self.differing.values() for part in parts), default=None)


def locate(transport: Transport, own: Described, mismatch: StateMismatchError) -> Located:
    """Finds the parts that differ. All ranks call it together.

    Raises:
        StateMismatchError: if the states have other parts, so that they cannot be compared one by one.
    """
    replacing = _compare_structures(transport, own, mismatch)
    said = transport.exchange(_joined(own.digests), "digests of the state's parts")
    largest = mismatch.sides[0]
    # A rank is bound to what it announced; of the largest side each rank says the same, or cannot be heard.
    bound = [
        rank
        for rank, state in enumerate(mismatch.states)
        if own.root(own.structure, said[rank].tobytes()) == state
    ]
    heard = next((rank for rank in largest if rank in bound), None)
    if heard is None:
        raise mismatch.with_detail(
            f"{names(largest)} gave digests of the parts of its state that are not those it announced: "
            "start the job without it",
            largest,
        )
    digests = said.reshape(len(said), -1, SIZE)
    others = [rank for side in mismatch.sides[1:] for rank in side]
    differing = {
        rank: np.flatnonzero((digests[rank] != digests[heard]).any(axis=1)).tolist() for rank in others
    }
    replaces = bool(mismatch.majority) and all(replacing[rank] for rank in mismatch.majority)
    return Located([digest.tobytes() for digest in digests[heard]], differing, replaces)


def _compare_structures(transport: Transport, own: Described, mismatch: StateMismatchError) -> list[bool]:
    """Raises if the states have other parts; returns which ranks let a state be replaced."""
    count = np.array([len(own.digests)], "<i8").view(np.uint8)
    policy = np.array([own.replaces], np.uint8)
    record = np.concatenate([np.frombuffer(own.structure, np.uint8), count, policy])
    told = transport.exchange(record, "structure of the state")
    said = told[:, :-1]
    usual = said[mismatch.sides[0][0]]
    odd = [rank for rank, given in enumerate(said) if (given != usual).any()]
    if odd:
        counts = said[:, SIZE:].copy().view("<i8")[:, 0]
        raise mismatch.with_detail(
            f"{names(odd)} and {names([r for r in range(len(said)) if r not in odd])} hold other kinds of "
            f"state: names, shapes or dtypes of parameters, optimizer state or options differ "
            f"(rank {odd[0]} holds {counts[odd[0]]} tensors and numbers, rank {mismatch.sides[0][0]} "
            f"{counts[mismatch.sides[0][0]]}): broadcast parameters and optimizer state before the first "
            "step"
        )
    return [bool(flag) for flag in told[:, -1]]


def values(transport: Transport, own: str) -> list[str]:
    """What each rank says of a value, for an error: printable ASCII of at most 64 characters."""
    record = np.zeros(_TEXT, np.uint8)
    text = np.frombuffer(own.encode("ascii", "replace")[:_TEXT], np.uint8)
    record[: len(text)] = text
    said = transport.exchange(record, "value that differs")
    return ["".join(chr(byte) for byte in row if 32 <= byte < 127) for row in said]


def _joined(digests: Sequence[bytes]) -> Bytes:
    return np.frombuffer(b"".join(digests), np.uint8)
