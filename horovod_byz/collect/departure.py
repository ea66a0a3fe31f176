"""Announces that this process lives or leaves the job, and bounds the time that leaving takes.

Under MPI, MPI_Finalize waits for every rank, so a stopped rank could keep the others from exiting for ever.
"""

from __future__ import annotations

import atexit
import os
import pathlib
import sys
import threading
import time
from typing import Protocol

# How long `hvd.shutdown()` may take under MPI once a rank was late: MPI_Finalize has no time-out.
EXIT_SECONDS = 10.0

# The file that defines `hvd.shutdown`; see `shutting_down`.
_BASICS = str(pathlib.Path("horovod", "common", "basics.py"))


class Speaker(Protocol):
    """The object that announces this rank: the watchdog of a session.

    Attributes:
        interval: seconds between announcements.
        over: whether its last announcement was that this rank gave up or leaves.
        grace: seconds that it may look for the late ranks.
        inquiring: whether it now looks for them, or has named them.
    """

    interval: float
    grace: float
    inquiring: bool

    @property
    def over(self) -> bool: ...

    def live(self) -> None:
        """Announces a sign of life."""

    def survive(self, reason: str = "") -> None:
        """Announces that this rank still runs although the job ended, or why it ends with it."""

    def leave(self, reason: str) -> None:
        """Announces that this rank leaves the job."""

    def last_words(self) -> tuple[str, tuple[int, ...]]:
        """Says, when the launcher ends this process, why, and which ranks are known to have failed."""


class _Process:
    """The state of this process."""

    current: Speaker | None = None
    exit_is_bounded = False
    pulse: int | None = None  # process id of the thread's owner: threads do not survive a fork


def speaks(speaker: Speaker) -> None:
    """Sets the speaker that announces this rank when it leaves."""
    _Process.current = speaker


def current() -> Speaker | None:
    """The speaker of the last announcement."""
    return _Process.current


def is_over() -> bool:
    """Whether the last announcement of this process was that it gave up or leaves."""
    return _Process.current is not None and _Process.current.over


def watch() -> None:
    """Announces at interpreter exit, before Horovod shuts down, that this rank leaves.

    Functions run at exit in the reverse order of their registration, and `hvd.init()` registers Horovod's;
    so call it after each `hvd.init()`.
    """
    atexit.unregister(_leave)
    atexit.register(_leave, os.getpid())


def give_signs_of_life() -> None:
    """Starts the thread that announces this rank at regular intervals while it computes.

    When a rank dies, Horovod stops on all ranks at once, but a computing rank notices that only at its next
    wait. Its signs of life show that it is not the dead rank.
    """
    if _Process.pulse != os.getpid():
        _Process.pulse = os.getpid()
        threading.Thread(target=_pulse, name="horovod_byz signs of life", daemon=True).start()


def _pulse() -> None:
    while True:
        pause = 1.0
        if _Process.current is not None:
            pause = _Process.current.interval
            _Process.current.live()
        time.sleep(pause)


def shutting_down() -> bool:
    """Whether a thread of this process is inside `hvd.shutdown()`; Horovod has no flag for it."""
    for frame in sys._current_frames().values():
        inner = frame
        while inner is not None:
            if inner.f_code.co_name == "shutdown" and inner.f_code.co_filename.endswith(_BASICS):
                return True
            inner = inner.f_back  # type: ignore[assignment]
    return False


def bound_exit(error: Exception) -> None:
    """Ends this process at the latest `EXIT_SECONDS` after it begins to shut Horovod down.

    Otherwise a rank that has named a stopped rank would wait for it in MPI_Finalize for ever. The exit code
    is 1: the error's own code would need the interpreter, which is blocked there.
    """
    if not _Process.exit_is_bounded:
        _Process.exit_is_bounded = True
        threading.Thread(target=_end, args=(str(error),), name="horovod_byz exit", daemon=True).start()


def _end(error: str) -> None:
    while not shutting_down():
        time.sleep(0.2)
    time.sleep(EXIT_SECONDS)
    why = f"MPI did not end within {EXIT_SECONDS:.0f} s, so this process ends without it"
    print(f"horovod_byz: {why}: {error}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)


def _leave(process: int) -> None:
    speaker = current()
    if speaker is not None and os.getpid() == process:  # a forked process, such as a loader's, is not a rank
        error = getattr(sys, "last_value", None)
        first = (str(error).strip().splitlines() or [""])[0]
        ended = "its script ended; do all ranks take the same number of steps?"
        speaker.leave(ended if error is None else f"{type(error).__name__}: {first}")
