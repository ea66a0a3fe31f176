"""The time of a step in parts, its bytes and its memory, for each way to collect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from horovod_byz.collect import Collector, Root, Sharded, Symmetric
from horovod_byz.collect.footprint import Bound
from horovod_byz.collect.layout import Layout
from horovod_byz.plan import traffic
from horovod_byz.plan.constants import Constants
from horovod_byz.plan.passes import Pass, passes
from horovod_byz.plan.traffic import Message, Transport
from horovod_byz.rules.base import Rule

__all__ = ["MEAN", "PARTS", "Cluster", "Estimate", "estimates", "of_collector", "own_mean", "ways"]

PARTS = ("compute", "around", "collect", "aggregate", "return", "apply")
MEAN = "own mean"


@dataclass(frozen=True)
class Cluster:
    """What the ranks run on.

    Attributes:
        workers: number of workers, one on each rank.
        d: number of parameters.
        cores: cores of a machine.
        ranks_per_host: ranks that share a machine, its cores and its link.
        bandwidth: bytes per second of a machine's link, each way; infinite for one machine.
        compute: seconds of forward and backward.
        memory: bytes of a machine; 0 where it is not known.
        transport: "horovod" or "torch".
    """

    workers: int
    d: int
    cores: int = 1
    ranks_per_host: int = 1
    bandwidth: float = float("inf")
    compute: float = 0.0
    memory: float = 0.0
    transport: Transport = "horovod"

    @property
    def share(self) -> float:
        """Cores per rank."""
        return self.cores / self.ranks_per_host


@dataclass(frozen=True)
class Estimate:
    """One way to collect.

    Attributes:
        name: as on the command line.
        seconds: of each of `PARTS`.
        sent: bytes of the rank that sends most; `received` likewise.
        received: bytes of the rank that receives most.
        memory: bytes of the rank that needs most, beyond model and gradients.
        fits: whether all ranks of a machine fit its memory together; None where that is not known.
    """

    name: str
    seconds: dict[str, float]
    sent: int
    received: int
    memory: int
    fits: bool | None = None

    @property
    def step(self) -> float:
        """Seconds of the whole step."""
        return sum(self.seconds.values())


def ways(replicas: int = 3) -> dict[str, Collector]:
    """The ways to collect by name."""
    return {
        "symmetric": Symmetric(),
        "root": Root(),
        "root:dedicated=true": Root(dedicated=True),
        "sharded": Sharded(),
        f"sharded:replicas={replicas}": Sharded(replicas),
    }


def estimates(rule: Rule, cluster: Cluster, constants: Constants, replicas: int = 3) -> list[Estimate]:
    """The estimate of each way that has enough ranks, in the order of `ways`.

    Raises:
        ValueError: if the rule is not defined for so many workers.
    """
    made = passes(rule, cluster.workers)
    return [
        of_collector(name, way, made, cluster, constants)
        for name, way in ways(replicas).items()
        if not isinstance(way, Sharded) or way.replicas <= cluster.workers
    ]


def of_collector(
    name: str, way: Collector, made: Sequence[Pass], cluster: Cluster, constants: Constants
) -> Estimate:
    """The estimate of one way to collect.

    Args:
        name: its name.
        way: the collector.
        made: the rule's passes.
        cluster: what it runs on.
        constants: seconds of everything.
    """
    bound = _bound(way, cluster)
    size = bound.layout.size
    messages = _messages(way, bound, made, cluster.transport)
    replicas = way.replicas if isinstance(way, Sharded) else 1
    # The widest shard: shards are whole tiles, so that with very many ranks some have one and others none.
    width = max(bound.widths) * replicas if isinstance(way, Sharded) else bound.d
    seconds = {part: transfer(messages, part, size, cluster, constants) for part in PARTS}
    seconds["aggregate"] += arithmetic(made, width, cluster, constants)
    seconds |= _beside(cluster, constants, around=constants.around)
    memory = _memory(way, bound, messages)
    whole = _on_a_machine(memory, cluster)
    return Estimate(
        name,
        seconds,
        int(traffic.total(messages, size, "sent").max()),
        int(traffic.total(messages, size, "received").max()),
        int(memory.max()),
        None if cluster.memory == 0 else bool(whole <= cluster.memory),
    )


def own_mean(cluster: Cluster, constants: Constants) -> Estimate:
    """The mean by which the framework itself would synchronise, a ring."""
    size = cluster.workers
    messages = traffic.mean(_bound(Symmetric(), cluster), cluster.transport)
    ring = replace(constants, relayed=constants.ring)
    seconds = {part: transfer(messages, part, size, cluster, ring) for part in PARTS}
    seconds |= _beside(cluster, constants, around=0.0)
    sent, received = traffic.total(messages, size, "sent"), traffic.total(messages, size, "received")
    return Estimate(MEAN, seconds, int(sent.max()), int(received.max()), 4 * cluster.d)


def transfer(
    messages: Sequence[Message], part: str, size: int, cluster: Cluster, constants: Constants
) -> float:
    """Seconds that the messages of a part take: the link's time, or a core's where that is longer."""
    seconds = 0.0
    for message in messages:
        if message.part != part:
            continue
        moved = int((message.sent + message.received).max())
        of_byte = constants.relayed if message.kind == "relayed" else constants.direct
        # One thread of Horovod's, or torch's, moves all bytes.
        core = moved * of_byte / min(1.0, cluster.share)
        both = int(np.maximum(message.sent, message.received).max())
        link = both * cluster.ranks_per_host / cluster.bandwidth
        seconds += max(core, link) + constants.operation / min(1.0, cluster.share)
    return seconds


def arithmetic(made: Sequence[Pass], width: float, cluster: Cluster, constants: Constants) -> float:
    """Seconds of the kernels over `width` coordinates, on all cores of a rank."""
    core = sum(
        each.rows * width * constants.of_value(kernel, each.rows) for each in made for kernel in each.kernels
    )
    return constants.rules * core / cluster.share


def _beside(cluster: Cluster, constants: Constants, around: float) -> dict[str, float]:
    core = min(1.0, cluster.share)
    return {
        "compute": cluster.compute,
        "around": around * cluster.d / core,
        "apply": constants.apply * cluster.d / core,
    }


def _bound(way: Collector, cluster: Cluster) -> Bound:
    rows = (1,) * cluster.workers
    return Bound(Layout((0, *rows) if isinstance(way, Root) and way.dedicated else rows), cluster.d)


def _messages(way: Collector, bound: Bound, made: Sequence[Pass], transport: Transport) -> list[Message]:
    if isinstance(way, Sharded):
        return traffic.sharded(bound, made, transport, way.replicas)
    return (traffic.root if isinstance(way, Root) else traffic.symmetric)(bound, made, transport)


def _memory(way: Collector, bound: Bound, messages: Sequence[Message]) -> Any:
    """Bytes of each rank: its row, what the session holds, and the largest workspace of a message."""
    workspace = max((message.workspace for message in messages), default=0)
    rows = [k * bound.values(bound.d) for k in bound.layout.rows]
    return np.array([own + way.held(bound, rank) + workspace for rank, own in enumerate(rows)])


def _on_a_machine(memory: Any, cluster: Cluster) -> float:
    """Bytes of the machine whose ranks need most, with the model and its gradients."""
    hosts = [memory[i : i + cluster.ranks_per_host] for i in range(0, len(memory), cluster.ranks_per_host)]
    return float(max(int(host.sum()) + len(host) * 8 * cluster.d for host in hosts))
