"""Checkpoints of a user's script: sealed by a digest, written whole or not at all, the last two kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from horovod_byz.common import sealed
from horovod_byz.common.sealed import CheckpointError

__all__ = ["CheckpointError", "load_checkpoint", "save_checkpoint"]

# What `torch.load(weights_only=True)` gives back without loading code. Exactly these types: numpy.float64 is
# a float, and an enumeration's member an int, that need their class.
_PLAIN = (bool, int, float, str, bytes, type(None), torch.Size, torch.dtype, torch.device)
_KEYS = (bool, int, float, str, bytes, tuple)
_TENSORS = (torch.Tensor, torch.nn.Parameter)


def save_checkpoint(state: Mapping[str, Any], path: str | PathLike[str]) -> None:
    """Writes a checkpoint; call it on one rank.

    The file goes to the disk under a temporary name and then takes its own, so that a crash leaves the old
    checkpoint or the new. The old becomes `NAME.previous.SUFFIX`, unless it is damaged. The file carries a
    BLAKE3 digest; `torch.load(path, weights_only=True)` reads it too.

        hb.save_checkpoint({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "run.pt")

    Args:
        state: tensors, numbers and texts, in dicts, lists and tuples.
        path: the file.

    Raises:
        TypeError: if `state` holds anything else, which could not be loaded without running its code.
        RunError: if the file cannot be written; what was there is unchanged.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a dict, got {type(state).__name__}")
    _check_plain(dict(state), "state")
    sealed.write(Path(path), state)


def load_checkpoint(path: str | PathLike[str]) -> dict[str, Any]:
    """Reads a checkpoint of `save_checkpoint`, on the CPU. Nothing of it is executed, and no part is trusted
    before the digest of the whole was checked.

    Args:
        path: the file.

    Raises:
        CheckpointError: if it is damaged, cut short or no checkpoint; the message names the checkpoint before
            it, if that one is whole.
        FileNotFoundError: if there is neither.
    """
    file = Path(path)
    before = sealed.previous_of(file)
    try:
        content = sealed.read(file)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. {_remedy(before)}") from error
    if content is not None:
        return content[0]
    if before.is_file():  # a crash between the two renames
        raise CheckpointError(f"{file} is missing. {_remedy(before)}")
    raise FileNotFoundError(f"there is no checkpoint {file}")


def _remedy(before: Path) -> str:
    try:
        whole = sealed.read(before) is not None
    except CheckpointError as error:
        return f"The checkpoint before it is no help either: {error}"
    if not whole:
        return "There is none before it: restore a copy, or start anew"
    return f'The checkpoint before it is whole: hb.load_checkpoint("{before}")'


def _check_plain(value: Any, where: str) -> None:
    kind = type(value)
    if kind in (dict, OrderedDict):
        for key, item in value.items():
            if type(key) not in _KEYS:
                raise TypeError(f"{where} has a key of type {type(key).__name__}: use numbers and texts")
            _check_plain(item, f"{where}[{key!r}]")
    elif kind in (list, tuple):
        for i, item in enumerate(value):
            _check_plain(item, f"{where}[{i}]")
    elif kind not in _PLAIN and kind not in _TENSORS:
        raise TypeError(
            f"{where} is a {kind.__name__}: a checkpoint holds tensors, numbers and texts only, since "
            "loading anything else runs code; convert it, such as by float(...)"
        )
