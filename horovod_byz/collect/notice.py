"""A rank's announcement of its state on the side channel, as a fixed number of bytes.

Anybody may have written the bytes, so they are parsed strictly: anything but a valid notice of that rank is
ignored. Nothing is unpickled, and parsing never raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

_MAGIC = b"hvd-byzn"
# Largest number of ranks that a notice blames; further ones are dropped.
_MOST_BLAMED = 16
_RECORD = np.dtype(
    [
        ("magic", "S8"),
        ("rank", "<i4"),
        ("state", "<i4"),
        ("beat", "<i8"),
        ("step", "<i8"),
        ("session", "S32"),
        ("phase", "S48"),
        ("reason", "S120"),
        ("count", "<i4"),
        ("blamed", "<i4", (_MOST_BLAMED,)),
    ]
)
SIZE = _RECORD.itemsize


class State(IntEnum):
    """The state of a rank when it announced itself."""

    MOVING = 0  # its wait is over, and it goes on
    WAITING = 1  # it waits; announced again and again, so that a frozen rank shows
    RAISED = 2  # it gave up because of other ranks, which it blames
    LEFT = 3  # it left, or failed by itself: see the reason
    ALIVE = 4  # the job ended while it computed


@dataclass(frozen=True)
class Notice:
    """One announcement.

    Attributes:
        rank: the announcing rank.
        state: its state.
        beat: grows with each announcement of a process, so that two readings show whether it still runs.
        step: optimizer step; -1 while a collector is bound.
        session: name of the session.
        phase: part of the step.
        reason: why it raised or left.
        blamed: ranks that its error names.
    """

    rank: int
    state: State
    beat: int = 0
    step: int = -1
    session: str = ""
    phase: str = ""
    reason: str = ""
    blamed: tuple[int, ...] = ()

    @property
    def place(self) -> str:
        """The phase and step as text."""
        return place(self.step, self.phase)

    def pack(self) -> bytes:
        """The notice as `SIZE` bytes; long texts are cut."""
        record = np.zeros((), _RECORD)
        record["magic"] = _MAGIC
        for name in ("rank", "state", "beat", "step"):
            record[name] = getattr(self, name)
        for name in ("session", "phase", "reason"):
            record[name] = "".join(c if " " <= c <= "~" else "?" for c in getattr(self, name)).encode()
        blamed = self.blamed[:_MOST_BLAMED]
        record["count"] = len(blamed)
        record["blamed"][: len(blamed)] = blamed
        return record.tobytes()


def unpack(data: bytes, rank: int, size: int) -> Notice | None:
    """Reads the notice of a rank of a job of `size` ranks; None if the bytes are not one.

    The encoding is unique: bytes that do not pack to themselves again are refused.
    """
    if len(data) != SIZE:
        return None
    record = np.frombuffer(data, _RECORD)[0]
    count, state = int(record["count"]), int(record["state"])
    if bytes(record["magic"]) != _MAGIC or not 0 <= count <= _MOST_BLAMED or state not in list(State):
        return None
    session, phase, reason = (_text(record[name]) for name in ("session", "phase", "reason"))
    beat, step, blamed = int(record["beat"]), int(record["step"]), tuple(record["blamed"][:count].tolist())
    notice = Notice(int(record["rank"]), State(state), beat, step, session, phase, reason, blamed)
    valid = notice.rank == rank and notice.beat >= 0 and notice.step >= -1 and _are_ranks(blamed, size)
    return notice if valid and notice.pack() == data else None


def place(step: int, phase: str) -> str:
    """'the gather to the root of step 7', 'the header exchange of binding (before the first step)'."""
    return f"the {phase} of " + (f"step {step}" if step >= 0 else "binding (before the first step)")


def _text(data: bytes) -> str:
    return bytes(data).decode("ascii", "replace")


def _are_ranks(ranks: Sequence[int], size: int) -> bool:
    return all(0 <= rank < size for rank in ranks) and len(set(ranks)) == len(ranks)
