"""Says why, before the launcher's SIGTERM ends this process.

When a rank fails, the launcher ends all others with SIGTERM a moment later, often before their errors have
named that rank. So the signal first asks the watchdog which ranks are known to have failed, prints that, and
tells whoever asked, such as the ledger; then the process ends by the signal, as it would have.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Protocol

from horovod_byz.collect import departure

__all__ = ["watch", "when_terminated"]


class Listener(Protocol):
    """Hears why this process ends, and which ranks that names."""

    def __call__(self, reason: str, ranks: Sequence[int] = ()) -> None: ...


class _Process:
    """The state of this process."""

    owner: int | None = None
    listeners: list[Listener] = []  # noqa: RUF012 - the one list of this process


def when_terminated(listener: Listener) -> None:
    """Tells a function when the launcher ends this process; the same one once."""
    if listener not in _Process.listeners:
        _Process.listeners.append(listener)


def watch() -> None:
    """Handles SIGTERM, unless the script does, or this is not the main thread, where Python allows none."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        _Process.owner = os.getpid()
        signal.signal(signal.SIGTERM, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    try:
        if os.getpid() == _Process.owner:  # a forked process, such as a loader's, is not a rank
            _speak()
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _speak() -> None:
    speaker = departure.current()
    if speaker is None:
        return
    reason, ranks = speaker.last_words()
    listeners: list[Callable[..., None]] = list(_Process.listeners)
    try:
        if ranks:
            print(f"horovod_byz: {reason}", file=sys.stderr, flush=True)
    finally:
        for listener in listeners:
            listener(f"Terminated: {reason}", ranks)
