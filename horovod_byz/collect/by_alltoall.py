"""The operations between one rank and all others, expressed by alltoall, which is direct."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from horovod_byz.collect.layout import Layout
from horovod_byz.collect.protocol import Array, pieces

# Elements per operation when the root sends the result to all ranks: 16 MiB of float32.
_HAND_OUT = 2**22


class ByAlltoall(ABC):
    """What a `Transport` can do by `alltoall`, which a subclass has with the attributes."""

    rank: int
    size: int
    most: int

    @abstractmethod
    def alltoall(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> None:
        """As `Transport.alltoall`."""

    def gather(self, rows: Array, out: Array | None, layout: Layout) -> None:
        """As `Transport.gather`."""
        d = rows.shape[1]
        # In pieces a received block is not a contiguous part of `out`, so it needs memory of its own.
        ranges = list(pieces(d, layout.n, self.most))
        for begin, end in ranges:
            width = end - begin
            splits = [rows.shape[0] * width] + [0] * (self.size - 1)
            expected = [k * width if self.rank == 0 else 0 for k in layout.rows]
            block = np.empty(0, rows.dtype) if out is None else out
            if out is not None and len(ranges) > 1:
                block = np.empty((layout.n, width), rows.dtype)
            send = np.ascontiguousarray(rows[:, begin:end]).reshape(-1)
            self.alltoall(send, splits, block.reshape(-1), expected, "gather to the root")
            if out is not None and len(ranges) > 1:
                out[:, begin:end] = block

    def hand_out(self, value: Array) -> None:
        """As `Transport.hand_out`."""
        # By alltoall, not broadcast, which relays; in steps, since the send buffer holds a copy for every
        # rank.
        step = max(1, _HAND_OUT // self.size)
        for begin in range(0, value.size, step):
            part = value[begin : begin + step]
            if self.rank == 0:
                splits = [0] + [part.size] * (self.size - 1)
                nothing = [0] * self.size
                self.alltoall(
                    np.tile(part, self.size - 1), splits, part[:0], nothing, "hand-out of the result"
                )
            else:
                from_root = [part.size] + [0] * (self.size - 1)
                self.alltoall(part[:0], [0] * self.size, part, from_root, "hand-out of the result")


def tensor_over(array: Array) -> torch.Tensor:
    """A tensor over the same memory; transports only read those that they send."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
