"""Says why, before the launcher's SIGTERM ends this process.

When a rank fails, the launcher ends all others with SIGTERM a moment later (torchrun within 0.1 s), often
before their errors have named that rank. So the signal first asks the watchdog which ranks are known to have
failed, prints that, and tells whoever asked, such as the ledger; then the process ends by the signal, as it
would have. A process that is about to name the late ranks goes on until it has.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Protocol

from horovod_byz.collect import departure

__all__ = ["REASON", "watch", "when_terminated"]

REASON = "it was ended by SIGTERM"
# Seconds after SIGTERM in which the main thread must come back from C++, such as from a user's barrier.
_STUCK = 5.0
# Seconds between the error that names the late ranks and the end of the process. torchrun kills after 30 s.
_EXIT = 10.0
_CODE = 128 + signal.SIGTERM


class Listener(Protocol):
    """Hears why this process ends, and which ranks that names."""

    def __call__(self, reason: str, ranks: Sequence[int] = ()) -> None: ...


class _Process:
    """The state of this process."""

    owner: int = 0  # process id; 0 before `watch`
    wakes = -1  # our descriptor, to which signals are written
    forking = threading.local()  # its mask: the signals that the thread blocked which now forks
    handled = threading.Event()
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
        signal.signal(signal.SIGTERM, _handle)
        if _Process.owner != os.getpid():
            if not _Process.owner:
                os.register_at_fork(
                    before=_hold, after_in_parent=_release, after_in_child=_leave_to_the_child
                )
            _Process.owner = os.getpid()
            _watch_from_a_thread()


def _hold() -> None:
    """Lets SIGTERM wait while a process is forked: the child would write it to this rank's descriptor, and
    Python would forget it there."""
    _Process.forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _Process.forking.mask)


def _leave_to_the_child() -> None:
    """In a forked process, such as a loader's: it is no rank, so the signal ends it as any process."""
    before = signal.set_wakeup_fd(-1)
    if before != _Process.wakes:  # another library's, such as asyncio's
        signal.set_wakeup_fd(before)
    if signal.getsignal(signal.SIGTERM) is _handle:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release()


def _handle(number: int, frame: FrameType | None) -> None:
    _Process.handled.set()
    speaker = departure.current()
    if os.getpid() == _Process.owner:  # a forked process, such as a loader's, is not a rank
        if speaker is not None and speaker.inquiring:
            seconds = speaker.grace + _EXIT
            threading.Thread(target=_end_after, args=(seconds,), name="horovod_byz exit", daemon=True).start()
            return
        try:
            _speak()
        finally:
            _end(number)
    _end(number)


def _end(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _end_after(seconds: float) -> None:
    time.sleep(seconds)
    os._exit(_CODE)


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


def _watch_from_a_thread() -> None:
    """Announces SIGTERM at once, even if the main thread is in C++, and ends the process if it stays there.

    Python runs a signal's handler only once the main thread is back in Python, but writes the signal's number
    to a descriptor at once.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    if before != -1:  # another library, such as asyncio, needs it
        signal.set_wakeup_fd(before)
        return
    _Process.wakes = writing.fileno()
    thread = threading.Thread(
        target=_announce, args=(reading, writing), name="horovod_byz SIGTERM", daemon=True
    )
    thread.start()


def _announce(reading: socket.socket, writing: socket.socket) -> None:
    # `writing` is only referenced, or it would be closed.
    while signal.SIGTERM not in reading.recv(64) or signal.getsignal(signal.SIGTERM) is not _handle:
        pass  # another signal, or a handler that the script has set since, which decides what follows
    speaker = departure.current()
    if speaker is not None:
        speaker.survive(REASON)
    if not _Process.handled.wait(_STUCK):
        os._exit(_CODE)
