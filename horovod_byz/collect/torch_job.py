"""The process group of this process's torch.distributed job, and its store."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch.distributed as dist
from torch.distributed import distributed_c10d

from horovod_byz.collect import departure
from horovod_byz.collect.channels import Channel, Silent
from horovod_byz.collect.torch_store import TorchStore
from horovod_byz.collect.watchdog import Watchdog

# The time-out of a group that is made here: longer than any time limit of a wait.
_GROUP_TIMEOUT = timedelta(days=1)
# How long a rank that hosts the store stays after it named late ranks, so that the others can read it too.
_FAREWELL_SECONDS = 3.0


class Work(Protocol):
    """An operation under way, as torch.distributed returns it."""

    def is_completed(self) -> bool:
        """Whether it ended, also with an error."""

    def wait(self) -> Any:
        """Raises the operation's error."""


class TorchJob:
    """A job of torch.distributed.

    Groups are referred to weakly, so that `destroy_process_group()` closes their connections.

    Attributes:
        rank: this rank.
        size: number of ranks.
        channel: the side channel for announcements, shared by all sessions.
    """

    def __init__(self, world: Any) -> None:
        self._world = weakref.ref(world)
        self._group: Callable[[], Any] = self._world
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        store = distributed_c10d._get_default_store()
        self.channel: Channel = TorchStore(self.rank, self.size, store) if self.size > 1 else Silent()

    @property
    def is_current(self) -> bool:
        """Whether the process group still is the default one."""
        return dist.is_initialized() and dist.group.WORLD is self._world()

    @property
    def group(self) -> Any:
        """The group for messages between CPUs; see `prepare`."""
        return self._group()

    def prepare(self, watchdog: Watchdog) -> None:
        """Chooses the group for messages: the default one if it has Gloo, else all ranks make one together.

        Raises:
            LateRanksError: if a rank does not come in time to make it.
        """
        if self._group() is self._world() and cpu_backend() != "gloo":
            self._group = self.another(watchdog)

    def another(self, watchdog: Watchdog) -> Callable[[], Any]:
        """A weak reference to a Gloo group that all ranks make together.

        Raises:
            LateRanksError: if a rank does not come in time to make it.
        """
        return weakref.ref(_gloo_group(watchdog))


def cpu_backend() -> str:
    """The backend of the default group for tensors on the CPU, such as "gloo"; "" if it has none."""
    pairs = (part.partition(":") for part in dist.get_backend_config().lower().split(","))
    return {device.strip(): backend.strip() for device, _, backend in pairs}.get("cpu", "")


def _gloo_group(watchdog: Watchdog) -> Any:
    """A Gloo group of all ranks; made in a thread, since torch waits for the ranks without a time limit."""
    result: list[Any] = []

    def make() -> None:
        try:
            result.append(dist.new_group(backend="gloo", timeout=_GROUP_TIMEOUT))
        except Exception as error:  # noqa: BLE001 - raised below, in the calling thread
            result.append(error)

    phase = "making of a Gloo group beside the default process group"
    threading.Thread(target=make, name="horovod_byz group", daemon=True).start()
    watchdog.wait(lambda: bool(result), phase)
    if isinstance(result[0], Exception):
        watchdog.broke(phase, result[0])
    return result[0]


# Operations that this process gave up. Gloo has no way to cancel them, and still uses their memory. Their
# group is referenced, since its destructor would wait for them.
_unfinished: list[tuple[Work, Any]] = []
_job: TorchJob | None = None


def current() -> TorchJob:
    """The job of the default process group; the same object until that is initialised anew."""
    global _job
    if _job is None or not _job.is_current:
        _job = TorchJob(dist.group.WORLD)
    return _job


def keep(operations: Sequence[tuple[Work, Any]]) -> None:
    """Keeps the memory of operations that this process no longer waits for, until they have ended."""
    _unfinished[:] = [pair for pair in [*_unfinished, *operations] if not pair[0].is_completed()]


def _hosts_the_store() -> bool:
    """Whether the store ends with this process: without torchrun's agent, rank 0 hosts it."""
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return _job is not None and _job.rank == 0 and _job.size > 1 and not agent


@atexit.register
def _end() -> None:
    """Ends this process at once if operations are still under way, else torch would wait for them at exit.

    The exit code is 1: the error's own code is not known here.
    """
    speaker = departure.current()
    if speaker is not None and speaker.inquiring and _hosts_the_store():
        time.sleep(_FAREWELL_SECONDS)
    keep([])
    if _unfinished:
        print(
            "horovod_byz: torch.distributed still waits for ranks that did not arrive, so this process ends "
            "without it",
            file=sys.stderr,
        )
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
