"""The parameters of a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from horovod_byz.collect import layout
from horovod_byz.collect.compression import Compression, Uncompressed
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.protocol import Transport

_DTYPES = ("float32", "float64")


@dataclass(frozen=True, eq=False)
class Job:
    """The parameters of a session; equal on all ranks except for transport, threads and start.

    Attributes:
        transport: the ranks.
        d: number of coordinates.
        dtype: float32 or float64.
        local_workers: number of logical workers on every rank, or a tuple or `Layout` of each rank's number.
            A rank never learns the others' numbers from their announcements.
        threads: threads for kernels and digests; the result does not depend on it.
        shared: text that all ranks must share, such as the names and shapes of the parameters.
        compression: how rows are packed for sending; default not at all.
        segments: the coordinate after each tensor's last, or None; see `Collector.bind`.
        start: proposed number of the first step; ranks may differ.

    Raises:
        TypeError, ValueError: if the dtype is another, d is negative, or the numbers of workers are invalid.
    """

    transport: Transport
    d: int
    dtype: Any
    local_workers: int | Sequence[int] | Layout = 1
    threads: int = 1
    shared: str = ""
    compression: Compression = field(default_factory=Uncompressed)
    segments: tuple[int, ...] | None = None
    start: int = 0

    def __post_init__(self) -> None:
        if np.dtype(self.dtype).name not in _DTYPES or self.d < 0:
            raise ValueError(
                f"bind needs float32 or float64 and d >= 0, got {np.dtype(self.dtype)} and {self.d}"
            )
        _ = self.layout  # raises now if the numbers of workers are invalid

    @property
    def layout(self) -> Layout:
        """The workers of every rank, by this rank's configuration."""
        return layout.agreed(self.local_workers, self.transport.size)
