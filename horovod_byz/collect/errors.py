"""The errors between ranks; each names the ranks at fault, and where they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from horovod_byz.host.place import Place

# Where the ranks of the session at work run. Of a thread, not of the process: tests run ranks in threads.
_PLACES: ContextVar[tuple[Place, ...]] = ContextVar("horovod_byz_places", default=())


@contextmanager
def located(places: Sequence[Place] = ()) -> Iterator[None]:
    """Inside, errors between ranks say where the ranks run."""
    token = _PLACES.set(tuple(places))
    try:
        yield
    finally:
        _PLACES.reset(token)


def locate(places: Sequence[Place]) -> None:
    """Sets where the ranks run, until the end of the enclosing `located`."""
    _PLACES.set(tuple(places))


class TransportError(RuntimeError):
    """A step could not be collected.

    Attributes:
        ranks: the ranks at fault, ascending; empty if they cannot be identified.
        places: where they run; empty before the ranks are bound.
        doubtful: those of `ranks` that may be honest, since the ranks that contradict them may lie, or
            somebody ended their process by SIGTERM.
    """

    doubtful: tuple[int, ...] = ()

    def __init__(self, message: str, ranks: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.ranks = tuple(sorted(ranks))
        self.places = tuple(place for place in _PLACES.get() if place.rank in self.ranks)


class HeaderMismatchError(TransportError):
    """A rank announced another step, length, dtype, number of rows, mode or rule, or sent another length."""


class JoinedRanksError(HeaderMismatchError):
    """Ranks called `hvd.join()` while others went on; `ranks` are those that joined."""


class StateMismatchError(TransportError):
    """Ranks hold different parameters, optimizer state or options.

    Attributes:
        ranks: the ranks that differ from the majority's; empty if there is no majority.
        states: each rank's digest.
        sides: the ranks that agree with one another, the largest side first.
    """

    def __init__(
        self, message: str, states: Sequence[bytes] = (), ranks: Sequence[int] | None = None
    ) -> None:
        self.states = tuple(states)
        members: dict[bytes, list[int]] = {}
        for rank, state in enumerate(self.states):
            members.setdefault(state, []).append(rank)
        self.sides = tuple(map(tuple, sorted(members.values(), key=lambda side: (-len(side), side))))
        odd = [rank for side in self.sides[1:] for rank in side] if self.majority else []
        super().__init__(message, odd if ranks is None else ranks)

    @property
    def majority(self) -> tuple[int, ...]:
        """The ranks that hold the state of over half of the ranks; empty if there is none."""
        largest = self.sides[0] if self.sides else ()
        return largest if 2 * len(largest) > len(self.states) else ()

    def with_detail(self, message: str, ranks: Sequence[int] | None = None) -> StateMismatchError:
        """The same mismatch with another message, and perhaps other ranks to name."""
        return StateMismatchError(message, self.states, ranks)


class EquivocationError(TransportError):
    """A rank sent different bytes to different ranks, or bytes that its own digest does not cover."""


class LateRanksError(TransportError):
    """A wait took longer than the timeout, or broke off; `ranks` are those that neither waited nor gave up.

    With Horovod the error raised is also a `HorovodInternalError`, so that `hvd.elastic.run` recovers.
    """

    @property
    def certain(self) -> tuple[int, ...]:
        """Those of `ranks` that failed by themselves, and are accused of it."""
        return tuple(rank for rank in self.ranks if rank not in self.doubtful)


def names(ranks: Sequence[int]) -> str:
    """'rank 2', 'ranks 1 and 4'; once places are known 'rank 2 (host b, GPU 2)', 'ranks 1 and 4 (host a)'."""
    where = {place.rank: place.where for place in _PLACES.get()}
    places = [where.get(rank, "") for rank in sorted(ranks)]
    shared = set(places).pop() if len(set(places)) == 1 else ""
    numbers = [
        f"{rank} ({place})" if place and not shared else str(rank)
        for rank, place in zip(sorted(ranks), places, strict=True)
    ]
    end = f" ({shared})" if shared else ""
    if len(numbers) < 2:
        return "rank " + "".join(numbers) + end
    return f"ranks {', '.join(numbers[:-1])} and {numbers[-1]}{end}"
