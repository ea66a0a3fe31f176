"""Shows how a run comes along: a bar on a terminal, lines elsewhere, or events for another process."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["EVENT", "Bars", "Events", "Lines", "Reporter", "Silent", "choose", "parse_event"]

EVENT = "@horovod-byz "  # how a line of `Events` begins
_SECONDS = 0.2  # between two updates
_WIDE, _NARROW = 122, 78  # columns that everything needs, and that a short form needs


class Reporter(Protocol):
    """Shows the progress of one run after another."""

    def start(self, title: str, total: int, done: int) -> None:
        """A run begins at step `done` of `total`."""

    def update(self, step: int, values: Mapping[str, float | None]) -> None:
        """The run is at `step`; `values` has any of loss, accuracy and steps_per_second."""

    def note(self, text: str) -> None:
        """Something the user should read."""


class Silent:
    """Shows nothing: ranks other than the first, and tests."""

    def start(self, title: str, total: int, done: int) -> None:
        pass

    def update(self, step: int, values: Mapping[str, float | None]) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def _describe(values: Mapping[str, float | None], short: bool = False) -> str:
    loss, accuracy, speed = (values.get(name) for name in ("loss", "accuracy", "steps_per_second"))
    if short:
        parts = [
            f"loss {loss:.3g}" if loss is not None else "loss inf",
            f"acc {100 * accuracy:.1f} %" if accuracy is not None else "",
        ]
        return " ".join(filter(None, parts))
    parts = [
        f"loss {loss:7.4g}" if loss is not None else "loss     inf",
        f"accuracy {100 * accuracy:5.1f} %" if accuracy is not None else "",
        f"{speed:5.1f} steps/s" if speed is not None else "",
    ]
    return "  ".join(filter(None, parts))


class Bars:
    """One live bar per run, on a terminal; to be used as a context manager.

    On a narrow terminal title and bar shrink, then go; steps, steps per second and the time left stay.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console if console is not None else Console()
        steps, left = TextColumn("{task.completed:>5.0f}/{task.total:.0f}"), TimeRemainingColumn(compact=True)
        values = TextColumn("{task.fields[values]}")
        self._short = console.width < _WIDE
        title = TextColumn(f"{{task.fields[title]:<22.{max(console.width - 100, 1)}}}")
        columns: tuple[ProgressColumn, ...] = (title, BarColumn(24), steps, values, left)
        if self._short:
            speed = TextColumn("{task.fields[speed]}")
            columns = (steps, speed, left)
            if console.width >= _NARROW:
                most = 12 + max(console.width - 80, 0)
                title = TextColumn(f"{{task.fields[title]:.{most}}}")
                columns = (title, BarColumn(5), steps, values, speed, left)
        self._progress = Progress(*columns, console=console)
        self._task: TaskID | None = None

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, title: str, total: int, done: int) -> None:
        self._task = self._progress.add_task(
            "", total=total, completed=done, title=title, values="", speed=""
        )

    def update(self, step: int, values: Mapping[str, float | None]) -> None:
        if self._task is not None:
            speed = values.get("steps_per_second")
            self._progress.update(
                self._task,
                completed=step,
                values=_describe(values, self._short),
                speed="" if speed is None else f"{speed:.1f} steps/s",
            )

    def note(self, text: str) -> None:
        self._progress.console.print(text, highlight=False)


class Lines:
    """One plain line now and then, for logs and for launchers that pass output on line by line."""

    def __init__(self, stream: IO[str] | None = None, seconds: float = 2.0) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._seconds, self._last, self._total = seconds, 0.0, 0

    def start(self, title: str, total: int, done: int) -> None:
        self._total, self._last = total, time.monotonic()
        self.note(f"{title}: {total} steps" + (f", going on from step {done}" if done else ""))

    def update(self, step: int, values: Mapping[str, float | None]) -> None:
        now = time.monotonic()
        if now - self._last >= self._seconds or step == self._total:
            self._last = now
            filled = 20 * step // max(self._total, 1)
            self.note(f"[{'#' * filled}{'.' * (20 - filled)}] {step:>5}/{self._total}  {_describe(values)}")

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Events:
    """JSON events on standard output, which a parent process turns back into bars with `replay`."""

    def __init__(self) -> None:
        self._last = 0.0

    def start(self, title: str, total: int, done: int) -> None:
        self._send(kind="start", title=title, total=total, done=done)

    def update(self, step: int, values: Mapping[str, float | None]) -> None:
        now = time.monotonic()
        if now - self._last >= _SECONDS or "accuracy" in values:
            self._last = now
            self._send(kind="update", step=step, values=dict(values))

    def note(self, text: str) -> None:
        self._send(kind="note", text=text)

    def error(self, text: str, code: int) -> None:
        """Why this rank ends, and its exit code."""
        self._send(kind="error", text=text, code=code)

    def _send(self, **event: Any) -> None:
        print(EVENT + json.dumps(event), flush=True)


def parse_event(line: str) -> dict[str, Any] | None:
    """The event in a line of output, which a launcher may have put a prefix before; None if there is none."""
    _, mark, text = line.partition(EVENT)
    if not mark:
        return None
    try:
        event: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:
        return None
    return event


def replay(event: Mapping[str, Any], reporter: Reporter) -> None:
    """Show an event; an error is the launcher's to raise."""
    if event["kind"] == "start":
        reporter.start(event["title"], event["total"], event["done"])
    elif event["kind"] == "update":
        reporter.update(event["step"], event["values"])
    elif event["kind"] == "note":
        reporter.note(event["text"])


def choose(stream: IO[str] | None = None) -> Bars | Lines:
    """Bars where the output is a terminal, lines elsewhere."""
    stream = stream if stream is not None else sys.stdout
    return Bars(Console(file=stream)) if stream.isatty() else Lines(stream)
