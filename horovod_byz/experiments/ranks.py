"""The ranks of a job as the training loop sees them: whose workers are here, and sums over ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from horovod_byz.collect import launchers
from horovod_byz.collect.layout import Layout, split
from horovod_byz.collect.transport import Transport, connect

__all__ = ["Ranks", "launched"]


def launched() -> int:
    """How many ranks the launcher started, by the environment it left; 1 without a launcher."""
    return launchers.launched().size


class Ranks:
    """All ranks of this job; a single one where nothing was launched, with or without Horovod installed.

    Args:
        timeout: seconds that one wait for the other ranks may take.

    Raises:
        RuntimeError: if a launcher started several ranks that do not know one another.
    """

    def __init__(self, timeout: float = 600.0) -> None:
        if launched() > 1:
            import horovod.torch as hvd

            if not hvd.is_initialized():
                hvd.init()
        self._transport: Transport = connect("experiments", timeout)
        self.rank, self.size = self._transport.rank, self._transport.size

    @property
    def local_rank(self) -> int:
        """This rank's number among those on its host."""
        if self.size == 1:
            return 0
        import horovod.torch as hvd

        return int(hvd.local_rank())

    @property
    def first(self) -> bool:
        """Whether this rank reports and writes the files."""
        return self.rank == 0

    def layout(self, n: int, *, dedicated_root: bool = False) -> Layout:
        """The logical workers of every rank: n of them spread evenly, the lower ranks' first.

        Args:
            n: number of workers of the job.
            dedicated_root: whether rank 0 only aggregates.

        Raises:
            ValueError: when a rank would have none.
        """
        working = self.size - dedicated_root
        if n < working or working < 1:
            only = " of which rank 0 only aggregates" if dedicated_root else ""
            raise ValueError(
                f"{n} workers on {self.size} ranks{only} leave a rank without any: "
                f"use at most {n + dedicated_root} ranks, and two or more with a dedicated root"
            )
        return Layout((0,) * dedicated_root + split(n, working))

    def workers(self, n: int, *, dedicated_root: bool = False) -> range:
        """The logical workers of this rank; see `layout`."""
        return self.layout(n, dedicated_root=dedicated_root).workers(self.rank)

    def share(self, values: NDArray[np.float64], what: str) -> NDArray[np.float64]:
        """Add up an array over the ranks, in rank order.

        Exact, and so independent of the number of ranks, where for each element all ranks but one hold 0.
        """
        if self.size == 1:
            return values
        sent = self._transport.exchange(np.ascontiguousarray(values).reshape(-1).view(np.uint8), what)
        total: NDArray[np.float64] = sent.view(np.float64).sum(axis=0).reshape(values.shape)
        return total

    def agree(self, digest: bytes, what: str) -> None:
        """Check that every rank brought the same digest.

        Raises:
            RuntimeError: naming the ranks that differ from rank 0.
        """
        sent = self._transport.exchange(np.frombuffer(digest, np.uint8), what)
        odd = [rank for rank in range(self.size) if not np.array_equal(sent[rank], sent[0])]
        if odd:
            raise RuntimeError(
                f"ranks {odd} start with other values than rank 0 ({what}): give all ranks the same "
                "configuration, data and run folder, and the same versions of torch and numpy"
            )


def describe(ranks: Ranks) -> dict[str, Any]:
    """What environment.json says about the ranks."""
    found: dict[str, Any] = {"ranks": ranks.size}
    if ranks.size > 1:
        import horovod.torch as hvd

        found["controller"] = "mpi" if hvd.mpi_enabled() else "gloo"
    return found
