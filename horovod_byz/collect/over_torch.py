"""torch.distributed's process group as a `Transport`, for jobs without Horovod, such as torchrun's.

Everything goes by `all_to_all_single` over Gloo, which is direct: no rank relays another's bytes. Rows lie on
the CPU, and NCCL moves CUDA tensors only. So where the default group has no Gloo for the CPU, all ranks make
a Gloo group beside it when they bind first.

A wait is bounded by polling. The group's own time-out (30 minutes unless `init_process_group` got another)
should be longer than the time limit; a shorter one ends the wait first, as an operation that broke off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch.distributed as dist

from horovod_byz.collect import departure, given_up, preamble, termination, torch_job
from horovod_byz.collect.by_alltoall import ByAlltoall, tensor_over
from horovod_byz.collect.channels import KEY_SIZE, SignedStore, own_key
from horovod_byz.collect.errors import HeaderMismatchError, TransportError, names
from horovod_byz.collect.given_up import Operation
from horovod_byz.collect.protocol import (
    HEADER_EXCHANGE,
    MOST_ELEMENTS,
    Array,
    Arrival,
    Arrived,
    Bytes,
    Started,
    check_received,
)
from horovod_byz.collect.torch_job import Work
from horovod_byz.collect.watchdog import Watchdog

# An allgather of up to so many elements, all copies together, goes in one operation: 16 MiB of float32.
_TILED = 2**22
_REMEDY = (
    "start the job again (torchrun does with --max-restarts), or call dist.destroy_process_group(), "
    "dist.init_process_group() and optimizer.rebind() on all ranks"
)


class Torch(ByAlltoall):
    """Ranks connected by torch.distributed."""

    def __init__(self, name: str, timeout: float) -> None:
        self._job = job = torch_job.current()
        self.rank, self.size, self.most = job.rank, job.size, MOST_ELEMENTS
        self.watchdog = Watchdog(job.rank, job.size, job.channel, timeout, session=name)
        self._name = name
        self._own: Callable[[], Any] | None = None  # this session's group, referred to weakly
        if self.size > 1:
            # Before the first operation, so that a rank that is ended meanwhile still says so.
            departure.watch()
            departure.give_signs_of_life()
            termination.watch()
        job.prepare(self.watchdog)

    @property
    def _group(self) -> Any:
        return self._job.group if self._own is None else self._own()

    @property
    def is_current(self) -> bool:
        # True after destroy_process_group() as well: the next operation raises the error that explains it.
        return not dist.is_initialized() or self._job.is_current

    def exchange(self, message: Bytes, phase: str) -> Bytes:
        if phase == HEADER_EXCHANGE:
            # Headers carry the keys with which the ranks sign announcements.
            message = np.concatenate([message, np.frombuffer(own_key(), np.uint8)])
        received = self.exchange_any(message, phase, message.size)
        check_received([message.size] * self.size, [data.size for data in received], phase)
        rows = np.stack(received)
        if phase != HEADER_EXCHANGE:
            return rows
        if isinstance(self._job.channel, SignedStore):
            self._job.channel.meet({rank: row[-KEY_SIZE:].tobytes() for rank, row in enumerate(rows)})
        return np.ascontiguousarray(rows[:, :-KEY_SIZE])

    def exchange_any(self, message: Bytes, phase: str, most: int) -> list[Bytes]:
        short = message if message.size <= preamble.ROOM else None
        with self._operation(phase) as begin:
            received = begin([message.size] * self.size, short)
            long = [rank for rank, count in enumerate(received.counts) if count > most]
            if long:
                raise HeaderMismatchError(
                    f"{names(long)} announced more than the {most} bytes that may come in the {phase}: a "
                    "rank lies, or runs another version; no memory was made for it",
                    long,
                )
            lengths = [0 if count <= preamble.ROOM else count for count in received.counts]
            rest = np.empty(sum(lengths), np.uint8)
            if rest.size:  # on all ranks alike, since a rank announces the same length to all
                splits = [0 if short is not None else message.size] * self.size
                send = np.tile(message, self.size)[: sum(splits)]
                self._send(send, splits, rest, lengths, phase)
        ends = np.cumsum(lengths)
        return [
            rest[end - length : end] if length else payload[: max(0, count)]
            for end, length, payload, count in zip(
                ends, lengths, received.payloads, received.counts, strict=True
            )
        ]

    def separate(self) -> None:
        # torch matches operations by their order alone, so the script's own must go by another group.
        if self._own is None:
            self._own = self._job.another(self.watchdog)

    def start(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> Arrival:
        if self._own is None:
            self.alltoall(send, splits, out, expected, phase)
            return Arrived()
        # Without a preamble, which waits for all ranks: the step's headers have agreed on the lengths.
        self._refuse_if_destroyed(phase)
        self._refuse_after_giving_up(phase)
        work = self._start(send, splits, out, expected)

        def finish() -> None:
            with self._giving_up():
                self._finish([work], phase)

        return Started(finish, lambda: not self._job.is_current)

    def alltoall(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> None:
        with self._operation(phase) as begin:
            check_received(expected, begin(splits).counts, phase)
            self._send(send, splits, out, expected, phase)

    def allgather(self, own: Array, out: Array, phase: str) -> None:
        with self._operation(phase) as begin:
            counts = begin([own.size] * self.size).counts
            if sum(counts) != out.size:
                raise HeaderMismatchError(
                    f"the ranks sent {sum(counts)} elements in the {phase}, not {out.size}", []
                )
            if out.size * self.size <= _TILED:
                self._send(np.tile(own, self.size), [own.size] * self.size, out, counts, phase)
            else:
                self._in_turns(own, out, counts, phase)

    def _in_turns(self, own: Array, out: Array, counts: Sequence[int], phase: str) -> None:
        """An allgather as one operation per distance between ranks, all at once: it copies nothing.

        One operation would need a copy of `own` for every rank. Gloo's own allgather takes pieces of equal
        length only, relays, and took 3 times as long (4 ranks, loopback, d = 1.1e7).
        """
        ends = np.cumsum(counts)
        out[ends[self.rank] - own.size : ends[self.rank]] = own
        works = []
        for distance in range(1, self.size):
            to, source = (self.rank + distance) % self.size, (self.rank - distance) % self.size
            splits = [own.size if rank == to else 0 for rank in range(self.size)]
            expected = [counts[rank] if rank == source else 0 for rank in range(self.size)]
            part = out[ends[source] - counts[source] : ends[source]]
            works.append(self._start(own, splits, part, expected))
        self._finish(works, phase)

    def _send(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int], phase: str
    ) -> None:
        self._finish([self._start(send, splits, out, expected)], phase)

    def _start(
        self, send: Array, splits: Sequence[int], out: Array, expected: Sequence[int]
    ) -> tuple[Work, Any]:
        """Starts an operation; returns it with the memory that it uses."""
        tensors = tensor_over(out), tensor_over(send)
        options = dist.AllToAllOptions()
        options.asyncOp = True
        group = self._group
        work = group.alltoall_base(*tensors, list(expected), list(splits), options)
        return work, (group, tensors)

    def _finish(self, works: list[tuple[Work, Any]], phase: str) -> None:
        try:
            self.watchdog.wait(lambda: all(work.is_completed() for work, _ in works), phase)
            self._raise_errors(works, phase)
        except BaseException:
            torch_job.keep(works)
            raise

    def _raise_errors(self, works: list[tuple[Work, Any]], phase: str) -> None:
        try:
            for work, _ in works:
                work.wait()
        except RuntimeError as error:  # "Connection closed by peer", where a process ended
            self._refuse_if_destroyed(phase)
            self.watchdog.broke(phase, error)

    @contextmanager
    def _operation(self, phase: str) -> Iterator[Callable[..., preamble.Received]]:
        """Context of an operation; yields the call that exchanges preambles.

        If the operation fails once it began, others may still complete it: this rank then gave it up. After a
        mismatch of preambles all ranks raise alike, and may go on.
        """
        self._refuse_if_destroyed(phase)
        self._refuse_after_giving_up(phase)

        agreed = False

        def begin(counts: Sequence[int], message: Bytes | None = None) -> preamble.Received:
            nonlocal agreed
            own, even = preamble.pack(self._name_of(phase), counts, message), [preamble.SIZE] * self.size
            received = np.empty_like(own)
            self._send(own, even, received, even, phase)
            matched = preamble.unpack(received)
            agreed = True
            return matched

        with self._giving_up(lambda: agreed):
            yield begin

    @contextmanager
    def _giving_up(self, agreed: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Context of what others may complete though it fails here; not where they all refuse it alike."""
        try:
            yield
        except HeaderMismatchError:
            if agreed():
                self._give_up()
            raise
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C; `announced` handles the others
                self.watchdog.failed(error)
            self._give_up()
            raise

    def _give_up(self) -> None:
        job = self._job
        given_up.keep(Operation(self.watchdog.said, lambda: not job.is_current, None))

    def _refuse_if_destroyed(self, phase: str) -> None:
        """Raises TransportError if this process destroyed its process group; no rank is late then."""
        if self._job.is_current:
            return
        if dist.is_initialized():
            why = "torch.distributed was initialised anew: call optimizer.rebind()"
        else:
            why = "the process group was destroyed: call dist.init_process_group() and optimizer.rebind()"
        raise self.watchdog.ended(phase, why, "it destroyed its process group")

    def _refuse_after_giving_up(self, phase: str) -> None:
        earlier = given_up.first()
        if earlier is not None:
            raise self.watchdog.refused(
                phase, earlier.refusal(remedy=_REMEDY), earlier.notice, TransportError
            )

    def _name_of(self, phase: str) -> str:
        """The name under which the ranks' operations must match; see `Horovod._operation`."""
        return phase if phase == HEADER_EXCHANGE else f"{phase} ({self._name})"
