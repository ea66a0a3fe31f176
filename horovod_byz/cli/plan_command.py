"""`horovod-byz plan`: what a step costs by each way to collect, before anything is started."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from horovod_byz.common.terminal import console
from horovod_byz.common.words import known, parse_word
from horovod_byz.plan import units
from horovod_byz.plan.constants import Constants, measured
from horovod_byz.plan.estimate import PARTS, Cluster, Estimate, estimates, own_mean
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules import pipelines
from horovod_byz.rules.base import Rule

__all__ = ["Asked", "show"]

_MOST_WORKERS = 20_000
_OWN = {"horovod": "Horovod's own mean", "torch": "DDP's own mean"}


@dataclass(frozen=True)
class Asked:
    """The options as they were written.

    Attributes:
        workers, parameters, rule, bandwidth, cores: what `plan` needs.
        compute: seconds of forward and backward; empty where they are not known.
        memory: of a machine; likewise.
        ranks_per_host: ranks that share a machine.
        transport: "horovod" or "torch".
        redundancy: workers per redundancy group, for DETOX.
        replicas: aggregators of each shard in the replicated way.
    """

    workers: str
    parameters: str
    rule: str
    bandwidth: str
    cores: str
    compute: str = ""
    memory: str = ""
    ranks_per_host: str = "1"
    transport: str = "horovod"
    redundancy: str = "3"
    replicas: str = "3"

    def cluster(self) -> Cluster:
        """The cluster.

        Raises:
            ValueError: if an option cannot be read; one sentence with the remedy.
        """
        known(self.transport, _OWN, "transport")
        return Cluster(
            workers=units.number(self.workers, "--workers", _MOST_WORKERS),
            d=units.number(self.parameters, "--parameters"),
            cores=units.number(self.cores, "--cores"),
            ranks_per_host=units.number(self.ranks_per_host, "--ranks-per-host"),
            bandwidth=units.bandwidth(self.bandwidth),
            compute=units.seconds(self.compute) if self.compute else 0.0,
            memory=units.size(self.memory) if self.memory else 0.0,
            transport="torch" if self.transport == "torch" else "horovod",
        )

    def made(self, n: int) -> Rule:
        """The rule.

        Raises:
            ValueError: if its name or an option is unknown, or it does not hold for n workers.
        """
        name, options = parse_word(self.rule)
        groups = Redundancy(r=units.number(self.redundancy, "--redundancy"))
        try:
            pipelines.with_f(name, options, 0)  # only to refuse unknown options, with the nearest name
            rule = pipelines.make(name, options, groups, n)
        except TypeError as error:
            raise ValueError(f"--rule {self.rule!r}: {error}") from error
        rule.check(n)
        return rule


def show(asked: Asked, as_json: bool = False) -> None:
    """Prints the estimates, as a table or as JSON.

    Raises:
        ValueError: if an option cannot be read, or the rule does not hold.
    """
    cluster, constants = asked.cluster(), measured()
    replicas = units.number(asked.replicas, "--replicas")
    if replicas < 2:
        raise ValueError(f"--replicas must be at least 2, got {replicas}: `sharded` is the way with one")
    rule = asked.made(cluster.workers)
    made = estimates(rule, cluster, constants, replicas)
    own, best = own_mean(cluster, constants), fastest(made)
    if as_json:
        content = {
            "rule": repr(rule),
            "workers": cluster.workers,
            "parameters": cluster.d,
            "transport": cluster.transport,
            "ways": [_entry(estimate, estimate is best) for estimate in made],
            "own_mean": _entry(own, False),
            "error": {"worst": constants.fit.worst, "typical": constants.fit.typical},
            "measured_steps": constants.fit.steps,
        }
        print(json.dumps(content, indent=1))
        return
    screen = console()
    screen.print(f"{rule!r}, {cluster.workers} workers, d = {cluster.d:,}", highlight=False)
    screen.print(_table(made, own, best, cluster))
    for line in _notes(asked, cluster, constants, best):
        screen.print(line, highlight=False)


def fastest(made: Sequence[Estimate]) -> Estimate | None:
    """The way with the shortest step among those that fit the memory; None if none does."""
    return min((e for e in made if e.fits is not False), key=lambda e: e.step, default=None)


def _entry(estimate: Estimate, best: bool) -> dict[str, Any]:
    return {
        "way": estimate.name,
        "seconds": {"step": estimate.step, **estimate.seconds},
        "sent_bytes": estimate.sent,
        "received_bytes": estimate.received,
        "memory_bytes": estimate.memory,
        "fits": estimate.fits,
        "fastest": best,
    }


def _table(made: Sequence[Estimate], own: Estimate, best: Estimate | None, cluster: Cluster) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("way to collect", no_wrap=True)
    for heading in ("step", *PARTS, "sent", "received", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for estimate in (*made, own):
        mark = "fastest" if estimate is best else "no room" if estimate.fits is False else ""
        cells = [_seconds(estimate.step), *(_seconds(estimate.seconds[part]) for part in PARTS)]
        cells += [_bytes(value) for value in (estimate.sent, estimate.received, estimate.memory)]
        table.add_row(_OWN[cluster.transport] if estimate is own else estimate.name, *cells, mark)
    return table


def _notes(asked: Asked, cluster: Cluster, constants: Constants, best: Estimate | None) -> list[str]:
    notes = ["Bytes and memory are those of the rank with most; memory is beyond model and gradients."]
    if not asked.compute:
        notes.append("Without --compute, forward and backward are left out of the step.")
    if best is None:
        notes.append(
            "No way fits the memory: fewer ranks on a machine, SignCompression, or groups of workers "
            "(docs/scaling.md)."
        )
    elif not asked.memory:
        notes.append("Without --memory it is not known which ways fit a machine.")
    where = ", ".join(constants.fit.machines)
    notes.append(f"Times are fitted to measurements on {where}, and lie {constants.fit}.")
    return notes


def _seconds(value: float) -> str:
    if value == 0:
        return "-"
    if value < 0.9995:
        return f"{1e3 * value:.0f} ms" if value >= 0.00995 else f"{1e3 * value:.1f} ms"
    return f"{value:.2f} s" if value < 99.5 else f"{value:,.0f} s"


def _bytes(value: int) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:,.{0 if value >= 100 * scale else 1}f} {unit}"
    return f"{value} B"
