"""Times the aggregation rules against the least that any of them must do: read every row once."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from horovod_byz import rules
from horovod_byz.rules import Rule

__all__ = ["Timing", "main", "measure", "render", "rules_for"]

READ = "read once"
TORCH_MEAN = "torch.mean"


@dataclass(frozen=True)
class Timing:
    """What one way to aggregate cost.

    Args:
        name: the rule, or one of the two yardsticks.
        milliseconds: median over the rounds.
        over_read: median over the rounds of its time divided by the time to read all rows once.
    """

    name: str
    milliseconds: float
    over_read: float


def rules_for(n: int) -> list[Rule]:
    """Every rule that holds for n rows, each with the largest f that it tolerates."""
    made = []
    for name in rules.names():
        try:
            rule = rules.by_name(name)
        except TypeError:  # the rule has to be told f
            f = rules.by_name(name, f=0).max_byzantine(n)
            if f < 0:
                continue
            rule = rules.by_name(name, f=f)
        made.append(rule)
    return made


def seconds(way: Callable[[], object]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


def measure(ways: Mapping[str, Callable[[], object]], rounds: int) -> list[Timing]:
    """Times every way once per round, after one round that is not counted.

    Ratios are taken inside a round and only then summarised: on a machine with other work to do,
    neighbours in time share its load, and the ratio holds where the milliseconds do not.
    """
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for count in range(rounds + 1):
        for name, way in ways.items():
            taken = seconds(way)
            if count:
                samples[name].append(taken)
    return [
        Timing(
            name,
            1e3 * statistics.median(own),
            statistics.median(a / b for a, b in zip(own, samples[READ], strict=True)),
        )
        for name, own in samples.items()
    ]


def ways(rows: npt.NDArray[Any], threads: int) -> dict[str, Callable[[], object]]:
    """The two yardsticks and every rule, as calls without arguments."""
    tensor = torch.from_numpy(rows)
    made: dict[str, Callable[[], object]] = {READ: tensor.sum, TORCH_MEAN: lambda: tensor.mean(0)}
    for rule in rules_for(len(rows)):
        made[repr(rule)] = lambda rule=rule: rule(rows, threads=threads)  # type: ignore[misc]
    return made


def render(timings: Sequence[Timing], title: str) -> None:
    """Prints the timings as a table."""
    table = Table("", "ms", "x reading once", title=title, box=None, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for timing in timings:
        table.add_row(timing.name, f"{timing.milliseconds:.2f}", f"{timing.over_read:.2f}")
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Times the rules on random rows and prints a table, or JSON with --json."""
    parser = argparse.ArgumentParser(prog="horovod-byz bench", description=__doc__)
    parser.add_argument("-n", type=int, default=20, help="rows (workers)")
    parser.add_argument("-d", type=int, default=1_000_000, help="coordinates per row")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(arguments)
    for name in ("n", "d", "threads", "rounds"):
        if getattr(given, name) < 1:
            parser.error(f"{name} has to be at least 1, got {getattr(given, name)}")
    torch.set_num_threads(given.threads)
    rows = np.random.default_rng(0).standard_normal((given.n, given.d), dtype=given.dtype)
    timings = measure(ways(rows, given.threads), given.rounds)
    if given.json:
        print(json.dumps({**vars(given), "timings": [asdict(timing) for timing in timings]}, indent=1))
    else:
        render(timings, f"n = {given.n}, d = {given.d:,}, {given.dtype}, threads = {given.threads}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
