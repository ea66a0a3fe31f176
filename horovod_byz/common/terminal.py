"""The console that tables are printed to."""

from __future__ import annotations

from rich.console import Console

__all__ = ["console"]

_WIDTH = 120


def console() -> Console:
    """As wide as the terminal; a file or a pipe has no width of its own, and gets a width that tables fit."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=max(screen.width, _WIDTH))
