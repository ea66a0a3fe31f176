"""Files that are written whole or not at all, and the error of a folder that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

from horovod_byz.common.errors import ExplainedError

__all__ = ["RunError", "replace_file", "sweep"]


class RunError(ExplainedError, RuntimeError):
    """A run folder that cannot be used as asked; the message says what to do."""


def replace_file(path: Path, content: bytes, previous: Path | None = None) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part.

    The content goes to a temporary file beside `path`, to the disk, and then takes the name.

    Args:
        path: the file.
        content: its new content.
        previous: the name that the old file gets; None to replace it.

    Raises:
        RunError: when the disk is full, or the folder is missing, read-only or no folder. The old content is
            still there, and no temporary file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            if previous is not None and path.exists():
                path.replace(previous)
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)  # after a failure, Ctrl-C included; else it has its name
    except OSError as error:
        raise RunError(
            f"cannot write {path} ({error.strerror}): make room there or make it writable, or choose another "
            "folder; what was written before is unchanged"
        ) from error


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left; call it where nobody else writes."""
    for path in folder.glob(".*.tmp"):
        if path.is_file():
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk too; some network file systems cannot, and need not."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # a folder that may be written but not listed
        return
    try:
        os.fsync(handle)
    except OSError:  # EINVAL: the file system syncs no folders
        pass
    finally:
        os.close(handle)
