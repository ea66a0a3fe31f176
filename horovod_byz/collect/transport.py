"""Chooses the transport of this process; the only module that does."""

from __future__ import annotations

import os
from typing import Any

from horovod_byz.collect import process
from horovod_byz.collect.local import Local
from horovod_byz.collect.protocol import Transport
from horovod_byz.host import launchers

# Seconds; long enough for a rank that evaluates or writes a checkpoint while the others wait.
DEFAULT_TIMEOUT = 300.0


def time_limit(timeout: float | None) -> float:
    """Seconds that a wait between ranks may take: the argument, else the environment's, else the default.

    Raises:
        ValueError: if it is no positive number.
    """
    given: Any = os.environ.get("HOROVOD_BYZ_TIMEOUT", DEFAULT_TIMEOUT) if timeout is None else timeout
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0:
        name = "HOROVOD_BYZ_TIMEOUT" if timeout is None else "timeout"
        raise ValueError(f"{name} must be a positive number of seconds, got {given!r}")
    return seconds


def connect(name: str, timeout: float) -> Transport:
    """The transport of this process: Horovod's, else torch.distributed's, else a single rank.

    Horovod is used once `hvd.init()` was called, also beside torch.distributed; torch.distributed once
    `init_process_group()` was called.

    Args:
        name: name of the session; all ranks must use the same names in the same order.
        timeout: seconds that one wait between ranks may take.

    Raises:
        RuntimeError: if this process was launched as one of several ranks, by whichever launcher, and
            neither Horovod nor torch.distributed is initialised in it, or does not know the others.
    """
    launch = launchers.launched()
    if process.initialized():
        transport = with_horovod(name, timeout)
        if transport.size == 1:
            launchers.refuse_alone(launch)
        return transport
    if process.torch_initialized():
        transport = with_torch(name, timeout)
        if transport.size == 1:
            launchers.refuse_alone(launch, "torch.distributed")
        return transport
    launchers.refuse_uninitialized(launch)
    return Local()


def with_horovod(name: str, timeout: float) -> Transport:
    """The transport of an initialised Horovod job: MPI beside Horovod where both can share it."""
    from horovod_byz.collect.over_horovod import Horovod, side_channel
    from horovod_byz.collect.over_mpi import Mpi, usable

    return Mpi(name, timeout) if usable() else Horovod(name, timeout, side_channel())


def with_torch(name: str, timeout: float) -> Transport:
    """The transport of torch.distributed's default process group."""
    from horovod_byz.collect.over_torch import Torch

    return Torch(name, timeout)


def ranks() -> tuple[int, int]:
    """This process's rank, and the number of ranks in its job; without communication.

    Raises:
        RuntimeError: if this process was launched as one of several ranks, and neither Horovod nor
            torch.distributed is initialised.
    """
    if process.initialized():
        return process.ranks()
    if process.torch_initialized():
        return process.torch_ranks()
    launchers.refuse_uninitialized(launchers.launched())
    return 0, 1
