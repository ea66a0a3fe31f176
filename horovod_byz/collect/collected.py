"""The input and the result of one step of a session."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation import engine
from horovod_byz.aggregation.verdict import Verdict
from horovod_byz.collect.header import Header
from horovod_byz.collect.pace import RankPace
from horovod_byz.collect.protocol import Array

if TYPE_CHECKING:
    from horovod_byz.rules.base import Rule

Wire = Callable[[Array, int, int, int], None]


@dataclass(frozen=True, eq=False)
class Collected:
    """One step's aggregate, the same on every rank.

    Attributes:
        value: the aggregate, (d,), of the rows' dtype; the next step overwrites its memory.
        outcome: how each worker's row was treated.
        rewritten: workers whose row a relaying rank rewrote, according to the ranks that received it; those
            ranks fetched it again directly.
        timings: seconds spent in "collect", "aggregate" and "return".
        step: the optimizer step.
        outvoted_ranks: aggregators whose statistics or result lost a vote, as seen by this rank.
        complainers: ranks whose complaints no other rank confirms: their connection is disturbed, or they
            lie.
        excluded: workers whose rows did not count, since the rule was a `Without`; they have verdicts too.
        paces: each rank's seconds of computing and waiting, as it gives them.
    """

    value: Array
    outcome: engine.Outcome
    rewritten: tuple[int, ...]
    timings: dict[str, float]
    step: int
    outvoted_ranks: tuple[int, ...] = ()
    complainers: tuple[int, ...] = ()
    excluded: tuple[int, ...] = ()
    paces: tuple[RankPace, ...] = ()

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Weight of each worker's row in the result, (n,); NaN where it was not measured."""
        return self.outcome.weights

    @functools.cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One verdict per worker, in worker order."""
        return self.outcome.verdicts

    @property
    def overflowed(self) -> bool:
        """Whether over half of the rows held NaN or infinities: more than a Byzantine minority can explain.

        Rows of excluded workers are not counted.
        The scale of a scaled loss is then too large, which the value cannot show, since it is always finite.
        """
        counted = np.delete(self.outcome.nonfinite, self.excluded)
        return bool(2 * np.count_nonzero(counted) > len(counted))


@dataclass
class Stopwatch:
    """Seconds spent in each named part of a step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Opened:
    """A step after the ranks have exchanged headers.

    Attributes:
        number: the optimizer step.
        rule: the aggregation rule; the whole one if a rank was bound meanwhile.
        headers: each rank's header.
        rows: this rank's rows, as they are sent.
    """

    number: int
    rule: Rule
    headers: list[Header]
    rows: Array


@dataclass(frozen=True, eq=False)
class Step:
    """One call of `Session.step`, after the ranks have exchanged headers.

    Attributes:
        number: the optimizer step.
        rule: the aggregation rule.
        wire: the simulated attack, or None.
        headers: each rank's header.
        clock: measures the parts of the step.
        memory: the last result, (d,), for rules that remember; None for zeros.
    """

    number: int
    rule: Rule
    wire: Wire | None
    headers: list[Header]
    clock: Stopwatch
    memory: Array | None = None
