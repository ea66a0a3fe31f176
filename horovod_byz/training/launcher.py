"""Starts a command on several ranks of this machine and shows their progress here, where the terminal is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from horovod_byz.common.errors import ExplainedError
from horovod_byz.training.following import lines, stopping
from horovod_byz.training.progress import Reporter, parse_event, replay

__all__ = ["LaunchError", "horovod_missing", "run_ranks"]

_KEPT = 40  # lines of other output that an error message repeats


class LaunchError(ExplainedError, RuntimeError):
    """The ranks could not be started, or ended with an error.

    Attributes:
        code: the exit code that the ranks asked for: 1 for an error, 2 for wrong usage.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def _horovodrun() -> str | None:
    beside = Path(sys.executable).with_name("horovodrun")
    return str(beside) if beside.is_file() else shutil.which("horovodrun")


def horovod_missing() -> str | None:
    """Why ranks cannot be started here; None where they can."""
    try:
        import horovod.torch as hvd
    except (ImportError, OSError) as error:
        return f"Horovod cannot be imported ({error})"
    if _horovodrun() is None:
        return "horovodrun is not on PATH"
    if not hvd.gloo_built():
        return "Horovod was built without Gloo"
    return None


def run_ranks(count: int, command: Sequence[str], reporter: Reporter) -> None:
    """Run `python command...` on `count` ranks of this machine by horovodrun, over Gloo.

    Progress events (`progress.Events`) are shown by `reporter`. Where ranks say in an event why they end,
    that is the error message; else it ends with the last lines of other output.

    Raises:
        LaunchError: when a rank fails.
        KeyboardInterrupt: after Ctrl-C, once the ranks have ended.
    """
    launcher = _horovodrun()
    if launcher is None:
        raise LaunchError("horovodrun was not found: run make setup, or horovod-byz doctor for details")
    arguments = [launcher, "--gloo", "-np", str(count), sys.executable, *command]
    kept: deque[str] = deque(maxlen=_KEPT)
    errors: list[dict[str, Any]] = []
    with (
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
        stopping(process),
    ):
        try:
            _follow(lines(process), kept, errors, reporter)
        except KeyboardInterrupt:
            # The terminal sent the signal to horovodrun too, which passes it on; read until it ends.
            _follow(lines(process), kept, errors, reporter)
            process.wait()
            raise
    if errors:
        raise LaunchError(
            _joined([error["text"] for error in errors]), max(error["code"] for error in errors)
        )
    if process.returncode:
        raise LaunchError(f"a rank failed (exit code {process.returncode}):\n" + "\n".join(kept))


def _follow(
    stream: Iterable[str], kept: deque[str], errors: list[dict[str, Any]], reporter: Reporter
) -> None:
    for line in stream:
        event = parse_event(line)
        if event is None:
            kept.append(line.rstrip())
        elif event["kind"] == "error":
            errors.append(event)
        else:
            replay(event, reporter)


def _joined(texts: Sequence[str]) -> str:
    """Each error once: the ranks that did not fail repeat the failing one's, as "rank 1: ..."."""
    distinct = list(dict.fromkeys(texts))
    return "\n".join(
        text for text in distinct if not any(text != other and text.endswith(other) for other in distinct)
    )
