"""SIGTERM in a job of torch.distributed: announced, and postponed until the late ranks are named.

When a worker dies, torchrun ends the others by SIGTERM within about 0.1 s. Without this module they would
end before they could name the dead rank, and a rank that was ended while it computed would be taken for dead.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from types import FrameType

from horovod_byz.collect import departure

REASON = "it was ended by SIGTERM"
# Seconds after SIGTERM in which the main thread must come back from C++, such as from a user's barrier.
_STUCK = 5.0
# Seconds between the error that names the late ranks and the end of the process. torchrun kills after 30 s.
_EXIT = 10.0
_CODE = 128 + signal.SIGTERM


class _Process:
    """The state of this process."""

    owner = 0  # process id; 0 before `watch`
    handled = threading.Event()


def watch() -> None:
    """Handles SIGTERM from now on, unless the script or another library does already."""
    is_main = threading.current_thread() is threading.main_thread()
    if _Process.owner or not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    _Process.owner = os.getpid()
    signal.signal(signal.SIGTERM, _handle)
    _watch_from_a_thread()


def _handle(number: int, frame: FrameType | None) -> None:
    _Process.handled.set()
    speaker = departure.current()
    if speaker is not None and os.getpid() == _Process.owner:  # not a loader's forked process
        speaker.survive(REASON)
        if speaker.inquiring:
            seconds = speaker.grace + _EXIT
            threading.Thread(target=_end_after, args=(seconds,), name="horovod_byz exit", daemon=True).start()
            return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _end_after(seconds: float) -> None:
    time.sleep(seconds)
    os._exit(_CODE)


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

    thread = threading.Thread(
        target=_announce, args=(reading, writing), name="horovod_byz SIGTERM", daemon=True
    )
    thread.start()


def _announce(reading: socket.socket, writing: socket.socket) -> None:
    # `writing` is only referenced, or it would be closed.
    while signal.SIGTERM not in reading.recv(64):
        pass
    speaker = departure.current()
    if speaker is not None:
        speaker.survive(REASON)
    if not _Process.handled.wait(_STUCK):
        os._exit(_CODE)
