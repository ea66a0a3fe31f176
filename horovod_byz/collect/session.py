"""What the three ways to collect share: binding, the header of each step, and the result."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from horovod_byz import engine
from horovod_byz.collect import digest, header
from horovod_byz.collect.compression import Compression, Uncompressed
from horovod_byz.collect.header import Header
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.transport import Array, Transport
from horovod_byz.collect.watchdog import announced
from horovod_byz.verdict import Verdict

if TYPE_CHECKING:
    from horovod_byz.rules.base import Rule

Wire = Callable[[Array, int, int, int], None]
_DTYPES = ("float32", "float64")


@dataclass(frozen=True, eq=False)
class Collected:
    """One step's aggregate, the same on every rank.

    Attributes:
        value: the aggregate, (d,), of the rows' dtype; the memory is used again at the next step.
        outcome: how each worker's row was treated.
        rewritten: workers whose row was rewritten by a peer on its way; found, and put right.
        timings: seconds spent in "collect", "aggregate" and "return".
        step: the optimizer step.
        outvoted_ranks: ranks whose work as aggregators lost a vote, as seen by this rank.
    """

    value: Array
    outcome: engine.Outcome
    rewritten: tuple[int, ...]
    timings: dict[str, float]
    step: int
    outvoted_ranks: tuple[int, ...] = ()

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """What share of the result each worker's row got, (n,)."""
        return self.outcome.weights

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One verdict per worker, in worker order."""
        return self.outcome.verdicts

    @property
    def overflowed(self) -> bool:
        """Whether over half of the rows held NaN or infinities: more than a Byzantine minority can explain.

        With scaled losses the scale is then too large. No optimizer can see that in the value, which is
        finite always.
        """
        return bool(2 * np.count_nonzero(self.outcome.nonfinite) > len(self.outcome.nonfinite))


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
class Job:
    """What a session is bound to; but for the transport and the threads all ranks must agree.

    Attributes:
        transport: the ranks.
        d: number of coordinates.
        dtype: float32 or float64.
        local_workers: how many logical workers this rank holds; may differ between ranks.
        threads: threads for kernels and digests; the result does not depend on it.
        shared: text that all ranks must share, such as the names and shapes of the parameters.
        compression: what travels in place of a row; default the row itself.
        segments: the coordinate after each tensor's last, or None; see `Collector.bind`.

    Raises:
        ValueError: if the dtype is another, or a number is negative.
    """

    transport: Transport
    d: int
    dtype: Any
    local_workers: int = 1
    threads: int = 1
    shared: str = ""
    compression: Compression = field(default_factory=Uncompressed)
    segments: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if np.dtype(self.dtype).name not in _DTYPES or self.d < 0 or self.local_workers < 0:
            raise ValueError(
                f"bind needs float32 or float64, d >= 0 and local_workers >= 0, "
                f"got {np.dtype(self.dtype)}, {self.d} and {self.local_workers}"
            )


@dataclass(frozen=True, eq=False)
class Step:
    """One call of `Session.step`, after the ranks greeted one another.

    Attributes:
        number: the optimizer step.
        rule: the aggregation rule.
        wire: the simulated attack, or None.
        headers: what each rank announced.
        clock: takes the time of the step's parts.
    """

    number: int
    rule: Rule
    wire: Wire | None
    headers: list[Header]
    clock: Stopwatch


class Session(ABC):
    """A collector bound to a job.

    Raises:
        HeaderMismatchError: if the ranks bind different things.
    """

    mode: str

    def __init__(self, job: Job) -> None:
        self.transport, self.d, self.dtype = job.transport, job.d, np.dtype(job.dtype)
        self.compression, self.segments, self.threads = job.compression, job.segments, job.threads
        self.next_step, self._shared = 0, job.shared
        self.transport.watchdog.begin(-1)
        sent = self.compression.label(self.dtype)
        own = Header(-1, self.d, job.local_workers, sent, self.mode, digest.of_text(self._shared))
        headers = header.check(self.transport.exchange(own.pack(), "header exchange"))
        self.layout = Layout(tuple(h.rows for h in headers))
        if self.layout.n == 0:
            raise ValueError("no rank holds a worker: bind with local_workers >= 1 on at least one rank")

    @property
    def n(self) -> int:
        """Number of workers in the job."""
        return self.layout.n

    @property
    def workers(self) -> range:
        """Indices of the workers on this rank."""
        return self.layout.workers(self.transport.rank)

    @announced
    def step(self, rows: Any, rule: Rule, wire: Wire | None = None, step: int | None = None) -> Collected:
        """Collects every worker's row and aggregates.

        Args:
            rows: (k, d) array or CPU tensor of the bound dtype, this rank's rows in worker order; it
                is not written to.
            rule: the aggregation rule, equal on all ranks.
            wire: simulated attack, `wire(block, offset, d, step)`; it rewrites the (n, width) block
                of coordinates from `offset` on, after the digests were checked, on every aggregator
                alike; once for each coordinate, in one block or in several.
            step: number of the optimizer step; counts up from 0 where it is not given.

        Raises:
            TypeError, ValueError: if the rows are not as bound, or the rule does not hold for n.
            HeaderMismatchError: if a rank is about to send something else than the others.
            LateRanksError: if a rank does not arrive in time.
            EquivocationError: if a rank tells different ranks different things.
        """
        rule.check(self.n)
        checked = self._checked(rows)
        step = self.next_step if step is None else step
        clock = Stopwatch()
        self.transport.watchdog.begin(step)
        with clock("collect"):
            packed = self.compression.pack(checked)
            headers = self._greet(packed, rule, step)
        collected = self._aggregate(packed, Step(step, rule, wire, headers, clock))
        self.next_step = step + 1
        return collected

    @abstractmethod
    def _aggregate(self, rows: Array, step: Step) -> Collected:
        """Collects the packed rows, aggregates them, and brings the result to every rank."""

    def _digest(self, rows: Array) -> bytes:
        """What the header says of the packed rows; only modes that relay rows need it."""
        return bytes(digest.SIZE)

    def _greet(self, rows: Array, rule: Rule, step: int) -> list[Header]:
        shared = digest.of_text(repr(rule), self._shared)
        sent = self.compression.label(self.dtype)
        own = Header(step, self.d, len(rows), sent, self.mode, shared, self._digest(rows))
        received = self.transport.exchange(own.pack(), "header exchange")
        return header.check(received, self.layout.rows)

    def _checked(self, rows: Any) -> Array:
        if hasattr(rows, "detach"):
            rows = rows.detach().numpy()
        want = (len(self.workers), self.d)
        if not isinstance(rows, np.ndarray) or rows.dtype != self.dtype:
            got = getattr(rows, "dtype", type(rows).__name__)
            raise TypeError(f"rows must be an array or a CPU tensor of dtype {self.dtype}, got {got}")
        if rows.shape != want:
            raise ValueError(f"this rank's rows must have the shape {want}, got {rows.shape}")
        return np.ascontiguousarray(rows)

    def _run(
        self, step: Step, block: Array, out: Array, offset: int = 0, reduce: Any = None
    ) -> engine.Outcome:
        """Lets the simulated attack act on a received block of packed rows, and aggregates it."""

        def rewrite(values: Array, begin: int) -> None:
            if step.wire is not None:
                step.wire(values, offset + begin, self.d, step.number)

        attacked = None if step.wire is None else rewrite
        source = self.compression.read(block, out.size, self.dtype, attacked)
        options = {} if reduce is None else {"reduce": reduce}
        return engine.run(
            step.rule,
            source,
            out,
            offset=offset,
            d=self.d,
            step=step.number,
            threads=self.threads,
            segments=self.segments,
            **options,
        )
