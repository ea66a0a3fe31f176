"""Whether Horovod or torch.distributed is initialised in this process, and as which rank."""

from __future__ import annotations

import os
import sys

from horovod_byz.host import launchers


def initialized() -> bool:
    """Whether `hvd.init()` was called in this process."""
    hvd = sys.modules.get("horovod.torch")
    return bool(hvd is not None and hvd.is_initialized())


def torch_initialized() -> bool:
    """Whether `torch.distributed.init_process_group()` was called in this process."""
    dist = sys.modules.get("torch.distributed")
    return bool(dist is not None and dist.is_available() and dist.is_initialized())


def torch_ranks() -> tuple[int, int]:
    """This rank and the number of ranks, as torch.distributed reports them now."""
    import torch.distributed as dist

    return int(dist.get_rank()), int(dist.get_world_size())


def ranks() -> tuple[int, int]:
    """This rank and the number of ranks, as Horovod reports them now."""
    import horovod.torch as hvd

    return int(hvd.rank()), int(hvd.size())


def local_rank() -> int:
    """This rank's number on its host, as Horovod or the launcher gives it; 0 where nobody does."""
    if initialized():
        import horovod.torch as hvd

        return int(hvd.local_rank())
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_size() -> int:
    """The job's ranks on this host, as Horovod or the launcher counts them; 1 where nobody does."""
    if initialized():
        import horovod.torch as hvd

        return int(hvd.local_size())
    return launchers.local_size()


def job_ranks() -> tuple[int, int]:
    """This rank and the number of ranks: Horovod's where it is initialised, else torch.distributed's.

    Raises:
        RuntimeError: if neither is initialised.
    """
    if initialized():
        return ranks()
    if torch_initialized():
        return torch_ranks()
    raise RuntimeError(
        "the rank is not known: call hvd.init() or torch.distributed.init_process_group() first, or give "
        "worker= and workers="
    )
