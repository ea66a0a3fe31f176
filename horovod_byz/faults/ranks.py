"""What befalls a rank: its process, its parameters, its role as an aggregator or as a relay.

Faults of the process take place when the rank's step begins, before it sends anything.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from horovod_byz.attacks.randomness import stream
from horovod_byz.faults import bits
from horovod_byz.faults.base import Drawn, Fault

if TYPE_CHECKING:
    import torch

_SIGNALS = ("KILL", "SEGV", "ABRT", "BUS", "TERM")


@dataclass(frozen=True, kw_only=True)
class RankFault(Fault):
    """A fault of one rank.

    Args:
        rank: the rank.
    """

    rank: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("rank")


class ProcessFault(RankFault, ABC):
    """A fault of a rank's process."""

    @abstractmethod
    def happen(self) -> None:
        """Carries it out on this process."""


@dataclass(frozen=True, kw_only=True)
class Slow(ProcessFault):
    """The rank comes `seconds` late."""

    seconds: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("seconds", least=0.0)

    def happen(self) -> None:
        time.sleep(self.seconds)


class Stall(ProcessFault):
    """The rank's thread never comes back, as from a GPU that does not answer; its process lives."""

    ends = True

    def happen(self) -> NoReturn:
        while True:
            time.sleep(1.0)


class Freeze(ProcessFault):
    """The whole process stops, by SIGSTOP, as on a host that swaps or was suspended."""

    ends = True

    def happen(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)


@dataclass(frozen=True, kw_only=True)
class Kill(ProcessFault):
    """The process ends without a word, by a signal.

    Args:
        signal: "KILL" as by the kernel that is out of memory, "SEGV", "ABRT", "BUS", or "TERM".
    """

    signal: str = "KILL"

    ends = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.signal not in _SIGNALS:
            raise ValueError(f"kill: signal must be one of {', '.join(_SIGNALS)}, got {self.signal!r}")

    def happen(self) -> None:
        os.kill(os.getpid(), signal.Signals[f"SIG{self.signal}"])


@dataclass(frozen=True, kw_only=True)
class Leave(ProcessFault):
    """The rank's script ends, by SystemExit, while the others go on.

    Args:
        code: its exit code.
    """

    code: int = 0

    ends = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("code")

    def happen(self) -> NoReturn:
        sys.exit(self.code)


class Fail(ProcessFault):
    """The rank's script raises a RuntimeError."""

    ends = True

    def happen(self) -> NoReturn:
        raise RuntimeError(f"injected fault: {self}")


@dataclass(frozen=True, kw_only=True)
class MemoryFault(RankFault, Drawn, ABC):
    """A flipped bit in the rank's memory.

    Args:
        bit: the bit, or a tuple of several, counted as in a float32; default the highest of the mantissa.
        tensor: number of the tensor; None: drawn.
        element: number of its element; None: drawn.
    """

    bit: int | tuple[int, ...] = 22
    tensor: int | None = None
    element: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        several = bits.checked(self.name, self.bit)
        object.__setattr__(self, "bit", several[0] if len(several) == 1 else several)
        for name in ("tensor", "element"):
            if getattr(self, name) is not None:
                self._count(name)

    @abstractmethod
    def tensors(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """The tensors in which the bit may lie."""

    def flip(self, optimizer: torch.optim.Optimizer, step: int) -> tuple[int, int]:
        """Flips the bits; returns the numbers of the tensor and of the element.

        Raises:
            ValueError: if there is no such tensor or element.
        """
        tensors = self.tensors(optimizer)
        draw = stream(self.seed, f"fault {self.name}", step=step, worker=self.rank)
        first, second = draw.random(2)  # both, whatever is given, so that one does not move the other
        which = self._choose("tensor", len(tensors), first)
        flat = tensors[which].detach().reshape(-1)
        element = self._choose("element", flat.numel(), second)
        _flip(tensors[which], element, bits.checked(self.name, self.bit))
        return which, element

    def _choose(self, what: str, number: int, drawn: float) -> int:
        given = getattr(self, what)
        if not number:
            raise ValueError(f"{self}: there is no {what} at this step; take a later one")
        if given is not None and given >= number:
            raise ValueError(f"{self}: {what} must be below {number}")
        return int(drawn * number) if given is None else int(given)


class FlipParameter(MemoryFault):
    """A bit of a parameter is flipped, and stays so: the rank's model differs from then on."""

    def tensors(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        return [p for group in optimizer.param_groups for p in group["params"]]


class FlipState(MemoryFault):
    """A bit of the optimizer's state is flipped, such as momentum; a step must have made the state."""

    def tensors(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        state = [optimizer.state.get(p, {}) for group in optimizer.param_groups for p in group["params"]]
        entries = [entry[key] for entry in state for key in sorted(entry, key=str)]
        return [e for e in entries if getattr(e, "ndim", 0) and e.is_floating_point()]


@dataclass(frozen=True, kw_only=True)
class LieAsAggregator(RankFault):
    """The rank aggregates wrongly: it multiplies all rows that it aggregates by `factor`.

    With "root" only rank 0 aggregates; with "sharded" each rank does, its shard; with "symmetric" each does
    for itself, so that its own model differs.
    """

    factor: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("factor")


@dataclass(frozen=True, kw_only=True)
class TamperAsRelay(RankFault):
    """The rank rewrites what it relays for `victim`: each value plus 1.

    A relayed allgather is a ring: the ranks behind `rank`, up to `victim`, receive the rewritten piece.
    Rows are relayed with "symmetric", results with "sharded", nothing with "root". The rewriting is done
    where the piece arrives, so that it does not depend on the speed of the ranks.

    Args:
        victim: the rank whose row or result is rewritten.
    """

    victim: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("victim")
        if self.victim == self.rank:
            raise ValueError(f"{self}: a rank relays for others, so victim must be another rank")

    def behind(self, size: int) -> tuple[int, ...]:
        """The ranks that receive the victim's piece through `rank`.

        Raises:
            ValueError: if there are none in a job of `size` ranks.
        """
        distance = (self.victim - self.rank) % size
        ranks = tuple((self.rank + k) % size for k in range(1, distance))
        if max(self.rank, self.victim) >= size or not ranks:
            raise ValueError(
                f"{self}: rank {self.rank} relays nothing of rank {self.victim} in a ring of {size} ranks, "
                "each of which sends to the next: take another rank"
            )
        return ranks


def _flip(tensor: Any, element: int, several: tuple[int, ...]) -> None:
    import torch

    with torch.no_grad():
        flat = tensor.detach().reshape(-1)  # a copy where the tensor is not contiguous
        pattern = bits.mask(several, tensor.element_size())
        whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
        signed = int(np.array(pattern, f"u{tensor.element_size()}").view(f"i{tensor.element_size()}"))
        flat.view(whole)[element] ^= signed
        tensor.copy_(flat.reshape(tensor.shape))
