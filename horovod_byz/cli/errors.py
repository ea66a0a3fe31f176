"""Exit codes of the `horovod-byz` command: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from horovod_byz.collect import TransportError
from horovod_byz.common.errors import ExplainedError
from horovod_byz.host import launchers

__all__ = ["explained", "leave"]


@contextmanager
def explained(events: bool = False) -> Iterator[None]:
    """Shows an expected error as one message and ends with an exit code: 1, or 2 for wrong usage.

    Args:
        events: whether to write the message as an event for a parent process.
    """
    try:
        yield
    except (ExplainedError, TransportError) as error:
        _fail(str(error), getattr(error, "code", 1), events)
    except ValueError as error:
        _fail(str(error), 2, events)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        remedy = "check the name, its rights and the room on its disk"
        _fail(f"{place}{error.strerror or error}: {remedy}", 1, events)
    except KeyboardInterrupt:
        leave(130)


def _fail(message: str, code: int, events: bool) -> NoReturn:
    if events:
        from horovod_byz.training.progress import Events

        Events().error(message, code)
    else:
        typer.secho(f"horovod-byz: {message}", err=True, fg=typer.colors.RED)
    leave(code)


def leave(code: int) -> NoReturn:
    """Ends this process at once: if ranks are missing, Horovod's own shutdown would wait for them."""
    if launchers.launched().size == 1:
        raise typer.Exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
