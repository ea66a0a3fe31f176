"""Where the ranks run: each sends its host and device to all others when they bind.

The record has a fixed size and travels directly, with the check of the headers. What it holds comes from a
peer: a reader keeps the characters of names only, so that a name is never markup, and cannot close the
brackets that an error puts around it. A lying rank may still give another host's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.collect import process
from horovod_byz.collect.layout import Layout
from horovod_byz.host.place import Place, describe, host_name

Bytes = npt.NDArray[np.uint8]

_RECORD = np.dtype([("host", "S64"), ("device", "S96"), ("local_rank", "<i4")])
SIZE = _RECORD.itemsize
_NO_NAME = re.compile(r"[^A-Za-z0-9 ._:/+-]")


class _Process:
    """What this process computes on, for all of its sessions."""

    device = "cpu"


def runs_on(tensors: Iterable[Any]) -> None:
    """Sets the device of this process: that of the first tensor that is not on the CPU, or else the CPU."""
    devices = [tensor.device for tensor in tensors]
    _Process.device = next((describe(device) for device in devices if device.type != "cpu"), "cpu")


def own() -> Bytes:
    """This rank's record, `SIZE` bytes."""
    return pack(host_name(), _Process.device, process.local_rank())


def pack(host: str, device: str, local_rank: int) -> Bytes:
    """A record; long names are cut."""
    record = np.zeros((), _RECORD)
    record["host"], record["device"] = clean(host).encode(), clean(device).encode()
    record["local_rank"] = local_rank
    return np.frombuffer(record.tobytes(), np.uint8)


def unpack(data: Bytes, layout: Layout) -> tuple[Place, ...]:
    """Reads the ranks' records, `(size, SIZE)`; any bytes give names."""
    return tuple(_place(rank, row.tobytes(), layout.workers(rank)) for rank, row in enumerate(data))


def clean(name: str) -> str:
    """The name with "?" for all but letters, digits, blanks and . _ : / + -; "?" for an empty one."""
    return _NO_NAME.sub("?", name).strip() or "?"


def _place(rank: int, data: bytes, workers: Sequence[int]) -> Place:
    record = np.frombuffer(data, _RECORD)[0]
    host, device = (clean(bytes(record[name]).decode("latin-1")) for name in ("host", "device"))
    return Place(rank, tuple(workers), host, max(0, int(record["local_rank"])), device)
