"""Bounds every wait between ranks and names the ranks that did not arrive.

The stall check of Horovod 0.28.1 as released never fires on Gloo (`gloo_controller.cc` reserves where it must
resize), and under MPI a stopped rank hangs all others for ever. Who is late cannot be asked by a
collective, which would need the late rank; so a rank that has waited for a while announces on a side
channel where it stands, and whoever reaches its timeout reads the announcements.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

from horovod_byz.collect.channels import Channel
from horovod_byz.collect.errors import LateRanksError, names

# Waits per step that stay in order; a step of 2^20 waits would take minutes on any machine.
_WAITS = 1 << 20

_FIRST_SLEEP, _LONGEST_SLEEP = 2e-5, 1e-3


class Watchdog:
    """Polls until an operation is done, or raises an error that names the late ranks.

    Args:
        rank: this rank.
        size: number of ranks.
        channel: where ranks announce what they wait for.
        timeout: seconds that one wait may take.
        error: what to raise.

    Attributes:
        timeout: seconds that one wait may take.
        patience: seconds after which a waiting rank announces where it stands.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        channel: Channel,
        timeout: float,
        error: type[LateRanksError] = LateRanksError,
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
        self.timeout = timeout
        self._rank, self._size, self._channel, self._error = rank, size, channel, error
        self.patience = min(1.0, timeout / 4)
        self._step, self._position = -1, 0
        channel.publish(-1)

    def begin(self, step: int) -> None:
        """Marks the start of a step; positions of later steps are higher on every rank."""
        self._step, self._position = step, (step + 2) * _WAITS

    def wait(self, ready: Callable[[], bool], phase: str) -> None:
        """Returns when `ready()` is true.

        Raises:
            LateRanksError: if that took longer than the timeout.
        """
        self._position += 1
        patience, limit = self.patience, self.timeout
        if self._poll(ready, patience):
            return
        self._channel.publish(self._position)
        if self._poll(ready, limit - patience):
            return
        # A rank that came just before the deadline announces itself within its own patience.
        if self._poll(ready, 1.5 * patience):
            return
        self._raise(f"the {phase} of step {self._step} was not complete after {limit + 1.5 * patience:.3g} s")

    def broke(self, phase: str, cause: Exception) -> NoReturn:
        """Names the ranks that had not arrived when an operation failed.

        Raises:
            LateRanksError: always.
        """
        self._channel.publish(self._position)
        time.sleep(self.patience)
        self._raise(f"the {phase} of step {self._step} broke off ({_first_sentence(cause)})", cause)

    def late(self) -> list[int] | None:
        """Ranks that have not announced this wait or a later one; None where that cannot be known."""
        positions = self._channel.positions()
        if positions is None:
            return None
        others = (rank for rank in range(self._size) if rank != self._rank)
        return [rank for rank in others if positions.get(rank, -1) < self._position]

    def _poll(self, ready: Callable[[], bool], seconds: float) -> bool:
        deadline, pause = time.monotonic() + seconds, _FIRST_SLEEP
        while not ready():
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_SLEEP)
        return True

    def _raise(self, what: str, cause: Exception | None = None) -> NoReturn:
        late = self.late()
        if late is None:
            told = (
                "who is late could not be learnt (with Gloo the launcher's store must answer; "
                "MPI needs mpi4py and thread support)"
            )
        elif late:
            told = f"{names(late)} did not arrive: look for a crash, a stall or a longer step there"
        else:
            told = "all ranks arrived, so the network between them is at fault"
        raise self._error(f"{what}: {told}", late or ()) from cause


def _first_sentence(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.partition(". ")[0].removesuffix(".")
