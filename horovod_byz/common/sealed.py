"""The checkpoint file: tensors and plain values behind a digest.

The file is what `torch.save` writes, a zip archive, with a seal in the place of the archive's comment:
`horovod-byz checkpoint 3 ` and the BLAKE3 digest, in hexadecimal, of every byte before it. So
`torch.load(path, weights_only=True)` reads it anywhere, and no bit of it can change unnoticed.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3

from horovod_byz.common.atomic import RunError, replace_file

__all__ = ["CheckpointError", "digest_of", "pack", "previous_of", "read", "sealed", "write"]

FORMAT = 3  # 2 held the parameters as one vector, and sums of verdicts
_MARK = f"horovod-byz checkpoint {FORMAT} ".encode()
_SEAL = re.compile(rb"horovod-byz checkpoint (\d{1,3}) ([0-9a-f]{64})\Z")
_HEX = 64
_LONGEST_SEAL = len(_MARK) + 2 + _HEX


class CheckpointError(RunError):
    """A checkpoint that no run may continue from; the message names the file and what is wrong with it."""


def pack(state: Mapping[str, Any]) -> bytes:
    """The content of a checkpoint file.

    Args:
        state: tensors, numbers and texts, in dicts and lists.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    archive = buffer.getvalue()
    # A zip archive ends with the length of its comment, here 0, and the comment.
    content = archive[:-2] + struct.pack("<H", len(_MARK) + _HEX) + _MARK
    return content + blake3(content).hexdigest().encode()


def sealed(content: bytes) -> bool:
    """Whether the content ends with the right digest of the rest."""
    seal = _SEAL.search(content[-_LONGEST_SEAL:])
    return seal is not None and blake3(content[:-_HEX]).hexdigest().encode() == seal[2]


def digest_of(content: bytes) -> str:
    """The digest that sealed content carries."""
    return content[-_HEX:].decode()


def read(path: Path) -> tuple[dict[str, Any], str] | None:
    """A checkpoint's state and digest; None where there is no such file. Code is never loaded.

    Raises:
        CheckpointError: when the file cannot be read, is empty, cut short or damaged, or is of another
            version.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
    if not content:
        raise CheckpointError(f"{path} is empty")
    seal = _SEAL.search(content[-_LONGEST_SEAL:])
    if seal is None:
        raise CheckpointError(f"{path} has no digest: it was cut short, or an earlier version wrote it")
    if not sealed(content):
        raise CheckpointError(f"{path} is damaged: its content does not have the digest that it carries")
    if int(seal[1]) != FORMAT:
        raise CheckpointError(
            f"{path} has format {int(seal[1])}, and this version reads format {FORMAT} only: continue with "
            "the version that run.json names"
        )
    try:
        state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a forged archive makes torch raise
        raise CheckpointError(f"{path} cannot be read as tensors and plain values") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not the state of a run")
    return state, digest_of(content)


def previous_of(path: Path) -> Path:
    """The name of the checkpoint before one: `checkpoint.previous.pt` of `checkpoint.pt`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all; the one before it, unless it is damaged, is kept beside it.

    Raises:
        RunError: when it cannot be written.
    """
    content = pack(state)
    kept = path.is_file() and sealed(path.read_bytes())
    replace_file(path, content, previous_of(path) if kept else None)
