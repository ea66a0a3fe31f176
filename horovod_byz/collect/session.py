"""The common part of the collection modes: binding, the header of each step, and the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from horovod_byz.aggregation import engine
from horovod_byz.aggregation import rows as reading
from horovod_byz.aggregation.shard import Reduce, Shard, alone
from horovod_byz.aggregation.source import Source
from horovod_byz.aggregation.tiles import Range
from horovod_byz.collect import digest, echoes, header, joining, pace, places
from horovod_byz.collect.collected import Collected, Opened, Step, Stopwatch, Wire
from horovod_byz.collect.errors import HeaderMismatchError, StateMismatchError, locate, located
from horovod_byz.collect.header import Header
from horovod_byz.collect.job import Job
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.pace import Pace
from horovod_byz.collect.protocol import HEADER_EXCHANGE, Array, Bytes, Transport
from horovod_byz.collect.watchdog import announced
from horovod_byz.common.checks import count
from horovod_byz.host.place import Place
from horovod_byz.rules.naming import as_rule
from horovod_byz.rules.without import Without, whole

if TYPE_CHECKING:
    from horovod_byz.rules.base import Rule

__all__ = ["Collected", "Job", "Session", "Step", "Stopwatch", "Wire"]


@runtime_checkable
class Resolves(Protocol):
    """A state that can be made equal where ranks hold different ones; see `locating` and `restoring`."""

    def __call__(self, step: int) -> bytes:
        """Its digest; empty at a step that does not compare it."""

    def resolve(self, transport: Transport, mismatch: StateMismatchError, step: int) -> None:
        """Returns once all ranks hold the majority's; all ranks call it together.

        Raises:
            StateMismatchError: if they cannot or must not.
        """


class Session(ABC):
    """A collector bound to a job.

    Attributes:
        places: where each rank runs, in rank order; learnt anew at each binding.
        next_step: number of the next step.
        pace: this rank's seconds between and inside steps.

    Raises:
        HeaderMismatchError: if the ranks bind different things.
        EquivocationError: if a rank announces different things to different ranks.
    """

    mode: str

    def __init__(self, job: Job) -> None:
        self.transport, self.d, self.dtype = job.transport, job.d, np.dtype(job.dtype)
        self.compression, self.segments, self.threads = job.compression, job.segments, job.threads
        self._shared, self.layout = job.shared, job.layout
        self.places: tuple[Place, ...] = ()
        self._packed: Array | None = None  # the last step's packed rows, whose memory the next ones get
        self.pace = Pace()
        joining.watch(self)
        self._when_bound: list[Callable[[Transport, Rule], None]] = []
        with located():
            self._bind(job.start)
        if self.layout.n == 0:
            raise ValueError("no rank holds a worker: bind with local_workers >= 1 on at least one rank")

    def _bind(self, start: int) -> None:
        """Agrees with all ranks. Ranks that are stepping see this header, and bind next."""
        self._begin()
        received = self._exchange_bindings(start)
        if header.any_steps(received):
            self._echo(received)
            received = self._exchange_bindings(start)
        self._agree(received)
        self.next_step = header.common_start(received)

    def _bind_with_new_ranks(self, received: Bytes, rule: Rule) -> None:
        """Agrees again, after a step's headers included that of a binding rank."""
        self._echo(received)
        self._begin()
        self._agree(self._exchange_bindings())
        for action in self._when_bound:
            action(self.transport, rule)

    def _begin(self) -> None:
        self.next_step = 0
        self._agreed: int | None = None
        self._locate(())
        self.transport.watchdog.begin(header.BINDING)

    def _exchange_bindings(self, start: int = 0) -> Bytes:
        shared = digest.of_text(self._shared)
        own = self._header(header.BINDING, len(self.workers), shared, start=start)
        return self._exchange(own)

    def _exchange(self, own: Header) -> Bytes:
        """Sends a header to all ranks, and returns theirs; raises if some ranks have joined."""
        received = self.transport.exchange(own.pack(), HEADER_EXCHANGE)
        header.check_joined([header.unpack(data) for data in received])
        return received

    def _agree(self, received: Bytes) -> None:
        """Compares all headers; the echo makes a fault known to all ranks, even if a rank lies."""
        self._echo(received, compare=not _is_faulty(received, self.layout))
        header.check(received, self.layout.rows)

    def _echo(self, received: Bytes, compare: bool = True) -> None:
        """Compares the headers that each rank received, and learns where the ranks run.

        Args:
            received: every rank's header.
            compare: False after a fault in the headers: the exchange then only keeps the ranks in step.
        """
        own = places.own()
        if self.transport.size == 1:
            self._locate(places.unpack(own.reshape(1, -1), self.layout))
            return
        given = np.frombuffer(b"".join(digest.digest(data) for data in received), np.uint8)
        said = self.transport.exchange(np.concatenate([own, given]), "check of the headers")
        self._locate(places.unpack(said[:, : own.size], self.layout))
        if compare:
            echoes.check(said[:, own.size :].reshape(len(said), -1, digest.SIZE), "headers")

    def _locate(self, known: tuple[Place, ...]) -> None:
        self.places = self.transport.watchdog.places = known
        locate(known)

    def when_bound(self, action: Callable[[Transport, Rule], None], rule: Rule) -> None:
        """Runs `action(transport, rule)` now, and again after each new agreement; equal on all ranks."""
        self._when_bound.append(action)
        with located(self.places):
            action(self.transport, rule)

    def _header(self, step: int, rows: int, rule: bytes, **more: Any) -> Header:
        """This rank's header; every header contains all parameters of the session."""
        sent, expected = self.compression.label(self.dtype), header.expectation(self.layout.rows)
        return Header(step, self.d, rows, sent, self.mode, rule, layout=expected, **more)

    @property
    def n(self) -> int:
        """Number of workers in the job."""
        return self.layout.n

    @property
    def is_current(self) -> bool:
        """Whether the ranks are still those that were bound; see `Transport.is_current`."""
        return self.transport.is_current

    @property
    def workers(self) -> range:
        """Indices of the workers on this rank."""
        return self.layout.workers(self.transport.rank)

    @announced
    def step(
        self,
        rows: Any,
        rule: Rule | str,
        wire: Wire | None = None,
        step: int | None = None,
        state: bytes | Callable[[int], bytes] = b"",
        memory: Array | Callable[[], Array | None] | None = None,
    ) -> Collected:
        """Collects every worker's row and aggregates.

        If a rank binds instead, all ranks bind again, and the step becomes step 0: in elastic training a new
            rank may
        replace another, which the remaining ranks cannot see otherwise.

        Args:
            rows: (k, d) array or tensor of the bound dtype, this rank's rows in worker order; it
                is not written to. Or a function that gives them, which is called again if all ranks bind
                again, since what a worker sends may depend on that.
            rule: the aggregation rule, or its name; equal on all ranks.
            wire: simulated attack, `wire(block, offset, d, step)`; it rewrites the (n, width) block
                of coordinates from `offset` on, after the digests were checked, on every aggregator
                alike; once for each coordinate, in one block or in several.
            step: number of the optimizer step; by default they count up from 0.
            state: 16 bytes, a digest of the parameters that all ranks must share; or empty, on all ranks
                alike, at steps that do not compare them; or a function of the step's number that gives it.
                An object that `Resolves` is asked to make the states equal where they differ.
            memory: the last result, (d,), equal on all ranks, for rules that remember; None for zeros. Or a
                function that gives it, which is called once all ranks have agreed on the step.

        Raises:
            TypeError, ValueError: if the rows or the state are not as bound, or the rule does not hold
                for n.
            JoinedRanksError: if a rank called hvd.join().
            HeaderMismatchError: if a rank is about to send something else than the others.
            StateMismatchError: if a rank's state is not that of most ranks, and is not replaced.
            LateRanksError: if a rank does not arrive in time.
            EquivocationError: if a rank gives different ranks different headers or digests.
        """
        rule = as_rule(rule)
        rule.check(self.n)
        checked = self._checked(rows() if callable(rows) else rows)
        clock = Stopwatch()
        with clock("collect"):
            packed = self._pack(checked)
            again = (lambda: self._pack(self._checked(rows()))) if callable(rows) else None
            opened = self._open(packed, rule, step, state, again)
        last = memory() if callable(memory) else memory
        packed = opened.rows if callable(rows) else packed
        collected = self._aggregate(
            packed, Step(opened.number, opened.rule, wire, opened.headers, clock, last)
        )
        self.next_step = opened.number + 1
        self.pace.leave()
        excluded = opened.rule.workers if isinstance(opened.rule, Without) else ()
        return replace(collected, excluded=excluded, paces=pace.read(opened.headers))

    def _pack(self, rows: Array) -> Array:
        """The rows as they are sent."""
        self._packed = self.compression.pack(rows, self._packed)
        return self._packed

    def _open(
        self,
        rows: Array,
        rule: Rule,
        step: int | None,
        state: bytes | Callable[[int], bytes],
        again: Callable[[], Array] | None = None,
    ) -> Opened:
        """Exchanges the step's headers with all ranks; after it they all go on to the rows.

        Args:
            rows: as they are sent.
            rule: the aggregation rule.
            step: as for `step`.
            state: likewise.
            again: gives the rows after all ranks have bound again; None where they stay as they are.
        """
        number, received = self._announce(rows, rule, step, state)
        if header.any_binds(received):
            # A new rank knows of nobody that was excluded, and worker i may be on another host now.
            rule = whole(rule)
            self._bind_with_new_ranks(received, rule)
            rows = rows if again is None else again()
            number, received = self._announce(rows, rule, step, state)
        return Opened(number, rule, self._compared(received, number, state), rows)

    @abstractmethod
    def _aggregate(self, rows: Array, step: Step) -> Collected:
        """Collects the packed rows, aggregates them, and brings the result to every rank."""

    def _digest(self, rows: Array) -> bytes:
        """The digest of the packed rows for the header; only modes that relay rows need it."""
        return bytes(digest.SIZE)

    def _announce(
        self, rows: Array, rule: Rule, step: int | None, state: bytes | Callable[[int], bytes]
    ) -> tuple[int, Bytes]:
        """Sends the step's header to all ranks; returns the step's number and all headers."""
        self.pace.arrive()
        number = self.next_step if step is None else count("Session", "step", step)
        self.transport.watchdog.begin(number)
        shared = digest.of_text(repr(rule), self._shared)
        checked = _checked_state(state(number) if callable(state) else state)
        more = {"digest": self._digest(rows), "state": checked, **self.pace.said}
        own = self._header(number, len(rows), shared, **more)
        with self.pace.waiting():
            return number, self._exchange(own)

    def _compared(self, received: Bytes, step: int, state: bytes | Callable[[int], bytes]) -> list[Header]:
        headers = header.check(received, self.layout.rows)
        self._echo_states(headers)
        try:
            compared = header.check_states(headers, step, self._agreed)
        except StateMismatchError as mismatch:
            if not isinstance(state, Resolves) or header.NONE in mismatch.states:
                raise
            state.resolve(self.transport, mismatch, step)
            compared = True
        if compared:
            self._agreed = step
        return headers

    def _echo_states(self, headers: list[Header]) -> None:
        """At a step that compares states, compares the digests that each rank received.

        A rank that gave different ranks different digests would have some of them look for what differs, and
        the others go on to the rows: both would wait in vain.
        """
        states = [said.state for said in headers]
        if self.transport.size == 1 or all(state == header.NONE for state in states):
            return
        own = np.frombuffer(b"".join(states), np.uint8)
        said = self.transport.exchange(own, "check of the states")
        echoes.check(said.reshape(len(said), -1, digest.SIZE), "digests of their state")

    def _checked(self, rows: Any) -> Array:
        array = reading.plain(rows, self.dtype)
        want = (len(self.workers), self.d)
        if array.shape != want:
            raise ValueError(f"this rank's rows must have the shape {want}, got {array.shape}")
        return np.ascontiguousarray(array)

    def _run(
        self,
        step: Step,
        source: Source,
        out: Array,
        ranges: tuple[Range, ...] = (),
        reduce: Reduce = alone,
    ) -> engine.Outcome:
        """Aggregates rows over some ranges of coordinates; by default over all."""
        options = (step.number, self.threads, self.segments, step.memory)
        return engine.run(step.rule, source, out, Shard(self.d, ranges, reduce, *options))

    def _read(self, step: Step, block: Array, width: int, offset: int = 0) -> Source:
        """A received block of rows after the simulated attack: `width` coordinates from `offset` on."""

        def rewrite(values: Array, begin: int) -> None:
            if step.wire is not None:
                step.wire(values, offset + begin, self.d, step.number)

        attacked = None if step.wire is None else rewrite
        return self.compression.read(block, width, self.dtype, attacked)


def _is_faulty(received: Bytes, expected: Layout) -> bool:
    """Whether a rank's header is not as expected."""
    try:
        header.check(received, expected.rows)
    except HeaderMismatchError:
        return True
    return False


def _checked_state(state: bytes) -> bytes:
    if len(state) not in (0, digest.SIZE):
        raise ValueError(f"state must be {digest.SIZE} bytes or none, got {len(state)}")
    return state or header.NONE
