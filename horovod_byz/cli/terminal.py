"""The console that tables are printed to."""

from __future__ import annotations

from rich.console import Console

__all__ = ["console"]

_WIDTH = 120


def console() -> Console:
    """As wide as the terminal; a file or a pipe has no width of its own, and gets one that tables fit."""
    found = Console()
    return found if found.is_terminal else Console(width=max(found.width, _WIDTH))
