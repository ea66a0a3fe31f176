"""The console that tables are printed to."""

from __future__ import annotations

from rich.console import Console

__all__ = ["console"]

_WIDTH = 120


def console() -> Console:
    """A console as wide as the terminal; for a file or a pipe, wide enough for the tables."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=max(screen.width, _WIDTH))
