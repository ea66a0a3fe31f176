"""`hvd.join()` beside robust collection: harmless where all ranks join after equal steps, else an error.

Horovod's allreduce takes zeros from a rank that has joined. Its alltoall and allgather do not support that:
version 0.28.1 crashes in its response cache on Gloo. Zeros would also be wrong for a rule, which would count
them as a row. So a rank that joins first takes part in the others' next comparison of headers, with the mode
"joined". Either all ranks joined, and Horovod's join runs; or all ranks raise together.
"""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

from horovod_byz.collect import header
from horovod_byz.collect.errors import LateRanksError, located
from horovod_byz.collect.header import JOINED, Header
from horovod_byz.collect.local import Local
from horovod_byz.collect.process import initialized
from horovod_byz.collect.protocol import HEADER_EXCHANGE, Transport
from horovod_byz.collect.transport import connect, time_limit
from horovod_byz.host.place import Place

_watched: list[weakref.ref[Any]] = []
_original: Callable[..., int] | None = None


def watch(owner: object) -> None:
    """Makes `hvd.join()` compare headers first, as long as `owner` exists.

    Args:
        owner: a `Session`, or an object that binds one at its first step.
    """
    _watched[:] = [ref for ref in _watched if ref() is not None]
    _watched.append(weakref.ref(owner))
    mpi_ops = sys.modules.get("horovod.torch.mpi_ops")
    if mpi_ops is not None:
        _install(mpi_ops)


def join(device: int = -1) -> int:
    """Replaces Horovod's `join`: compares headers with the other ranks first.

    Raises:
        JoinedRanksError: if another rank goes on; on all ranks together.
        LateRanksError: if another rank neither joins nor goes on in time.
    """
    assert _original is not None
    # A dead owner may still be uncollected on some ranks only, but all ranks must decide alike.
    gc.collect()
    owners = [owner for owner in (ref() for ref in _watched) if owner is not None]
    if owners and initialized():
        _compare(owners)
    return _original(device)


def _compare(owners: list[Any]) -> None:
    transport, step = _next_exchange(owners)
    if transport.size == 1:
        return
    transport.watchdog.begin(step)
    own = Header(step, 0, 0, "", JOINED)
    with located(_places(owners, transport)):
        try:
            received = transport.exchange(own.pack(), HEADER_EXCHANGE)
        except LateRanksError as error:
            raise type(error)(
                f"this rank called hvd.join(), and waited for the others to join or to take a step: {error}",
                error.ranks,
            ) from error
        header.check_joined([header.unpack(data) for data in received])


def _next_exchange(owners: list[Any]) -> tuple[Transport, int]:
    """The transport and the number of this rank's next step."""
    for owner in owners:
        transport = getattr(owner, "transport", None)
        # Skip sessions from before an elastic reset.
        if transport is not None and not isinstance(transport, Local) and transport.is_current:
            return transport, owner.next_step
    # Nothing is bound yet, so that the others bind next.
    return connect("gradient", time_limit(None)), -1


def _places(owners: list[Any], transport: Transport) -> tuple[Place, ...]:
    """Where the ranks of the transport run, as the session that has it learnt."""
    return next((owner.places for owner in owners if getattr(owner, "transport", None) is transport), ())


def _install(mpi_ops: Any) -> None:
    """Replaces Horovod's `join`, also for scripts that imported it by name before.

    The function object stays and gets other code. To replace the module's attribute would miss those names.
    To replace the native entry point would turn our error into a HorovodInternalError, from which elastic
    training would recover for ever.
    """
    global _original
    theirs = mpi_ops.join
    if theirs.__code__ is _stand_in.__code__:
        return
    _original = types.FunctionType(
        theirs.__code__, theirs.__globals__, theirs.__name__, theirs.__defaults__, theirs.__closure__
    )
    theirs.__code__ = _stand_in.__code__


def _stand_in(device: int = -1) -> int:
    from horovod_byz.collect import joining

    return joining.join(device)
