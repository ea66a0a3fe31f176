"""Exit codes of the `horovod-byz` command: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C.

`report` has its own: 1 for wrong usage too, as 2 says that it names a culprit.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from horovod_byz.collect import TransportError
from horovod_byz.common.errors import ExplainedError
from horovod_byz.common.registry import imported
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
        _fail(f"{_own_line(error)}{error}", 2, events)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        remedy = "check the name, its rights and the room on its disk"
        _fail(f"{_own_line(error)}{place}{error.strerror or error}: {remedy}", 1, events)
    except SystemExit as error:
        line = _own_line(error)
        if not line:  # the end that argparse asks for
            raise
        _fail(f"{line}sys.exit({error.code!r}) in the middle of a run: raise an error there", 1, events)
    except KeyboardInterrupt:
        leave(130)
    except Exception as error:
        line = _own_line(error)
        if not events or not line:
            raise
        # The parent shows an event alone; a rank's traceback it would show under the launcher's own.
        _fail(f"{line}{type(error).__name__}: {error}", 1, events)


def _own_line(error: BaseException) -> str:
    """Where a user's own rule, attack, model or data set raised it, "FILE, line 3: "; empty if none did."""
    modules = {origin["module"] for origin in imported().values()}
    own = [
        (frame.f_code.co_filename, number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") in modules
    ]
    return "{}, line {}: ".format(*own[-1]) if own else ""


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
