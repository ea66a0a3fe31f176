"""Life and death of this rank: it gives signs of life, says when it leaves, and does leave.

Under MPI a rank that others wait for could keep them from leaving for ever.
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

# Where the shutdown of Horovod stands.
_BASICS = str(pathlib.Path("horovod", "common", "basics.py"))


class Speaker(Protocol):
    """What announces this rank: the watchdog of a session.

    Attributes:
        interval: seconds between its announcements.
        over: whether it said last that this rank gave up or leaves.
    """

    interval: float

    @property
    def over(self) -> bool: ...

    def live(self) -> None:
        """Announces a sign of life."""

    def survive(self) -> None:
        """Announces that this rank is there, though the job ended."""

    def leave(self, reason: str) -> None:
        """Announces that this rank leaves the job."""


class _Process:
    """The state of this process."""

    current: Speaker | None = None
    exit_is_bounded = False
    pulse: int | None = None  # the process whose thread it is; a forked one has none


def speaks(speaker: Speaker) -> None:
    """Notes who announces this rank when it leaves."""
    _Process.current = speaker


def current() -> Speaker | None:
    """Who announced this rank last."""
    return _Process.current


def is_over() -> bool:
    """Whether this process said last that it gave up or leaves."""
    return _Process.current is not None and _Process.current.over


def watch() -> None:
    """Has this rank say that it leaves when the interpreter ends, before Horovod shuts down.

    Functions run at exit in the reverse order of their registration, and `hvd.init()` registers Horovod's;
    so call it after each `hvd.init()`.
    """
    atexit.unregister(_leave)
    atexit.register(_leave, os.getpid())


def give_signs_of_life() -> None:
    """Starts the thread that announces this rank again and again, whatever it computes meanwhile.

    When a rank dies, Horovod stops on all ranks at once, and one that computes sees it at its next wait only.
    Its signs of life show the others that it is not the dead one.
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
    """Whether a thread of this process is inside `hvd.shutdown()`."""
    for frame in sys._current_frames().values():
        inner = frame
        while inner is not None:
            if inner.f_code.co_name == "shutdown" and inner.f_code.co_filename.endswith(_BASICS):
                return True
            inner = inner.f_back  # type: ignore[assignment]
    return False


def bound_exit(error: Exception) -> None:
    """From now on this process ends at the latest `EXIT_SECONDS` after it began to shut Horovod down.

    Without it a rank that has named a stopped one would wait for it in MPI_Finalize for ever. The exit code
    is 1: an exit with the error's own code needs the interpreter, which waits there.
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
    if speaker is not None and os.getpid() == process:  # a forked process is no rank
        error = getattr(sys, "last_value", None)
        first = (str(error).strip().splitlines() or [""])[0]
        ended = "its script ended; do all ranks take the same number of steps?"
        speaker.leave(ended if error is None else f"{type(error).__name__}: {first}")
