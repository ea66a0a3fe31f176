"""Follows a run that is going on: shows the report anew when the ledger's files grow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from horovod_byz.ledger.history import files, read
from horovod_byz.ledger.report.overview import Overview, overview
from horovod_byz.ledger.report.screen import screen

__all__ = ["follow"]

_EVERY = 1.0  # seconds between looks


def follow(path: Path, console: Console, sleep: Callable[[float], None] = time.sleep) -> None:
    """Shows a run until it ends, or until Ctrl-C; returns then.

    A folder without a ledger is waited for: a run writes its file when its ranks have agreed.

    Args:
        path: the ledger's folder or file.
        console: a terminal gets a display that is replaced; anything else a line when the conclusion changes.
        sleep: waits between two looks.

    Raises:
        LedgerFileError: if a file is no ledger's.
    """
    terminal = console.is_terminal
    said, sizes, shown = "", None, None
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            now = [(file, file.stat().st_size) for file in files(path)]
            if now and now != sizes:
                shown, sizes = overview(read(path)), now
            if terminal:
                live.update(_group(path, shown), refresh=True)
            elif shown is not None and shown.conclusion.line != said:
                said = shown.conclusion.line
                console.print(Text(said), soft_wrap=True)
                sys.stdout.flush()
            if shown is not None and shown.state != "open":
                return
            sleep(_EVERY)


def _group(path: Path, shown: Overview | None) -> Group | Text:
    if shown is None:
        return Text(f"waiting for a ledger in {path}; Ctrl-C ends this")
    age = time.time() - (shown.history.written or time.time())
    return Group(*screen(shown), Text(f"last written {age:.0f} s ago; Ctrl-C ends this", "dim"))
