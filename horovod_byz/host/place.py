"""Where a rank runs: what errors, verdicts and reports name, so that an operator finds the machine."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from typing import Any

__all__ = ["Place", "describe", "host_name"]

# Names under which a launcher knows this machine that tell nobody which machine it is.
_NAMELESS = ("", "localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Place:
    """Where a rank runs. The names come from that rank, and are data: they are never markup or a path.

    Attributes:
        rank: its Horovod rank.
        workers: the workers that it holds; none on a dedicated root.
        host: its host name, printable ASCII, at most 64 characters.
        local_rank: its number on its host.
        device: such as "cpu", or "cuda:2 NVIDIA H200 GPU-5d3f..." (index, name, UUID); likewise, at most 96.
    """

    rank: int
    workers: tuple[int, ...] = ()
    host: str = "?"
    local_rank: int = 0
    device: str = "cpu"

    @property
    def where(self) -> str:
        """The host, and the GPU where the rank has one: "host b, GPU 2"."""
        gpu = re.match(r"cuda:(\d+)", self.device)
        return f"host {self.host}" + (f", GPU {gpu[1]}" if gpu else "")

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} (local rank {self.local_rank}, {self.device})"


def host_name() -> str:
    """The name of this machine: the launcher's, which its list of hosts has, or else its own."""
    given = os.environ.get("HOROVOD_HOSTNAME", "")
    return socket.gethostname() if given.lower() in _NAMELESS else given


def describe(device: Any) -> str:
    """A torch device in words: "cpu", or "cuda:2 NVIDIA H200 GPU-5d3f...".

    The index is the one that `nvidia-smi` shows where CUDA_VISIBLE_DEVICES lists numbers: a rank that sees
    one GPU only calls it 0, whichever it is.

    Args:
        device: a `torch.device`.
    """
    if device.type != "cuda":
        return str(device.type)
    import torch

    index = torch.cuda.current_device() if device.index is None else device.index
    known = torch.cuda.get_device_properties(index)
    uuid = f" GPU-{known.uuid}" if hasattr(known, "uuid") else ""  # torch has it since 2.4
    return f"cuda:{_physical(index, os.environ.get('CUDA_VISIBLE_DEVICES', ''))} {known.name}{uuid}"


def _physical(index: int, visible: str) -> int:
    numbers = [word.strip() for word in visible.split(",")]
    return int(numbers[index]) if index < len(numbers) and numbers[index].isdecimal() else index
