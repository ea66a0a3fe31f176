"""Tells ledgers that this process ends: by its end, by an exception of the script, or by the launcher."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from horovod_byz.ledger.ledger import Ledger

__all__ = ["accused", "end_all", "first_line", "ledgers", "owner_of", "watch"]


class _Process:
    """The ledgers of this process that have a file, by its folder.

    Kept, since a script's function that made the optimizer has returned when the process ends.
    """

    ledgers: dict[Path, Ledger] = {}  # noqa: RUF012 - the one state of this process
    owner: int | None = None  # its id; a forked one, such as a loader's, is no rank


def watch(folder: Path, ledger: Ledger) -> None:
    """Tells the ledger when this process ends; in place of an earlier one of that folder."""
    if _Process.owner != os.getpid():
        _Process.owner = os.getpid()
        _Process.ledgers = {}
        atexit.register(_at_exit)
        sys.excepthook = _Hook(sys.excepthook)
    _Process.ledgers[folder] = ledger


def end_all(reason: str = "", ranks: Sequence[int] = ()) -> None:
    """Tells all ledgers that this process ends; an empty reason means that it has done its work."""
    for ledger in ledgers():
        ledger.end(reason, ranks)


def ledgers() -> list[Ledger]:
    """The ledgers that hear how the process ends."""
    return list(_Process.ledgers.values()) if _Process.owner == os.getpid() else []


def owner_of(folder: Path) -> Ledger | None:
    """The ledger of this process that was bound last with this folder, or None."""
    return _Process.ledgers.get(folder) if _Process.owner == os.getpid() else None


def first_line(error: BaseException) -> str:
    """'ValueError: the first line of its message', for the "end" record."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}".removesuffix(": ")


def accused(error: BaseException) -> Sequence[int]:
    """The ranks that an error names; of late ones those that failed by themselves."""
    ranks: Sequence[int] = getattr(error, "certain", getattr(error, "ranks", ()))
    return ranks


class _Hook:
    """Python's hook for exceptions that no code catches, after the ledgers were told."""

    def __init__(self, following: Any) -> None:
        self._following = following

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        try:
            end_all(first_line(error), accused(error))
        finally:
            self._following(kind, error, trace)


def _at_exit() -> None:
    end_all()
