"""Where a rank runs: what errors, verdicts and reports name, so that an operator finds the machine."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Place"]


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

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} (local rank {self.local_rank}, {self.device})"
