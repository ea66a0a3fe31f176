"""A run folder for one process alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from horovod_byz.common.atomic import RunError

__all__ = ["alone"]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make the folder, and hold it for this process alone; its end in any way lets go of it.

    Raises:
        RunError: when another process writes a run there, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RunError(
            f"{folder} cannot be used as a run folder ({error.strerror}): choose another folder with --out"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"another process writes its run into {folder}: wait for its end, or choose another folder "
                "with --out"
            ) from error
        except OSError:  # a file system that locks no folders: nobody can be kept out
            pass
        yield
    finally:
        os.close(handle)
        with suppress(OSError):  # a folder that nothing was written to goes again
            folder.rmdir()
