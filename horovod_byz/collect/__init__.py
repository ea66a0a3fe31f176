"""Collecting rows over Horovod: three interchangeable modes that give the same bits.

| collector | traffic per rank | memory per rank | who must be trusted |
| --- | --- | --- | --- |
| `Symmetric` | O(n d) | O(n d) | no aggregator |
| `Root` | root O(n d), others O(d) | root O(n d) | rank 0 |
| `Sharded` | O(d) | about 2.2 d | every aggregator |
| `Sharded(replicas=r)` | r times as much | r times as much | a majority of each shard's r aggregators |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from horovod_byz.collect import footprint, memory
from horovod_byz.collect.compression import Compression, HalfCompression, SignCompression, as_compression
from horovod_byz.collect.errors import (
    EquivocationError,
    HeaderMismatchError,
    JoinedRanksError,
    LateRanksError,
    StateMismatchError,
    TransportError,
)
from horovod_byz.collect.footprint import Bound
from horovod_byz.collect.layout import Layout, split
from horovod_byz.collect.session import Collected, Job, Session, Wire
from horovod_byz.collect.transport import ranks, time_limit
from horovod_byz.common.checks import flag

__all__ = [
    "Collected",
    "Collector",
    "Compression",
    "EquivocationError",
    "HalfCompression",
    "HeaderMismatchError",
    "JoinedRanksError",
    "LateRanksError",
    "Layout",
    "Root",
    "Session",
    "Sharded",
    "SignCompression",
    "StateMismatchError",
    "Symmetric",
    "TransportError",
    "Wire",
    "as_compression",
    "bind",
    "ranks",
    "resolve",
    "split",
    "time_limit",
]


class Collector(ABC):
    """A collection mode, as a value; `bind` opens a session for d coordinates and the workers of a job."""

    def bind(
        self,
        d: int,
        dtype: Any,
        local_workers: int | Sequence[int] | Layout = 1,
        *,
        name: str = "gradient",
        layout: str = "",
        threads: int | None = None,
        timeout: float | None = None,
        compression: Compression | str | None = None,
        segments: Sequence[int] | None = None,
        start: int = 0,
    ) -> Session:
        """Opens a session, after all ranks have compared their arguments. All ranks call it together.

        Args:
            d: number of coordinates.
            dtype: float32 or float64.
            local_workers: number of logical workers on every rank, or a tuple or `Layout` of each rank's
                number, the same on all ranks. A dedicated root has none in any case. A rank that
                announces another number than this rank expects is refused.
            name: name of the collected tensor, part of the names of Horovod's operations.
            layout: text that all ranks must share, such as the names and shapes of the parameters.
            threads: threads for the kernels (default: torch's number); does not change the result.
            timeout: seconds that one wait between ranks may take (default: the environment's
                HOROVOD_BYZ_TIMEOUT, or 300); the error comes after a grace of at most 3 s more, or
                0.12 s for each rank where there are over 25.
            compression: how rows are packed for sending, such as `HalfCompression()`, or its name; default
                not at all.
            segments: the coordinate after each tensor's last, equal on all ranks, for rules that treat
                tensors separately, such as `MajorityVote(scope="tensor")`.
            start: number of the first step, for a session that replaces another. If the ranks give different
                numbers, as when a new rank is among them, all begin at 0.

        Returns:
            A session; its `step(rows, rule)` collects and aggregates.

        Warns:
            RuntimeWarning: if what it is about to allocate is more than this machine has free; it names
                the way to collect that fits, if one does.

        Raises:
            HeaderMismatchError: if the ranks bind different things; it names the ranks that differ.
            EquivocationError: if a rank announces different things to different ranks.
            LateRanksError: if a rank does not arrive in time.
            ValueError: if the collector does not fit the job, or the segments do not fit d.
            ValueError: if `compression` is not as `as_compression` takes it.
            TypeError: if a number of workers is not whole.
        """
        from horovod_byz.aggregation.engine import checked_segments, default_threads
        from horovod_byz.collect.transport import connect

        timeout = time_limit(timeout)
        compression = as_compression(compression)
        transport = connect(name, timeout)
        ends = None if segments is None else checked_segments(segments, d)
        job = Job(
            transport,
            d,
            dtype,
            local_workers,
            threads=default_threads() if threads is None else threads,
            shared=layout if ends is None else f"{layout} segments={ends}",
            compression=compression,
            segments=ends,
            start=start,
        )
        bound = Bound(job.layout, d, dtype, job.compression)
        memory.warn_if_short(self, (Sharded(), Root()), bound, transport.rank)
        return self.session(job)

    def workers_of(self, size: int) -> int:
        """Number of workers in a job of `size` ranks that hold one worker each."""
        return size

    @property
    def beside(self) -> Collector:
        """The way in which what is not a gradient is collected, such as buffers."""
        return self

    def held(self, bound: Bound, rank: int) -> int:
        """Bytes that a session of this rank holds from step to step; 0 where that is not known.

        Args:
            bound: workers of each rank, coordinates, dtype and compression.
            rank: the rank.
        """
        return 0

    @abstractmethod
    def session(self, job: Job) -> Session:
        """A session for the job. All ranks call it together."""


@dataclass(frozen=True)
class Symmetric(Collector):
    """Every rank gathers all rows by allgather, checks them by digests, and aggregates."""

    def held(self, bound: Bound, rank: int) -> int:
        return footprint.of_symmetric(bound, rank)

    def session(self, job: Job) -> Session:
        from horovod_byz.collect.symmetric import SymmetricSession

        return SymmetricSession(job)


@dataclass(frozen=True)
class Root(Collector):
    """Rank 0 receives all rows, aggregates, and sends the result back.

    Attributes:
        dedicated: rank 0 holds no worker and only aggregates.
    """

    dedicated: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "dedicated", flag(self, "dedicated", self.dedicated))

    def workers_of(self, size: int) -> int:
        return size - self.dedicated

    def held(self, bound: Bound, rank: int) -> int:
        if self.dedicated and bound.layout.rows[0]:
            bound = replace(bound, layout=Layout((0, *bound.layout.rows[1:])))
        return footprint.of_root(bound, rank)

    def session(self, job: Job) -> Session:
        from horovod_byz.collect.root import RootSession

        if self.dedicated and job.transport.size < 2:
            raise ValueError("Root(dedicated=True) needs at least 2 ranks: rank 0 holds no worker")
        if self.dedicated:
            job = replace(job, local_workers=(0, *job.layout.rows[1:]))
        return RootSession(job)


@dataclass(frozen=True, repr=False)
class Sharded(Collector):
    """Each rank aggregates one shard of the coordinates.

    Attributes:
        replicas: number of ranks that aggregate each shard. A bitwise majority vote on their statistics and
            results tolerates (replicas - 1) // 2 Byzantine aggregators of a shard, for `replicas` times the
            traffic, memory and work.
        overlap: whether parts of a gradient are sent while backward() still computes the rest. For
            `DistributedOptimizer`, where the network takes a good part of a step; the result has the same
            bits. What changes for a script stands in docs/collecting.md.
    """

    replicas: int = 1
    overlap: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.replicas, int) or self.replicas < 1:
            raise ValueError(f"Sharded: replicas must be a whole number >= 1, got {self.replicas!r}")
        object.__setattr__(self, "overlap", flag(self, "overlap", self.overlap))
        if self.overlap and self.replicas > 1:
            raise ValueError(
                f"Sharded(replicas={self.replicas}, overlap=True) is not supported: leave out one of the two"
            )

    @property
    def beside(self) -> Collector:
        return replace(self, overlap=False)

    def __repr__(self) -> str:
        return f"Sharded(replicas={self.replicas}{', overlap=True' if self.overlap else ''})"

    def held(self, bound: Bound, rank: int) -> int:
        return footprint.of_replicas(bound, rank, self.replicas)

    def session(self, job: Job) -> Session:
        if self.replicas == 1:
            from horovod_byz.collect.sharded import ShardedSession

            return ShardedSession(job, self.overlap)
        from horovod_byz.collect.replicated import ReplicatedSession

        return ReplicatedSession(job, self.replicas)


_BY_NAME = {"symmetric": Symmetric(), "root": Root(), "sharded": Sharded()}


def resolve(collect: str | Collector) -> Collector:
    """The collector of that name, or the collector itself.

    Raises:
        ValueError: if no collector has that name.
    """
    if isinstance(collect, Collector):
        return collect
    if isinstance(collect, str) and collect in _BY_NAME:
        return _BY_NAME[collect]
    raise ValueError(
        f"collect must be one of {', '.join(map(repr, _BY_NAME))}, or Symmetric(), Root(dedicated=...), "
        f"Sharded(), got {collect!r}"
    )


def bind(
    collect: str | Collector,
    d: int,
    dtype: Any,
    local_workers: int | Sequence[int] | Layout = 1,
    **options: Any,
) -> Session:
    """Binds a collector given by name or value; see `Collector.bind`."""
    return resolve(collect).bind(d, dtype, local_workers, **options)
