"""Warns before a session allocates more than this machine has free, and names what fits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol

from horovod_byz.collect.footprint import Bound
from horovod_byz.host import machine, process

__all__ = ["free", "warn_if_short"]


class Holder(Protocol):
    """A way to collect, as far as its memory is concerned."""

    def held(self, bound: Bound, rank: int) -> int:
        """See `Collector.held`."""


def free() -> int | None:
    """Bytes that are free on this machine, or left of its control group's limit; None where nobody says."""
    try:
        return (machine.memory_mib() << 20) or None
    except OSError:
        return None


# What this process's ranks said: Python's own record of it is lost whenever code changes the filters.
_SAID: set[tuple[str, int]] = set()


def warn_if_short(
    way: Holder, others: Sequence[Holder], bound: Bound, rank: int = 0, stacklevel: int = 3
) -> None:
    """Warns, once, if the ranks of a machine would hold more than this machine has free.

    Every rank judges by its own machine, and as if it were the one with rank 0, which holds most under a
    root; so all ranks of like machines warn.

    Args:
        way: the way to collect that is about to be bound.
        others: those to name in its place, the most wanted first.
        bound: what is bound.
        rank: this rank.
        stacklevel: of the warning.
    """
    room = free()
    ranks = min(process.local_size(), bound.layout.size)
    needed = _on_a_machine(way, bound, ranks)
    about = f"{way!r} with n = {bound.n} rows of d = {bound.d:,}"
    if room is None or needed <= room or (about, rank) in _SAID:
        return
    _SAID.add((about, rank))
    fitting = next((other for other in others if _on_a_machine(other, bound, ranks) <= room), None)
    if fitting is not None:
        held = _gigabytes(_on_a_machine(fitting, bound, ranks))
        remedy = f"use collect={fitting!r}, which holds {held} there"
    else:
        remedy = (
            "no way to collect holds so little: start fewer ranks on a machine, give them more memory, or "
            "use HalfCompression() or SignCompression(), which hold 16 bits and one per coordinate"
        )
    warnings.warn(
        f"{about} will hold {_gigabytes(needed)} on a machine with {ranks} rank{'s' * (ranks > 1)}, and "
        f"{_gigabytes(room)} are free here: {remedy}",
        RuntimeWarning,
        stacklevel=stacklevel,
    )


def _on_a_machine(way: Holder, bound: Bound, ranks: int) -> int:
    return sum(way.held(bound, rank) for rank in range(ranks))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
