"""The ranks of a job as the training loop sees them: whose workers are here, and sums over ranks."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horovod_byz.collect import TransportError, process
from horovod_byz.collect.errors import names
from horovod_byz.collect.layout import Layout, split
from horovod_byz.collect.protocol import Transport
from horovod_byz.collect.transport import connect
from horovod_byz.common.atomic import RunError
from horovod_byz.host import launchers
from horovod_byz.optimizer.repair import StateCheck

__all__ = ["Ranks", "launched", "spread"]


def launched() -> int:
    """How many ranks the launcher started, by the environment it left; 1 without a launcher."""
    return launchers.launched().size


_LONGEST = 2**16  # bytes of a text that ranks tell one another; longer ones are cut


class Ranks:
    """All ranks of this job; a single one where nothing was launched, with or without Horovod installed.

    Args:
        timeout: seconds that one wait for the other ranks may take.

    Raises:
        RunError: if a launcher started several ranks that do not know one another.
    """

    def __init__(self, timeout: float = 600.0) -> None:
        try:
            if launched() > 1 and not (process.initialized() or process.torch_initialized()):
                _initialize()
            self._transport: Transport = connect("experiments", timeout)
        except TransportError:
            raise
        except (RuntimeError, ImportError) as error:
            raise RunError(f"{error} (horovod-byz doctor says what is installed)") from error
        self.rank, self.size = self._transport.rank, self._transport.size

    @property
    def local_rank(self) -> int:
        """This rank's number among those on its host."""
        if self.size == 1:
            return 0
        if not process.initialized():
            return int(os.environ.get("LOCAL_RANK", "0"))  # torchrun's
        import horovod.torch as hvd

        return int(hvd.local_rank())

    @property
    def first(self) -> bool:
        """Whether this rank reports and writes the files."""
        return self.rank == 0

    def layout(self, n: int, *, dedicated_root: bool = False) -> Layout:
        """The logical workers of every rank; see `spread`."""
        return spread(n, self.size, dedicated_root=dedicated_root)

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
            RunError: naming the ranks that differ from rank 0.
        """
        sent = self._transport.exchange(np.frombuffer(digest, np.uint8), what)
        odd = [rank for rank in range(self.size) if not np.array_equal(sent[rank], sent[0])]
        if odd:
            raise RunError(
                f"the {what} of {names(odd)} and of rank 0 differ: give all ranks the same configuration, "
                "data and run folder, and the same versions of torch and numpy"
            )

    def agree_on(self, check: StateCheck, step: int) -> None:
        """Check that every rank holds the same state; a minority's is replaced by the majority's.

        Raises:
            StateMismatchError: when no majority of the ranks holds the same.
        """
        if self.size > 1:
            self._transport.watchdog.begin(step)
            check.agree(self._transport, step)

    def say(self, text: str, what: str) -> list[str]:
        """Bring every rank's text to every rank; all call it together.

        Args:
            text: this rank's.
            what: what it is about, for an error message.
        """
        if self.size == 1:
            return [text]
        message = np.frombuffer(text.encode()[:_LONGEST] or b"\0", np.uint8)
        sent = self._transport.exchange_any(message, what, _LONGEST)
        return [part.tobytes().decode(errors="replace").rstrip("\0") for part in sent]

    @contextmanager
    def together(self, what: str) -> Iterator[None]:
        """What a rank does alone inside, such as reading a file, succeeds on all ranks or fails on all.

        So that no rank waits for one that failed. Inside, nothing may wait for other ranks.

        Raises:
            RunError: when another rank failed; its message is that rank's.
        """
        mine: Exception | None = None
        try:
            yield
        except TransportError:
            raise
        except Exception as error:
            if self.size == 1:
                raise
            mine = error
        faults = self.say("" if mine is None else str(mine) or type(mine).__name__, what)
        if mine is not None:
            raise mine
        for rank, fault in enumerate(faults):
            if fault:
                raise RunError(f"rank {rank}: {fault}")


def _initialize() -> None:
    """Initialises torch.distributed where torchrun started the ranks, and Horovod otherwise."""
    if launchers.by_torchrun():
        import torch.distributed as dist

        dist.init_process_group("gloo")
        # torch may abort at exit where a group is left (seen with 2.13 on a busy machine).
        atexit.register(dist.destroy_process_group)
    else:
        import horovod.torch as hvd

        hvd.init()


def spread(n: int, size: int, *, dedicated_root: bool = False) -> Layout:
    """The logical workers of every rank: n of them spread evenly, the lower ranks' first.

    Args:
        n: number of workers of the job.
        size: number of ranks.
        dedicated_root: whether rank 0 only aggregates.

    Raises:
        ValueError: when a rank would have none.
    """
    working = size - dedicated_root
    if n < working or working < 1:
        only = " of which rank 0 only aggregates" if dedicated_root else ""
        raise ValueError(
            f"{n} workers on {size} ranks{only} leave a rank without any: "
            f"use at most {n + dedicated_root} ranks, and two or more with a dedicated root"
        )
    return Layout((0,) * dedicated_root + split(n, working))


def describe(ranks: Ranks) -> dict[str, Any]:
    """What a run's record says about the ranks."""
    if ranks.size == 1:
        return {"ranks": 1}
    if not process.initialized():
        return {"ranks": ranks.size, "controller": "torch.distributed"}
    import horovod.torch as hvd

    return {"ranks": ranks.size, "controller": "mpi" if hvd.mpi_enabled() else "gloo"}
