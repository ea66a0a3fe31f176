"""Whether Horovod is initialised in this process, and as which rank."""

from __future__ import annotations

import sys


def initialized() -> bool:
    """Whether `hvd.init()` was called in this process."""
    hvd = sys.modules.get("horovod.torch")
    return bool(hvd is not None and hvd.is_initialized())


def ranks() -> tuple[int, int]:
    """This rank and the number of ranks, as Horovod reports them now."""
    import horovod.torch as hvd

    return int(hvd.rank()), int(hvd.size())


def local_rank() -> int:
    """This rank's number on its host."""
    import horovod.torch as hvd

    return int(hvd.local_rank())
